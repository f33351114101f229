//! Leadership, caches, reconcile loop and HTTP API.
