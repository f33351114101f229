//! The controller put together: connect, feed the caches, contend for leadership, reconcile, serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use cluster_bus::{Bus, ConnectError, Names, SharedState};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::api::{Api, Stores};
use crate::changes::Changes;
use crate::config::{Checked, ConfigError};
use crate::world::SharedWorld;
use crate::{api, config, events, feed, leadership, reconcile};

/// The controller of a clusterctl cluster. Several run, one leads.
#[derive(Debug, Parser)]
#[command(name = "cluster-controller", version)]
pub struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/clusterctl/controller.yaml")]
    pub config: PathBuf,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    /// NATS cannot be set up.
    #[error("the connection to NATS cannot be set up")]
    Nats(#[source] ConnectError),
    /// The API's address cannot be had.
    #[error("cannot listen on {listen}")]
    Listen {
        /// As configured.
        listen: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The API ended by itself.
    #[error("the API ended")]
    Serve(#[source] std::io::Error),
    /// The part that plans ended by itself: the process ends too, so that the service manager starts it anew.
    #[error("the reconcile loop ended")]
    Background,
    /// Signals cannot be awaited.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from running.
pub async fn run(config: &Path) -> Result<(), RunError> {
    let checked = config::load(config).map_err(RunError::Config)?;
    let listen = checked.config.listen;
    let listener = TcpListener::bind(listen).await.map_err(|source| RunError::Listen { listen, source })?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        info!("stopping");
    };
    Box::pin(serve(checked, listener, stop)).await
}

/// Runs a controller whose API is served by `listener`, until `stop`.
///
/// # Errors
/// What kept it from running.
pub async fn serve(checked: Checked, listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
    let Checked { config, token, tokens, tls, lease } = checked;
    let names = Names::new(&config.cluster);
    let bus = Bus::connect(&config.nats, names, &format!("controller {}", config.name)).await.map_err(RunError::Nats)?;
    let world = SharedWorld::new(Instant::now());
    world.change(|w| {
        w.changes = Changes::new(config.changes_kept);
        false
    });
    let instance = uuid::Uuid::new_v4().to_string();
    info!(controller = config.name, cluster = config.cluster, listen = %config.listen, instance, "started");

    let (recorder, events) = events::start(&bus);
    let shared = Arc::new(Api {
        bus: bus.clone(),
        world: world.clone(),
        state: SharedState::new(bus.clone(), &config.name),
        stores: tokio::sync::OnceCell::new(),
        events,
        missed: api::Missed::default(),
        cluster: config.cluster.clone(),
        name: config.name.clone(),
        access: api::Access::new(token.as_deref(), tokens, config.certifies()),
        limits: api::Limits::new(config.requests_per_second),
        stopping: tokio::sync::watch::Sender::new(false),
        watchers: Arc::new(tokio::sync::Semaphore::new(api::WATCHERS_MAX)),
        lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
    });
    let background = {
        let (bus, world, shared, name) = (bus.clone(), world.clone(), Arc::clone(&shared), config.name.clone());
        tokio::spawn(async move {
            tokio::spawn(feed::guard_listening(bus.clone(), world.clone()));
            bus.create_buckets().await;
            tokio::spawn(feed::keep_history(bus.clone()));
            let feeds = feed::start(&bus, &world);
            let leadership = leadership::start(bus.clone(), world.clone(), name, instance, config.voters);
            shared.stores.get_or_init(|| Stores::open(&bus)).await;
            tokio::spawn(feed::keep_buckets(bus.clone()));
            Box::pin(reconcile::run(bus, world, leadership, lease, recorder)).await;
            drop(feeds);
        })
    };
    // Without a manager that listens there is nobody to tell.
    let _told = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut background = background;
    let served = tokio::select! {
        served = api::serve(listener, tls, shared, stop) => served.map_err(RunError::Serve),
        // A controller that beats and does not plan would keep others from leading.
        _ = &mut background => Err(RunError::Background),
    };
    background.abort();
    served
}
