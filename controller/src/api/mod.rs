//! The HTTP API under `/v1`, beside `/healthz` and `/readyz`. Bodies are in [`cluster_schemas::api`].

mod apps;
mod audit;
mod auth;
mod databases;
mod events;
mod input;
mod limits;
mod list;
mod nodes;
mod operate;
mod plan;
mod problem;
mod query;
mod recovery;
mod rings;
mod roles;
mod routes;
mod state;
mod tls;
mod voters;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use cluster_bus::{Bucket, Bus, CordonOrder, HandoverOrder, Kv, RecoveryRecord, Removal, SharedState, StoreMark, VotersOrder};
use cluster_schemas::App;
use cluster_schemas::api::VersionInfo;
use tokio::net::TcpListener;
use tracing::warn;

use crate::world::SharedWorld;

pub use audit::Missed;
pub use auth::Access;
pub use limits::Limits;
pub use problem::ApiError;
pub use routes::openapi;
pub use tls::server_config;
pub use watch::WATCHERS_MAX;

/// Largest request body, in bytes: the largest manifest.
const BODY_MAX: usize = 1024 * 1024;
/// How long requests may go on once the controller is told to end: longer than a write waits for its store.
const GRACE: Duration = Duration::from_secs(12);

/// What the handlers write.
#[derive(Debug)]
pub struct Stores {
    /// The desired Apps.
    pub apps: Kv<App>,
    /// The mark of their bucket.
    pub marks: Kv<StoreMark>,
    /// What an operator signed.
    pub recoveries: Kv<RecoveryRecord>,
    /// Nodes that are to be forgotten.
    pub removals: Kv<Removal>,
    /// Nodes that operators set apart.
    pub cordons: Kv<CordonOrder>,
    /// Singletons that operators asked to move.
    pub handovers: Kv<HandoverOrder>,
    /// An operator's order to replace a voter.
    pub voters: Kv<VotersOrder>,
}

impl Stores {
    /// Opens the buckets, waiting until they exist.
    pub async fn open(bus: &Bus) -> Self {
        Self {
            apps: bus.open(Bucket::Apps).await,
            marks: bus.open(Bucket::Apps).await,
            recoveries: bus.open(Bucket::Assignments).await,
            removals: bus.open(Bucket::Nodes).await,
            cordons: bus.open(Bucket::Nodes).await,
            handovers: bus.open(Bucket::Assignments).await,
            voters: bus.open(Bucket::Assignments).await,
        }
    }
}

/// What the handlers share.
#[derive(Debug)]
pub struct Api {
    /// Core NATS, for what must not wait for a store.
    pub bus: Bus,
    /// Caches.
    pub world: SharedWorld,
    /// Applications' shared state.
    pub state: SharedState,
    /// The buckets; none until they could be opened.
    pub stores: tokio::sync::OnceCell<Stores>,
    /// What happened.
    pub events: crate::events::EventLog,
    /// Records of writes that could not be stored.
    pub missed: Missed,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this controller.
    pub name: String,
    /// Who may use it.
    pub access: Access,
    /// How much each may ask.
    pub limits: Limits,
    /// Turns true when the controller is about to end.
    pub stopping: tokio::sync::watch::Sender<bool>,
    /// One for each watch that may still be begun.
    pub watchers: Arc<tokio::sync::Semaphore>,
    /// The lease of Apps that name none, in milliseconds.
    pub lease_ms: u64,
}

impl Api {
    /// The buckets.
    pub(crate) fn stores(&self) -> Result<&Stores, ApiError> {
        self.stores.get().ok_or_else(|| ApiError::unavailable("the store is not reached yet"))
    }

    /// The bucket of Apps.
    pub(crate) fn store(&self) -> Result<&Kv<App>, ApiError> {
        self.stores().map(|stores| &stores.apps)
    }
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    let v1 = routes::v1(&api);
    Router::new()
        .merge(v1)
        .fallback(|| async { ApiError::not_found("there is nothing at this path; the API is under /v1") })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::map_response(problem::shaped))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(api)
}

/// Serves until `stop` is done, then lets running requests end, for [`GRACE`] at most: a client that does not read, or sends half a request,
/// must not keep a controller from ending. With `tls` it speaks nothing else.
///
/// # Errors
/// As the listener says.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    api: Arc<Api>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let told = Arc::clone(&api);
    let stop = async move {
        stop.await;
        // Watches end by themselves then; the server waits for them.
        told.stopping.send_replace(true);
    };
    let mut stopping = api.stopping.subscribe();
    let service = router(api).into_make_service_with_connect_info::<tls::Peer>();
    let late = async move {
        // The sender lives as long as the server.
        drop(stopping.wait_for(|stopping| *stopping).await);
        tokio::time::sleep(GRACE).await;
        warn!("requests that did not end are broken off");
        Ok(())
    };
    let served = async move {
        match tls {
            Some(config) => axum::serve(tls::TlsListener::new(listener, config)?, service).with_graceful_shutdown(stop).await,
            None => axum::serve(listener, service).with_graceful_shutdown(stop).await,
        }
    };
    tokio::select! {
        served = served => served,
        late = late => late,
    }
}

/// Ready to answer: the caches are complete. A controller that does not lead is as ready as one that does.
async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    if api.world.read().is_complete() && api.stores.initialized() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the caches are not complete yet\n")
    }
}

async fn version(State(api): State<Arc<Api>>) -> Json<VersionInfo> {
    let world = api.world.read();
    let leader = world
        .leader
        .as_ref()
        .filter(|(at, _)| at.elapsed() < crate::leadership::BEAT_TIMEOUT)
        .map(|(_, beat)| (beat.leader.clone(), beat.term));
    Json(VersionInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: api.cluster.clone(),
        controller: api.name.clone(),
        term: leader.as_ref().map_or(0, |(_, term)| *term),
        leader: leader.map(|(name, _)| name),
    })
}
