//! The local API: HTTP on a Unix socket, for the processes of Apps on this node and for root (docs/local-api.md).
//!
//! A caller is known by the kernel's word for the process at the other end and the systemd unit that it runs in ([`peer`], [`caller`]). New
//! routes: a module here with handlers that take [`State<Arc<Local>>`](axum::extract::State) and a [`Caller`], a line in [`router`], and a
//! section of the document.

pub mod caller;
pub mod events;
pub mod followed;
pub mod grants;
mod locks;
pub mod peer;
mod problem;
pub mod ring;
mod selves;
pub mod services;
pub mod socket;
pub mod state;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use cluster_bus::{Bus, Names, SharedState};
use cluster_schemas::{Assignment, NodeStatus};
use tokio::sync::watch;
use tracing::{info, warn};

pub use caller::{Caller, Who};
pub use problem::LocalError;

use crate::config::SocketConfig;
use crate::locks::Locks;
use crate::place::UnitOf;

/// Name of the socket in the agent's runtime folder.
pub const SOCKET: &str = "local.sock";
/// Name of the environment variable with the socket's path, for the processes of units that we write.
pub const SOCKET_VARIABLE: &str = "CLUSTERCTL_SOCKET";
/// Largest body of a request, in bytes.
pub const BODY_MAX: usize = 256 * 1024;
/// Wait before another try to make the socket.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Debug)]
pub struct Local {
    /// Name of this node.
    pub node: String,
    /// This node's address, for peers.
    pub address: Option<String>,
    /// Names in NATS.
    pub names: Names,
    /// The connection for data.
    pub bus: Bus,
    /// What is seen here.
    pub status: watch::Receiver<NodeStatus>,
    /// What this node is to do; none before the first assignment.
    pub assignment: watch::Receiver<Option<Arc<Assignment>>>,
    /// Applications' shared state.
    pub state: Arc<SharedState>,
    /// What of it is followed here.
    pub followers: Arc<state::follower::Followers>,
    /// The rings that are followed here.
    pub rings: Arc<ring::Rings>,
    /// The services that are followed here.
    pub services: Arc<services::Services>,
    /// What Apps let each other do.
    pub grants: grants::Grants,
    /// The agent's own user: processes of it that are of no App may ask for all, as root may.
    pub uid: u32,
}

/// All routes.
pub fn router(local: Arc<Local>, locks: Option<Locks>) -> Router {
    Router::new()
        .route("/v1/kv", get(state::list))
        .route("/v1/kv/{*key}", get(state::get).put(state::put).delete(state::delete))
        .route("/v1/ring/{app}", get(ring::get))
        .route("/v1/ring/{app}/owner", get(ring::owner))
        .merge(locks.map(locks::routes).unwrap_or_default())
        .route("/v1/self", get(selves::get))
        .route("/v1/services/{app}", get(services::get))
        .fallback(|| async { LocalError::not_found("there is nothing at this path; see docs/local-api.md") })
        .method_not_allowed_fallback(|| async {
            LocalError::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path does not take that method")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(local)
}

/// Serves the local API for as long as the agent runs. A socket that cannot be made is tried again: nothing else waits for it.
pub async fn serve(local: Arc<Local>, locks: Locks, path: PathBuf, config: SocketConfig, unit_of: UnitOf) {
    let mut said = String::new();
    let listener = loop {
        match socket::listen(&path, &config) {
            Ok(listener) => break listener,
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    warn!(path = %path.display(), "the socket of the local API cannot be made, trying again: {text}");
                    said = text;
                }
            }
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    };
    info!(path = %path.display(), "the local API listens");
    socket::serve(listener, router(local, Some(locks)), unit_of).await;
}
