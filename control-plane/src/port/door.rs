//! Who gets in: TLS handshakes side by side, bounded in number and time; then connections, those of the mesh
//! counted apart from strangers, who come for a certificate and have to leave soon.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use gauze_model::SpiffeId;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::metrics::Metrics;

/// Handshakes going on at once; further connections wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections with a certificate of the mesh: one for each proxy.
const MEMBERS_MAX: usize = 16_384;
/// Connections without: a proxy has one while it gets its certificate.
const STRANGERS_MAX: usize = 1_024;
/// How long a connection without a certificate may stay.
const STRANGER_LIFE: Duration = Duration::from_secs(30);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the TLS connection tells of the client.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// From its certificate, if it showed one.
    pub identity: Option<SpiffeId>,
    /// When that certificate ends.
    pub expires: Option<SystemTime>,
}

/// Accepts connections until the returned stream is dropped, and yields those that were let in.
pub fn open(
    listener: TcpListener,
    config: ServerConfig,
    trust_domain: String,
    metrics: Arc<Metrics>,
) -> ReceiverStream<Connection> {
    let (inside, connections) = mpsc::channel(1);
    let door = Door {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        trust_domain,
        metrics,
        members: Arc::new(Semaphore::new(MEMBERS_MAX)),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        inside,
    };
    tokio::spawn(door.accept(listener));
    ReceiverStream::new(connections)
}

#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    trust_domain: String,
    metrics: Arc<Metrics>,
    members: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    inside: mpsc::Sender<Connection>,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.inside.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => drop(tokio::spawn(self.clone().enter(stream, address, handshake))),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn enter(self, stream: TcpStream, address: SocketAddr, handshake: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        self.metrics.handshakes_in_progress.inc();
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await;
        self.metrics.handshakes_in_progress.dec();
        drop(handshake);
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.refuse(address, "tls", &error.to_string()),
            Err(_) => return self.refuse(address, "time", "no handshake in time"),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = leaf.and_then(|leaf| identity_of(leaf, &self.trust_domain));
        let peer = Peer { address, identity, expires: leaf.and_then(expires) };
        let (places, leaves) = match peer.identity {
            Some(_) => (&self.members, None),
            None => (&self.strangers, Some(Box::pin(sleep(STRANGER_LIFE)))),
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return self.refuse(address, "full", "too many connections");
        };
        let _ = self.inside.send(Connection { stream, peer, leaves, _place: place }).await;
    }

    fn refuse(&self, address: SocketAddr, reason: &str, error: &str) {
        self.metrics.handshakes_failed.with_label_values(&[reason]).inc();
        debug!(%address, error, "a connection was not let in");
    }
}

/// The identity of a verified leaf, which must name exactly one, and of our trust domain.
pub(crate) fn identity_of(leaf: &CertificateDer<'_>, trust_domain: &str) -> Option<SpiffeId> {
    let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
    let mut names = leaf.valid_uri_names();
    let (Some(name), None) = (names.next(), names.next()) else { return None };
    let id: SpiffeId = name.parse().ok()?;
    (id.trust_domain == trust_domain).then_some(id)
}

/// When a verified leaf ends.
fn expires(leaf: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When a stranger has to leave.
    leaves: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(leaves) = &mut self.leaves
            && leaves.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
