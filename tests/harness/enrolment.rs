//! A client of the control plane's TLS port that speaks its gRPC by hand, so that it can say what no proxy would, and
//! an eye for what stands in the certificates that come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client::grpc_message;

pub(crate) const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
pub(crate) const ADS: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const DEADLINE: Duration = Duration::from_secs(20);

/// The port of one replica, and the roots that it must chain to.
#[derive(Clone)]
pub(crate) struct TlsPort {
    pub address: SocketAddr,
    pub roots: String,
}

/// How a call ended: gRPC's status and message, and what came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub status: u32,
    pub message: String,
    /// PEM, leaf first.
    pub chain: Vec<String>,
}

/// gRPC's numbers.
pub(crate) mod status {
    pub(crate) const OK: u32 = 0;
    pub(crate) const INVALID_ARGUMENT: u32 = 3;
    pub(crate) const PERMISSION_DENIED: u32 = 7;
    pub(crate) const UNIMPLEMENTED: u32 = 12;
    pub(crate) const UNAVAILABLE: u32 = 14;
    pub(crate) const UNAUTHENTICATED: u32 = 16;
}

impl TlsPort {
    /// Asks for a certificate, once. `validity` in seconds.
    pub(crate) async fn create(&self, headers: HeaderMap, csr: &[u8], validity: i64) -> Outcome {
        self.call(None, CREATE, headers, &certificate_request(csr, validity)).await.expect("the port answers")
    }

    /// One message to a method; the answer's messages are read as a CertificateResponse.
    pub(crate) async fn call(
        &self,
        credentials: Option<(&[String], &rcgen::KeyPair)>,
        path: &str,
        headers: HeaderMap,
        message: &[u8],
    ) -> anyhow::Result<Outcome> {
        let stream = self.connect(credentials).await?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::post(format!("https://gauze-control-plane{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(grpc_message(message)))?;
        request.headers_mut().extend(headers);
        let answer = timeout(DEADLINE, sender.send_request(request)).await.context("no answer")??;
        let head = answer.headers().clone();
        let body = timeout(DEADLINE, answer.into_body().collect()).await.context("no end")??;
        let trailers = body.trailers().cloned().unwrap_or(head);
        Ok(outcome(&trailers, &body.to_bytes()))
    }

    /// A connection, with or without a certificate.
    pub(crate) async fn connect(
        &self,
        credentials: Option<(&[String], &rcgen::KeyPair)>,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let config = client_config(&self.roots, credentials, rustls::DEFAULT_VERSIONS);
        let stream = timeout(DEADLINE, TcpStream::connect(self.address)).await??;
        let name = ServerName::try_from("gauze-control-plane").expect("a name");
        Ok(timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await??)
    }

    /// The SPIFFE id, or other names, with which the port shows itself.
    pub(crate) async fn names(&self) -> anyhow::Result<Vec<String>> {
        let stream = self.connect(None).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        Ok(names(&X509Certificate::from_der(leaf.context("it has none")?)?.1))
    }
}

/// `authorization: Bearer TOKEN`.
pub(crate) fn bearer(token: &str) -> HeaderMap {
    header("authorization", &format!("Bearer {token}"))
}

pub(crate) fn header(name: &'static str, value: &str) -> HeaderMap {
    let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("no line breaks");
    HeaderMap::from_iter([(http::HeaderName::from_static(name), value)])
}

/// Istio's message: the request in field 1, the life in field 3.
fn certificate_request(csr: &[u8], validity: i64) -> Vec<u8> {
    let mut message = vec![0x0a];
    message.extend(varint(csr.len() as u64));
    message.extend(csr);
    message.push(0x18);
    message.extend(varint(validity.cast_unsigned()));
    message
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn outcome(trailers: &HeaderMap, body: &Bytes) -> Outcome {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    Outcome {
        status: text("grpc-status").parse().unwrap_or(u32::MAX),
        message: decoded(text("grpc-message")),
        chain: strings(body.get(5..).unwrap_or_default()),
    }
}

/// gRPC writes its message with percent signs.
fn decoded(message: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = message.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The values of field 1 of a message that has no other.
fn strings(mut message: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let [0x0a, rest @ ..] = message {
        let (mut length, mut at) = (0, 0);
        while let Some(byte) = rest.get(at) {
            length |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some(text) = rest.get(at..at + length) else { break };
        found.push(String::from_utf8_lossy(text).into_owned());
        message = &rest[at + length..];
    }
    found
}

/// All that stands in a leaf and could be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub names: Vec<String>,
    pub subject: String,
    pub authority: bool,
    pub key_usage: String,
    pub purposes: String,
    /// Of its kind, and the caller's.
    pub key: String,
    /// Extensions, by their object identifiers.
    pub extensions: Vec<String>,
    /// Whether the root's key signed it.
    pub chains: bool,
    pub backdated: Duration,
    /// From now on, in whole seconds.
    pub life: Duration,
    pub serial_bits: usize,
}

impl Leaf {
    pub(crate) fn read(pem: &str, root: &str, key: &rcgen::KeyPair, now: SystemTime) -> Leaf {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (rest, leaf) = X509Certificate::from_der(&der).expect("X.509");
        assert!(rest.is_empty());
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM");
        let now = now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let seconds = |time: i64| u64::try_from(time).expect("after 1970");
        let usage = leaf.key_usage().expect("at most one").map(|usage| usage.value.to_string());
        let own = leaf.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(key);
        Leaf {
            names: names(&leaf),
            subject: leaf.subject().to_string(),
            authority: leaf.basic_constraints().expect("at most one").is_none_or(|basic| basic.value.ca),
            key_usage: usage.unwrap_or_default(),
            purposes: purposes(&leaf),
            key: if own { "the caller's".to_owned() } else { "another".to_owned() },
            extensions: leaf.extensions().iter().map(|extension| extension.oid.to_id_string()).collect(),
            chains: chains(&der, &root, now),
            backdated: Duration::from_secs(now - seconds(leaf.validity().not_before.timestamp())),
            life: Duration::from_secs(seconds(leaf.validity().not_after.timestamp()).saturating_sub(now)),
            serial_bits: leaf.raw_serial().len() * 8,
        }
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().expect("at most one");
    let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => format!("{other:?}"),
    };
    names.iter().map(name).collect()
}

fn purposes(leaf: &X509Certificate<'_>) -> String {
    let Some(usage) = leaf.extended_key_usage().expect("at most one") else { return "any".to_owned() };
    let usage = usage.value;
    let others = usage.any || usage.code_signing || usage.email_protection || usage.time_stamping;
    let others = others || usage.ocsp_signing || !usage.other.is_empty();
    format!("client {}, server {}, others {others}", usage.client_auth, usage.server_auth)
}

fn chains(leaf: &CertificateDer<'_>, root: &CertificateDer<'static>, now: u64) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let leaf = ParsedCertificate::try_from(leaf).expect("X.509");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, algorithms).is_ok()
}

/// A client that shows these credentials to whoever chains to the roots.
pub(crate) fn client_config(
    roots: &str,
    credentials: Option<(&[String], &rcgen::KeyPair)>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.expect("PEM")).expect("a root");
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("the provider has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Chains { roots: store, provider }));
    let mut config = match credentials {
        Some((chain, key)) => {
            let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"));
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            config.with_client_auth_cert(chain.collect(), key).expect("they fit")
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The server must chain to the roots; whoever it is.
#[derive(Debug)]
struct Chains {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Chains {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
