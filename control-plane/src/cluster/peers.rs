//! The questions of one replica to another. Asked over the TLS port, and answered only where both sides are exactly
//! the control plane's own identity.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use gauze_model::SpiffeId;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::port::OwnCertificate;
use crate::port::door::identity_of;
use crate::translate;
use crate::world::World;

/// Are your objects fresh?
pub(crate) const FRESH: &str = "/gauze/fresh";
/// What do the proxies hold that have a stream to you?
pub(crate) const PROXIES: &str = "/gauze/proxies";
/// All objects with their conditions; only the leader answers.
pub(crate) const OBJECTS: &str = "/gauze/objects";
/// How long a peer may take, from the first packet to its answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Size of an answer, in bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Asks other replicas.
#[derive(Clone)]
pub(crate) struct Peers {
    tls: TlsConnector,
    own: SpiffeId,
    namespace: String,
    pod: String,
    /// All replicas listen at the same port.
    port: u16,
}

/// Another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pod: String,
    address: IpAddr,
}

#[cfg(test)]
impl Peer {
    pub(crate) fn for_tests(pod: &str) -> Peer {
        Peer { pod: pod.to_owned(), address: IpAddr::from([127, 0, 0, 1]) }
    }
}

impl Peers {
    /// # Errors
    /// The root is not usable.
    pub(crate) fn new(
        root: &CertificateDer<'static>,
        certificate: Arc<OwnCertificate>,
        own: SpiffeId,
        (namespace, pod): (&str, &str),
        port: u16,
    ) -> anyhow::Result<Peers> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        let us = ExactlyUs { roots, own: own.clone(), provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(us))
            .with_client_cert_resolver(Arc::new(Shown(certificate)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Peers {
            tls: TlsConnector::from(Arc::new(config)),
            own,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            port,
        })
    }

    /// Each other replica that the world knows, at its first address.
    pub(crate) fn all(&self, world: &World) -> Vec<Peer> {
        let others = world.pods().filter(|pod| {
            let metadata = &pod.metadata;
            metadata.namespace.as_deref() == Some(&self.namespace)
                && metadata.name.as_deref() != Some(&self.pod)
                && translate::identity(world, pod) == self.own
                && !translate::has_ended(pod)
        });
        let peer = |pod: &Arc<Pod>| {
            let address = translate::addresses(pod).first().copied()?;
            Some(Peer { pod: pod.metadata.name.clone()?, address })
        };
        others.filter_map(peer).collect()
    }

    /// Whether any other replica says that its objects are fresh.
    pub(crate) async fn is_one_fresh(&self, world: &World) -> bool {
        let peers = self.all(world);
        let asked = peers.iter().map(|peer| self.ask(peer, FRESH, None));
        join_all(asked).await.iter().flatten().any(|answer| answer.status() == StatusCode::OK)
    }

    /// What the first replica says that answers with 200.
    pub(crate) async fn any(&self, world: &World, path: &str) -> Option<Bytes> {
        let peers = self.all(world);
        let asked = peers.iter().map(|peer| self.ask(peer, path, None));
        let mut answers = join_all(asked).await.into_iter().flatten();
        answers.find(|answer| answer.status() == StatusCode::OK).map(Response::into_body)
    }

    /// The answer of one replica; `None` if there is none in time. `known` is the tag of the last answer, which need
    /// not come again.
    pub(crate) async fn ask(
        &self,
        peer: &Peer,
        path: &str,
        known: Option<&HeaderValue>,
    ) -> Option<Response<Bytes>> {
        match timeout(TIMEOUT, self.exchange(SocketAddr::new(peer.address, self.port), path, known)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(pod = peer.pod, path, "a replica cannot be asked: {error:#}");
                None
            }
            Err(_) => None,
        }
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        path: &str,
        known: Option<&HeaderValue>,
    ) -> anyhow::Result<Response<Bytes>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TokioIo::new(self.tls.connect(name, stream).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        // Ends with this question, however that ends.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let mut request = Request::get(format!("https://gauze-control-plane{path}"))
            .version(Version::HTTP_2)
            .body(Empty::<Bytes>::new())?;
        if let Some(known) = known {
            request.headers_mut().insert(header::IF_NONE_MATCH, known.clone());
        }
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// Our own leaf, as a client shows it.
#[derive(Debug)]
struct Shown(Arc<OwnCertificate>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Accepts a server whose leaf chains to our roots and names exactly our own identity.
#[derive(Debug)]
struct ExactlyUs {
    roots: RootCertStore,
    own: SpiffeId,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactlyUs {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match identity_of(leaf, &self.own.trust_domain) {
            Some(id) if id == self.own => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
