//! The one TLS port: configuration for clients with a certificate of the mesh, certificates for those
//! with a token. Handshakes run side by side, bounded in number and time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use gauze_model::SpiffeId;
use gauze_xds::certificate::CREATE_CERTIFICATE;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_prost::ProstCodec;
use tower::service_fn;
use tracing::{debug, warn};

use crate::ads::{Ads, DELTA};
use crate::authority::Authority;
use crate::certificates::Certificates;
use crate::metrics::Metrics;

/// TLS handshakes going on at once; further connections wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Open connections: a proxy has one, and a second one for an instant when it renews its certificate.
const CONNECTIONS_MAX: usize = 16_384;
/// HTTP/2 streams of one connection.
const STREAMS_MAX: u32 = 16;
/// Largest message that is read, in bytes.
const MESSAGE_SIZE_MAX: usize = 4 * 1024 * 1024;
/// A peer that vanished without a word is noticed after the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the TLS connection tells of the client.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// From its certificate, if it showed one.
    pub identity: Option<SpiffeId>,
}

/// What is served on the port.
#[derive(Clone)]
pub struct Services {
    pub ads: Ads,
    pub certificates: Certificates,
}

impl Services {
    /// Serves until `shutdown`; then waits for streams to end.
    ///
    /// # Errors
    /// The server failed.
    pub async fn serve(
        self,
        connections: ReceiverStream<Connection>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let incoming = tokio_stream::StreamExt::map(connections, Ok::<_, Infallible>);
        let service = service_fn(move |request| {
            let services = self.clone();
            async move { Ok::<_, Infallible>(services.call(request).await) }
        });
        Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .serve_with_incoming_shutdown(service, incoming, shutdown)
            .await
    }

    async fn call(self, request: http::Request<Body>) -> http::Response<Body> {
        match request.uri().path() {
            DELTA => {
                let mut grpc = Grpc::new(ProstCodec::default())
                    .apply_max_message_size_config(Some(MESSAGE_SIZE_MAX), None);
                grpc.streaming(service_fn(|request| self.ads.clone().serve(request)), request).await
            }
            CREATE_CERTIFICATE => {
                let mut grpc = Grpc::new(ProstCodec::default())
                    .apply_max_message_size_config(Some(MESSAGE_SIZE_MAX), None);
                grpc.unary(service_fn(|request| self.certificates.clone().create(request)), request).await
            }
            path => tonic::Status::unimplemented(format!(
                "{path} is not served here; {DELTA} and {CREATE_CERTIFICATE} are"
            ))
            .into_http(),
        }
    }
}

/// The port's own leaf, renewed at half of its life.
#[derive(Debug)]
pub struct OwnCertificate(ArcSwap<CertifiedKey>);

impl OwnCertificate {
    /// Signs the first leaf.
    ///
    /// # Errors
    /// The authority cannot sign.
    pub fn issue(
        authority: &Authority,
        id: &SpiffeId,
        metrics: &Metrics,
    ) -> anyhow::Result<Arc<OwnCertificate>> {
        Ok(Arc::new(OwnCertificate(ArcSwap::from_pointee(certified(authority, id, metrics)?))))
    }

    /// Renews the leaf for ever; open connections do not notice.
    pub async fn keep(
        self: Arc<OwnCertificate>,
        authority: Arc<Authority>,
        id: SpiffeId,
        metrics: Arc<Metrics>,
    ) {
        loop {
            sleep(authority.life() / 2).await;
            match certified(&authority, &id, &metrics) {
                Ok(certified) => self.0.store(Arc::new(certified)),
                Err(error) => warn!(%error, "cannot renew the control plane's own certificate"),
            }
        }
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(authority: &Authority, id: &SpiffeId, metrics: &Metrics) -> anyhow::Result<CertifiedKey> {
    let now = SystemTime::now();
    let credentials = authority.credentials(id, now)?;
    let expiry = now.duration_since(SystemTime::UNIX_EPOCH)? + authority.life();
    metrics.own_certificate_expiry.set(expiry.as_secs_f64());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(CertifiedKey::from_der(credentials.chain, credentials.key, &provider)?)
}

/// TLS as this port speaks it: 1.3 only; the client's certificate is optional, and if there is one it must be of the mesh.
///
/// # Errors
/// The root is not usable.
pub fn tls(root: &CertificateDer<'static>, own: Arc<OwnCertificate>) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection proves who it is anew.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Accepts connections, shakes hands with many at once, and yields those that succeed.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    trust_domain: String,
    metrics: Arc<Metrics>,
) -> ReceiverStream<Connection> {
    let (sender, connections) = mpsc::channel(1);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let door = Door { acceptor, trust_domain, metrics };
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    tokio::spawn(door.clone().enter(stream, address, permit, handshake, sender.clone()));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    trust_domain: String,
    metrics: Arc<Metrics>,
}

impl Door {
    async fn enter(
        self,
        stream: TcpStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
        handshake: OwnedSemaphorePermit,
        sender: mpsc::Sender<Connection>,
    ) {
        let _ = stream.set_nodelay(true);
        self.metrics.handshakes_in_progress.inc();
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await;
        self.metrics.handshakes_in_progress.dec();
        drop(handshake);
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.failed(address, "tls", &error.to_string()),
            Err(_) => return self.failed(address, "time", "no handshake in time"),
        };
        let identity = identity(&stream, &self.trust_domain);
        let peer = Peer { address, identity };
        let _ = sender.send(Connection { stream, peer, _permit: permit }).await;
    }

    fn failed(&self, address: SocketAddr, reason: &str, error: &str) {
        self.metrics.handshakes_failed.with_label_values(&[reason]).inc();
        debug!(%address, error, "a TLS handshake failed");
    }
}

/// The client's identity: its leaf, which was verified, must name exactly one, and of our trust domain.
fn identity(stream: &TlsStream<TcpStream>, trust_domain: &str) -> Option<SpiffeId> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
    let mut names = leaf.valid_uri_names();
    let (Some(name), None) = (names.next(), names.next()) else { return None };
    let id: SpiffeId = name.parse().ok()?;
    (id.trust_domain == trust_domain).then_some(id)
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
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
