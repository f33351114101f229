//! TLS of the API, and who a client's certificate says it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use cluster_schemas::access::Role;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at once; more clients wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// Connections whose handshake is done and that nobody serves yet.
const READY_MAX: usize = 16;
/// Pause after a connection could not be taken, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Longest name in a certificate, in bytes: it goes into the audit.
const NAME_MAX: usize = 64;

/// What TLS is made of: a chain and its key, and who signs clients' certificates if they may have any. All in PEM.
///
/// # Errors
/// What cannot be used, for the user.
pub fn server_config(chain: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match clients {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem).map_err(|error| format!("clientCaFile: {error}"))? {
                roots.add(certificate).map_err(|error| format!("clientCaFile: {error}"))?;
            }
            // Who has none may still have a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("clientCaFile: {error}"))?)
        }
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(chain).map_err(|error| format!("certFile: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("keyFile: {error}"))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| format!("certFile and keyFile: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no certificate in it (PEM)".to_owned()) } else { Ok(found) }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who its certificate says it is.
    pub(super) certified: Option<Certified>,
}

/// The subject of a certificate that an authority of ours signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certified {
    /// Its common name.
    pub(super) name: String,
    /// Its organization, where that is a role: as Kubernetes does it with groups.
    pub(super) role: Option<Role>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { address: *stream.remote_addr(), certified: None }
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, session) = stream.io().get_ref();
        // The handshake has verified it.
        let certified = session.peer_certificates().and_then(<[_]>::first).and_then(|certificate| subject(certificate));
        Self { address: *stream.remote_addr(), certified }
    }
}

fn subject(der: &[u8]) -> Option<Certified> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(ToOwned::to_owned);
    let name = certificate.subject().iter_common_name().next().and_then(text)?;
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    // Of several the largest, as with several tokens.
    let role = certificate.subject().iter_organization().filter_map(text).filter_map(|organization| role(&organization)).max();
    Some(Certified { name, role })
}

fn role(text: &str) -> Option<Role> {
    [Role::Viewer, Role::Deployer, Role::Admin].into_iter().find(|role| role.as_str() == text)
}

/// Hands out connections whose handshake is done: a client that is slow with its own holds up nobody.
#[derive(Debug)]
pub(super) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        Ok(Self { address, ready, accepting: tokio::spawn(accept(listener, TlsAcceptor::from(config), sender)) })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // Nobody takes it where the server ends.
                Ok(Ok(stream)) => drop(sender.send((stream, address)).await),
                // Everybody can cause these.
                Ok(Err(error)) => debug!(%address, %error, "no TLS connection"),
                Err(_) => debug!(%address, "a handshake took too long"),
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The task ends with this only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
