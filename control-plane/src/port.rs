//! The one TLS port: configuration for clients with a certificate of the mesh, certificates for those
//! with a token. Who is let in, and for how long, is [`door`]'s business.

pub mod door;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use gauze_xds::certificate::CREATE_CERTIFICATE;
use http::{StatusCode, header};
use http_body_util::Full;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic_prost::ProstCodec;
use tower::service_fn;
use tracing::warn;

use crate::ads::{Ads, DELTA};
use crate::authority::{Authority, Subject};
use crate::certificates::Certificates;
use crate::cluster::peers;
use crate::cluster::replicas::Replicas;
use crate::metrics::Metrics;
use door::{Connection, Peer};

/// HTTP/2 streams of one connection.
const STREAMS_MAX: u32 = 16;
/// Largest message of a configuration stream that is read, in bytes.
const MESSAGE_SIZE_MAX: usize = 4 * 1024 * 1024;
/// Largest request for a certificate, in bytes: the signing request has a limit of its own.
const CERTIFICATE_REQUEST_SIZE_MAX: usize = 64 * 1024;
/// Largest header list, in bytes: the token travels there.
const HEADERS_SIZE_MAX: u32 = 32 * 1024;
/// How often it is looked whether the port's own leaf must be renewed, at most.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// A peer that vanished without a word is noticed after the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is served on the port.
#[derive(Clone)]
pub struct Services {
    pub ads: Ads,
    pub certificates: Certificates,
    /// For other replicas; a directory has none.
    pub replicas: Option<AmongReplicas>,
}

/// What one replica tells another.
#[derive(Clone)]
pub struct AmongReplicas {
    /// Whether our objects are fresh.
    pub fresh: watch::Receiver<bool>,
    /// What proxies hold, and what the leader makes of it.
    pub all: Replicas,
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
            .http2_max_header_list_size(HEADERS_SIZE_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .serve_with_incoming_shutdown(service, incoming, shutdown)
            .await
    }

    async fn call(self, request: http::Request<Body>) -> http::Response<Body> {
        match request.uri().path() {
            DELTA => {
                let ads = service_fn(|request| self.ads.clone().serve(request));
                grpc(MESSAGE_SIZE_MAX).streaming(ads, request).await
            }
            CREATE_CERTIFICATE => {
                let create = service_fn(|request| self.certificates.clone().create(request));
                grpc(CERTIFICATE_REQUEST_SIZE_MAX).unary(create, request).await
            }
            peers::FRESH | peers::PROXIES | peers::OBJECTS => {
                let (question, _) = request.into_parts();
                self.answer_replica(&question).await.map(|body| Body::new(Full::new(body)))
            }
            path => tonic::Status::unimplemented(format!(
                "{path} is not served here; {DELTA} and {CREATE_CERTIFICATE} are"
            ))
            .into_http(),
        }
    }
}

impl Services {
    /// Only another replica is answered.
    async fn answer_replica(&self, question: &http::request::Parts) -> http::Response<Bytes> {
        let (path, asks) = (question.uri.path(), &question.extensions);
        let asks = asks.get::<Peer>().and_then(|peer| peer.identity.as_ref());
        let status = match &self.replicas {
            None => StatusCode::NOT_FOUND,
            Some(_) if asks != Some(&self.certificates.own) => StatusCode::FORBIDDEN,
            Some(among) if path != peers::FRESH => {
                return among.all.answer(path, question.headers.get(header::IF_NONE_MATCH)).await;
            }
            Some(among) if *among.fresh.borrow() => StatusCode::OK,
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut answer = http::Response::new(Bytes::new());
        *answer.status_mut() = status;
        answer
    }
}

fn grpc<Answer, Question>(request_size_max: usize) -> Grpc<ProstCodec<Answer, Question>>
where
    Answer: prost::Message + 'static,
    Question: prost::Message + Default + 'static,
{
    Grpc::new(ProstCodec::default()).apply_max_message_size_config(Some(request_size_max), None)
}

/// A leaf of this process, for a port that it serves, renewed at half of its life.
pub struct OwnCertificate {
    authority: Arc<Authority>,
    subject: Subject,
    metrics: Arc<Metrics>,
    current: ArcSwap<CertifiedKey>,
}

impl OwnCertificate {
    /// Signs the first leaf.
    ///
    /// # Errors
    /// The authority cannot sign.
    pub fn issue(
        authority: Arc<Authority>,
        subject: Subject,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Arc<OwnCertificate>> {
        let current = ArcSwap::from_pointee(certified(&authority, &subject, &metrics)?);
        Ok(Arc::new(OwnCertificate { authority, subject, metrics, current }))
    }

    /// The leaf and key of this moment: for clients of this process.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }

    /// Renews the leaf for ever; open connections do not notice. The wall clock counts, which goes on
    /// while a laptop sleeps.
    pub async fn keep(self: Arc<OwnCertificate>) {
        let life = self.authority.life();
        let mut signed = SystemTime::now();
        loop {
            sleep(RENEWAL_CHECK.min(life / 10)).await;
            let now = SystemTime::now();
            if (signed..signed + life / 2).contains(&now) {
                continue;
            }
            match certified(&self.authority, &self.subject, &self.metrics) {
                Ok(certified) => {
                    self.current.store(Arc::new(certified));
                    signed = now;
                }
                Err(error) => warn!(%error, "cannot renew the control plane's own certificate"),
            }
        }
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCertificate").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn certified(authority: &Authority, subject: &Subject, metrics: &Metrics) -> anyhow::Result<CertifiedKey> {
    let credentials = authority.credentials(subject, SystemTime::now())?;
    if let Subject::Workload(_) = subject {
        let expires = credentials.expires.duration_since(SystemTime::UNIX_EPOCH)?;
        metrics.certificate_expiry.set(expires.as_secs_f64());
    }
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
