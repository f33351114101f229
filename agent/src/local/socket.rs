//! The socket itself: its file, who may connect, how many, and for how long without saying anything.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Gid, Group};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use super::peer::{Peer, peer};
use crate::config::SocketConfig;
use crate::place::UnitOf;

/// Most connections at a time; one more is told so and closed.
pub const CONNECTIONS_MAX: usize = 2048;
/// Most connections of one unit at a time, so that others find room. The same for all processes that are in no unit.
pub const CONNECTIONS_OF_UNIT_MAX: usize = 1536;
/// A connection that says nothing for this long between requests, or does not end the head of one, is closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Wait after an accept that failed, as for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Makes the socket's file and listens. One that is left of an agent before us is replaced; the caller knows that no other agent runs.
///
/// # Errors
/// The system's, and where the group does not exist.
pub fn listen(path: &Path, config: &SocketConfig) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let group = config.group.as_deref().map(gid).transpose()?;
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Nobody connects before group and mode are right: it does not listen yet.
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    nix::unistd::chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(config.mode.0))?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

fn gid(name: &str) -> io::Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name)?;
    found.map(|group| group.gid).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no group {name:?} on this node")))
}

/// Connections that are open, by unit.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_unit: BTreeMap<Option<String>, usize>,
}

/// One connection's place; it is free again when this is dropped.
#[derive(Debug)]
struct Held(Arc<Mutex<Open>>, Option<String>);

impl Held {
    fn take(open: &Arc<Mutex<Open>>, unit: Option<&String>) -> Option<Self> {
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= CONNECTIONS_MAX {
            return None;
        }
        let of_unit = counts.by_unit.entry(unit.cloned()).or_default();
        if *of_unit >= CONNECTIONS_OF_UNIT_MAX {
            return None;
        }
        *of_unit += 1;
        counts.all += 1;
        Some(Self(Arc::clone(open), unit.cloned()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        if let Some(of_unit) = counts.by_unit.get_mut(&self.1) {
            *of_unit -= 1;
            if *of_unit == 0 {
                counts.by_unit.remove(&self.1);
            }
        }
    }
}

/// Serves until it is dropped. Each request carries the [`Peer`] of its connection as an extension.
pub async fn serve(listener: UnixListener, router: Router, unit_of: UnitOf) {
    let open = Arc::new(Mutex::new(Open::default()));
    let router = TowerToHyperService::new(router);
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!("the local API cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let peer = match peer(&socket, &*unit_of) {
            Ok(peer) => peer,
            Err(error) => {
                debug!("a connection to the local API is closed: {error}");
                continue;
            }
        };
        match Held::take(&open, peer.unit.as_ref()) {
            Some(held) => {
                tokio::spawn(converse(socket, peer, router.clone(), held));
            }
            None => refuse(&socket, &peer),
        }
    }
}

/// Says that there are too many. One that does not read it now is not waited for.
fn refuse(socket: &UnixStream, peer: &Peer) {
    const BODY: &str = "{\"type\":\"too-many\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections to the local API are open; close some, or try again\"}";
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nconnection: close\r\n";
    let text = format!("{head}content-length: {}\r\n\r\n{BODY}", BODY.len());
    if socket.try_write(text.as_bytes()).is_err() {
        debug!(pid = peer.pid, "a connection beyond the limit is closed without a word");
    }
    warn!(pid = peer.pid, unit = peer.unit, "too many connections to the local API, one is refused");
}

async fn converse(socket: UnixStream, peer: Peer, router: TowerToHyperService<Router>, held: Held) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let ended = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = ended {
        // What does not speak HTTP was answered 400; who leaves early wants nothing more.
        debug!("a connection to the local API ended: {error}");
    }
    drop(held);
}
