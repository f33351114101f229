//! The HTTP server, and the signals that it obeys.

use std::future::IntoFuture as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::append::Appender;
use crate::args::Args;
use crate::echo;
use crate::notes::{self, Notes};
use crate::state::{Identity, State};

/// How long connections may take to finish after SIGTERM. A fail-over waits for this process, so not long.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The signal handlers cannot be installed, or the address cannot be listened on.
pub(crate) async fn run(args: Args) -> io::Result<()> {
    // First of all: a SIGHUP before its handler is there would end the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;

    let (listen, append, echo, sick) = (args.listen, args.append.clone(), args.echo, args.sick_file.clone());
    let database = args.db.clone().map(|path| Arc::new(Notes::new(path)));
    let started_at = jiff::Timestamp::now().round(jiff::Unit::Millisecond).unwrap_or_default().to_string();
    let mut state = State::new(args, std::process::id(), started_at, hostname());
    state.read_files().iter().for_each(|reason| log(reason));
    // A hot standby leaves the file alone: it is a replica that others write.
    if let Some(notes) = database.as_ref().filter(|_| !state.is_standby()) {
        notes.prepare().map_err(|error| io::Error::other(format!("cannot open the database: {error}")))?;
    }
    let state = Arc::new(Mutex::new(state));
    if let Some(path) = append {
        let writer = Appender::open(&path)?;
        let state = Arc::clone(&state);
        // In a task of its own, not a timer of the loop below: a reload must not make a hole in the record.
        tokio::spawn(writer.run(move || lock(&state).tenure()));
    }

    if let Some(address) = echo {
        tokio::spawn(echo::serve(echo::open(address).await?));
    }

    // Tokio sets SO_REUSEADDR, so that a restart does not wait for old connections to be forgotten.
    let listener = TcpListener::bind(listen).await.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}")))?;
    log(&format!("listening on {}", listener.local_addr()?));
    notify(&[NotifyState::Ready]);

    let router = Router::new()
        .route("/", get(identity))
        .route("/healthz", get(move || std::future::ready(health(sick.as_deref()))))
        .with_state(Arc::clone(&state));
    let router = database.into_iter().fold(router, |router, notes| router.merge(notes::routes(notes)));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serve = axum::serve(listener, router).with_graceful_shutdown(async {
        // An error means that the sender is gone, which asks for the same.
        stopped.await.ok();
    });
    let mut serve = std::pin::pin!(serve.into_future());
    let mut end = std::pin::pin!(first(terminate, interrupt));
    loop {
        tokio::select! {
            result = &mut serve => return result,
            () = &mut end => break,
            Some(()) = hangup.recv() => reload(&state),
        }
    }
    notify(&[NotifyState::Stopping]);
    drop(stop);
    match tokio::time::timeout(DRAIN_MAX, serve).await {
        Ok(result) => result,
        Err(_) => {
            log(&format!("connections were still open {} s after the signal to stop", DRAIN_MAX.as_secs()));
            Ok(())
        }
    }
}

async fn first(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Reads the files again, and tells systemd so where the unit is of `Type=notify-reload`.
fn reload(state: &Mutex<State>) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
    lock(state).reload().iter().for_each(|reason| log(reason));
    notify(&[NotifyState::Ready]);
}

fn health(sick: Option<&Path>) -> (StatusCode, &'static str) {
    match sick.is_some_and(Path::exists) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "sick\n"),
        false => (StatusCode::OK, "ok\n"),
    }
}

async fn identity(Shared(state): Shared<Arc<Mutex<State>>>) -> Json<Identity> {
    Json(lock(&state).identity())
}

/// The state; a panic elsewhere cannot have left it half written, since it only holds plain values.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells systemd, if it listens. Nothing depends on it.
fn notify(what: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(what) {
        log(&format!("cannot notify systemd: {error}"));
    }
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// A line on stderr, which is the journal. A closed stderr is no reason to stop serving.
pub(crate) fn log(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}
