//! clusterctl, the command line.
