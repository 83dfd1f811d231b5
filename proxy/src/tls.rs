//! Mutual TLS inside the mesh: TLS 1.3 only, a certificate on both sides, each checked against the
//! current roots and against a SPIFFE identity as a parsed value.
//!
//! Sessions are never resumed: rustls skips the verifier on resumption, and mesh connections are
//! pooled and long. Credentials are swapped live; connections that are open keep what they began with.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use gauze_model::{Code, SpiffeId};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, CommonState, Error};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::anchor_from_trusted_cert;

use crate::stream::{Mesh, Stream};

mod hello; // whose TLS it is
mod verify; // whom the other side is

pub use hello::{Hello, hello};
pub use verify::IdentityProblem;

use verify::{Expected, PeerVerifier, Roots, not_after};

/// What is spoken inside mesh TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alpn {
    Http2,
    Http1,
    /// Bytes that are not looked at.
    Tcp,
}

impl Alpn {
    pub const ALL: [Alpn; 3] = [Alpn::Http2, Alpn::Http1, Alpn::Tcp];

    /// The ALPN protocol id; a contract between proxies of all versions.
    pub fn id(self) -> &'static [u8] {
        match self {
            Alpn::Http2 => b"gauze/h2",
            Alpn::Http1 => b"gauze/http1",
            Alpn::Tcp => b"gauze/tcp",
        }
    }

    pub fn of(id: &[u8]) -> Option<Alpn> {
        Alpn::ALL.into_iter().find(|alpn| alpn.id() == id)
    }
}

/// What a proxy shows of itself, and whom it believes.
#[derive(Debug)]
pub struct Credentials {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// A chain must end in one of these.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the certificate chain is empty")]
    NoLeaf,
    #[error("the key does not belong to the certificate: {0}")]
    Key(Error),
    #[error("the certificate cannot be read: {0}")]
    Leaf(webpki::Error),
    #[error("root {index} of the set cannot be read: {problem}")]
    Root { index: usize, problem: webpki::Error },
    #[error("the set of roots is empty")]
    NoRoots,
    #[error(transparent)]
    Identity(#[from] IdentityProblem),
}

/// A handshake that failed; says whose side it was.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("this proxy has no certificate yet")]
    NoCredentials,
    #[error("a TLS stream cannot carry another handshake")]
    AlreadyTls,
    #[error("the connection failed in the TLS handshake: {0}")]
    Io(io::Error),
    #[error("the peer showed no certificate")]
    NoCertificate,
    #[error("the peer's certificate does not end in a root of this mesh")]
    UnknownRoot,
    #[error("the peer's certificate has expired")]
    Expired,
    #[error("the peer's certificate is not valid yet")]
    NotYetValid,
    /// With its particulars where they are known: on the side that dialled.
    #[error("the peer is not who it should be: {}", .0.as_ref().map_or_else(|| "its certificate names no workload of this trust domain".to_owned(), ToString::to_string))]
    Identity(Option<IdentityProblem>),
    #[error("the peer's certificate is refused: {0}")]
    Certificate(CertificateError),
    #[error("the peer offers none of our protocols (ALPN)")]
    NoProtocol,
    #[error("the peer refused the handshake: {0:?}")]
    RefusedByPeer(AlertDescription),
    #[error("the TLS handshake failed: {0}")]
    Protocol(Error),
}

/// The mesh TLS of one process: whom it is, whom it believes. Cheap to clone; all clones see new credentials.
#[derive(Clone)]
pub struct Tls {
    trust_domain: Arc<str>,
    live: Arc<ArcSwapOption<Live>>,
}

/// What handshakes that begin now use.
struct Live {
    server: Arc<ServerConfig>,
    certified: Arc<CertifiedKey>,
    roots: Roots,
    expiry: SystemTime,
}

impl Tls {
    /// Without credentials: every handshake fails until they are set.
    pub fn new(trust_domain: &str) -> Tls {
        Tls { trust_domain: trust_domain.into(), live: Arc::default() }
    }

    /// Swaps the credentials; open connections are untouched. `None` takes them away.
    ///
    /// # Errors
    /// They do not fit together or are not of this trust domain; the old ones stay.
    pub fn set(&self, credentials: Option<&Credentials>) -> Result<(), CredentialsError> {
        let live = credentials.map(|credentials| Live::new(credentials, &self.trust_domain)).transpose()?;
        self.live.store(live.map(Arc::new));
        Ok(())
    }

    /// When our own leaf expires.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.live.load().as_ref().map(|live| live.expiry)
    }

    /// The server's side of a mesh handshake; any workload of the trust domain may come. The caller keeps the time.
    ///
    /// # Errors
    /// See [`TlsError`]; the peer was told by an alert.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, TlsError> {
        let live = self.live.load_full().ok_or(TlsError::NoCredentials)?;
        let (plain, ends) = stream.into_plain().ok_or(TlsError::AlreadyTls)?;
        // Boxed: a connection should not hold the room for its handshake.
        let tls = Box::pin(TlsAcceptor::from(live.server.clone()).accept(plain)).await?;
        let mesh = live.mesh(tls.get_ref().1, &self.trust_domain)?;
        Ok(Stream::over_server(tls, mesh, ends))
    }

    /// The client's side: the peer must be `expect`. The caller keeps the time.
    ///
    /// In TLS 1.3 the client is done before the server has looked at our certificate: its refusal arrives
    /// with the first read, as an `io::Error` that [`TlsError::from`] explains.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn connect(&self, tcp: TcpStream, expect: &SpiffeId, alpn: Alpn) -> Result<Stream, TlsError> {
        let live = self.live.load_full().ok_or(TlsError::NoCredentials)?;
        let verifier = PeerVerifier::new(live.roots.clone(), Expected::Exactly(expect.clone()));
        let config = client_config(verifier.clone(), Some(live.certified.clone()), alpn.id());
        let (plain, ends) =
            Stream::plain(tcp).map_err(TlsError::Io)?.into_plain().ok_or(TlsError::AlreadyTls)?;
        let tls =
            TlsConnector::from(config).connect(unnamed(), plain).await.map_err(
                |error| match TlsError::from(error) {
                    TlsError::Identity(None) => TlsError::Identity(verifier.refused()),
                    other => other,
                },
            )?;
        let mesh = live.mesh(tls.get_ref().1, &self.trust_domain)?;
        Ok(Stream::over_client(tls, mesh, ends))
    }
}

/// Dials the control plane: it must chain to the roots and be exactly `expect`. `h2` is spoken inside.
/// Without credentials this is first contact, where a token proves who we are.
///
/// # Errors
/// The roots or the credentials cannot be used.
pub fn control_plane_client(
    roots: &[CertificateDer<'_>],
    expect: &SpiffeId,
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, CredentialsError> {
    let certified = credentials.map(|credentials| certified_key(credentials, &provider())).transpose()?;
    let verifier = PeerVerifier::new(trust_anchors(roots)?, Expected::Exactly(expect.clone()));
    Ok(client_config(verifier, certified, b"h2"))
}

/// The server name of a mesh handshake: identities are no DNS names, and an address is not sent as SNI.
pub fn unnamed() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into())
}

/// aws-lc-rs, the post-quantum hybrid first (the feature `prefer-post-quantum`; a test asserts it).
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}

impl Live {
    fn new(credentials: &Credentials, trust_domain: &str) -> Result<Live, CredentialsError> {
        let provider = provider();
        let certified = certified_key(credentials, &provider)?;
        let leaf = credentials.chain.first().ok_or(CredentialsError::NoLeaf)?;
        Expected::Anyone(trust_domain.into()).check(leaf)?;
        let roots = trust_anchors(&credentials.roots)?;
        let expiry = not_after(leaf).map_err(CredentialsError::Leaf)?;
        let verifier = PeerVerifier::new(roots.clone(), Expected::Anyone(trust_domain.into()));
        let server = server_config(verifier, certified.clone());
        Ok(Live { server, certified, roots, expiry })
    }

    /// What a finished handshake proved.
    fn mesh(&self, connection: &CommonState, trust_domain: &str) -> Result<Mesh, TlsError> {
        let alpn = connection.alpn_protocol().and_then(Alpn::of).ok_or(TlsError::NoProtocol)?;
        let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(TlsError::NoCertificate)?;
        let peer = Expected::Anyone(trust_domain.into())
            .check(leaf)
            .map_err(|problem| TlsError::Identity(Some(problem)))?;
        let theirs = not_after(leaf).map_err(|_| TlsError::Certificate(CertificateError::BadEncoding))?;
        Ok(Mesh { peer, alpn, leaf_expiry: self.expiry.min(theirs) })
    }
}

fn certified_key(
    credentials: &Credentials,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    if credentials.chain.is_empty() {
        return Err(CredentialsError::NoLeaf);
    }
    CertifiedKey::from_der(credentials.chain.clone(), credentials.key.clone_key(), provider)
        .map(Arc::new)
        .map_err(CredentialsError::Key)
}

fn trust_anchors(roots: &[CertificateDer<'_>]) -> Result<Roots, CredentialsError> {
    if roots.is_empty() {
        return Err(CredentialsError::NoRoots);
    }
    let read = |(index, root)| {
        anchor_from_trusted_cert(root)
            .map(|anchor| anchor.to_owned())
            .map_err(|problem| CredentialsError::Root { index, problem })
    };
    roots.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>().map(Arc::new)
}

#[allow(clippy::expect_used)]
fn server_config(verifier: Arc<PeerVerifier>, certified: Arc<CertifiedKey>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs has suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = Alpn::ALL.map(|alpn| alpn.id().to_vec()).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// One per handshake: the verifier is made for one identity. It is a few pointers beside key exchange and signature.
#[allow(clippy::expect_used)]
fn client_config(
    verifier: Arc<PeerVerifier>,
    certified: Option<Arc<CertifiedKey>>,
    alpn: &[u8],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certified {
        Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

impl TlsError {
    /// The code of a handshake that we began.
    pub fn upstream_code(&self) -> Code {
        match self {
            TlsError::NoCredentials => Code::NO_CERTIFICATE,
            TlsError::Identity(_) => Code::UPSTREAM_IDENTITY,
            _ => Code::UPSTREAM_TLS,
        }
    }

    /// The code of a handshake that a peer began.
    pub fn peer_code(&self) -> Code {
        match self {
            TlsError::NoCredentials => Code::NO_CERTIFICATE,
            TlsError::NoProtocol => Code::PEER_PROTOCOL_UNKNOWN,
            _ => Code::PEER_REFUSED,
        }
    }
}

impl From<io::Error> for TlsError {
    /// Finds the TLS error in an I/O error of a handshake, or of the first read after it.
    fn from(error: io::Error) -> TlsError {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return TlsError::Io(error);
        };
        match tls.clone() {
            Error::NoCertificatesPresented => TlsError::NoCertificate,
            Error::NoApplicationProtocol => TlsError::NoProtocol,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => TlsError::NoProtocol,
            Error::AlertReceived(alert) => TlsError::RefusedByPeer(alert),
            Error::InvalidCertificate(problem) => match problem {
                CertificateError::Expired => TlsError::Expired,
                CertificateError::NotValidYet => TlsError::NotYetValid,
                CertificateError::UnknownIssuer => TlsError::UnknownRoot,
                CertificateError::ApplicationVerificationFailure => TlsError::Identity(None),
                other => TlsError::Certificate(other),
            },
            other => TlsError::Protocol(other),
        }
    }
}

#[cfg(test)]
mod tests;
