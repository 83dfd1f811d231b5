//! The question of one replica to another: are your objects fresh? Asked over the TLS port, and answered
//! only where both sides are exactly the control plane's own identity.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use gauze_model::SpiffeId;
use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
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
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::port::OwnCertificate;
use crate::port::door::identity_of;
use crate::translate;
use crate::world::World;

/// What is asked.
pub(crate) const PATH: &str = "/gauze/fresh";
/// How long a peer may take, from the first packet to its answer.
const TIMEOUT: Duration = Duration::from_secs(1);

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

    /// The first address of each other replica that the world knows.
    fn addresses(&self, world: &World) -> Vec<IpAddr> {
        let others = world.pods().filter(|pod| {
            let metadata = &pod.metadata;
            metadata.namespace.as_deref() == Some(&self.namespace)
                && metadata.name.as_deref() != Some(&self.pod)
                && translate::identity(world, pod) == self.own
        });
        others.filter_map(|pod| translate::addresses(pod).first().copied()).collect()
    }

    /// Whether any other replica says that its objects are fresh.
    pub(crate) async fn is_one_fresh(&self, world: &World) -> bool {
        let asked = self.addresses(world).into_iter().map(|address| async move {
            let address = SocketAddr::new(address, self.port);
            match timeout(TIMEOUT, self.ask(address)).await {
                Ok(Ok(fresh)) => fresh,
                Ok(Err(error)) => {
                    tracing::debug!(%address, "a replica cannot be asked: {error:#}");
                    false
                }
                Err(_) => false,
            }
        });
        join_all(asked).await.contains(&true)
    }

    async fn ask(&self, address: SocketAddr) -> anyhow::Result<bool> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TokioIo::new(self.tls.connect(name, stream).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("https://gauze-control-plane{PATH}"))
            .version(Version::HTTP_2)
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await;
        connection.abort();
        Ok(answer?.status() == StatusCode::OK)
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
