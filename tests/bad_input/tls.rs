//! Who comes to the inbound port with TLS that is none, or with a certificate that is not a workload's of this mesh.
//! The tests hold the root's key, so that all that is wrong with a certificate is what its row says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::stage::{Port, Stage, say};
use crate::harness::client::{Protocol, call};
use crate::harness::enrolment::client_config;

const DEADLINE: Duration = Duration::from_secs(20);
static NEW: &[&SupportedProtocolVersion] = &[&TLS13];
static OLD: &[&SupportedProtocolVersion] = &[&TLS12];
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The root of a mesh in a directory, with its key.
pub(super) struct Root {
    pub pem: String,
    key: KeyPair,
}

impl Root {
    pub(super) fn of(stage: &Stage) -> Root {
        let state = stage.mesh.directory().join(".gauze");
        let read = |name: &str| std::fs::read_to_string(state.join(name)).expect("the root is there");
        Root { pem: read("trust.pem"), key: KeyPair::from_pem(&read("root.key")).expect("a key") }
    }

    /// A leaf, in PEM.
    pub(super) fn signs(&self, params: &CertificateParams, key: &KeyPair) -> String {
        let issuer = Issuer::from_ca_cert_pem(&self.pem, &self.key).expect("a root");
        params.signed_by(key, &issuer).expect("well-formed").pem()
    }
}

/// What a workload's leaf says, with these URIs for names.
pub(super) fn leaf(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
    params.subject_alt_names = uris.iter().map(uri).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    params
}

fn with(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = leaf(uris);
    change(&mut params);
    params
}

struct Row {
    what: &'static str,
    /// `None`: no certificate is shown.
    certificate: Option<CertificateParams>,
    /// Whether the mesh's root signs it, or it itself.
    by_the_root: bool,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'static str,
    /// `None`: it is let in.
    code: Option<&'static str>,
}

fn rows() -> Vec<Row> {
    let row = |what, certificate| Row {
        what,
        certificate: Some(certificate),
        by_the_root: true,
        versions: NEW,
        alpn: "gauze/http1",
        code: Some("M4002"),
    };
    let ago = |seconds: u64| (std::time::SystemTime::now() - Duration::from_secs(seconds)).into();
    let in_a_while = |seconds: u64| (std::time::SystemTime::now() + Duration::from_secs(seconds)).into();
    vec![
        Row { code: None, ..row("a leaf as it should be", leaf(&[WEB])) },
        row(
            "a certificate that has expired",
            with(&[WEB], |leaf| (leaf.not_before, leaf.not_after) = (ago(7200), ago(60))),
        ),
        row("a certificate that is not valid yet", with(&[WEB], |leaf| leaf.not_before = in_a_while(600))),
        row("another trust domain", leaf(&["spiffe://elsewhere/ns/shop/sa/web"])),
        row(
            "a trust domain that only begins like ours",
            leaf(&["spiffe://cluster.local.elsewhere/ns/shop/sa/web"]),
        ),
        row("a trust domain that ends like ours", leaf(&["spiffe://x.cluster.local/ns/shop/sa/web"])),
        row("a trust domain in upper case", leaf(&["spiffe://CLUSTER.LOCAL/ns/shop/sa/web"])),
        row("a trust domain with a port", leaf(&["spiffe://cluster.local:443/ns/shop/sa/web"])),
        row("no name", with(&[], |_| ())),
        row(
            "a DNS name only",
            with(&[], |leaf| {
                leaf.subject_alt_names = vec![SanType::DnsName("cart".try_into().expect("ASCII"))]
            }),
        ),
        row("two names", leaf(&[WEB, "spiffe://cluster.local/ns/shop/sa/cart"])),
        row("the same name twice", leaf(&[WEB, WEB])),
        row("a name that is no SPIFFE id", leaf(&["https://cluster.local/ns/shop/sa/web"])),
        row("a path of another form", leaf(&["spiffe://cluster.local/shop/web"])),
        row("more behind the ServiceAccount", leaf(&["spiffe://cluster.local/ns/shop/sa/web/admin"])),
        row("dots in the path", leaf(&["spiffe://cluster.local/ns/shop/sa/../sa/web"])),
        row("a query", leaf(&["spiffe://cluster.local/ns/shop/sa/web?admin"])),
        row("a percent sign", leaf(&["spiffe://cluster.local/ns/shop/sa/we%62"])),
        row(
            "a leaf for servers only",
            with(&[WEB], |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        row(
            "a leaf for mail",
            with(&[WEB], |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]),
        ),
        row(
            "an authority for a leaf",
            with(&[WEB], |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        Row { by_the_root: false, ..row("a certificate that signed itself", leaf(&[WEB])) },
        Row { certificate: None, ..row("no certificate", leaf(&[])) },
        Row { versions: OLD, ..row("TLS 1.2", leaf(&[WEB])) },
        Row { alpn: "gauze/http9", code: Some("M3101"), ..row("a protocol that nobody knows", leaf(&[WEB])) },
    ]
}

/// Whether the peer is let in: a request is answered on the connection.
async fn is_let_in(address: SocketAddr, row: &Row, root: &Root) -> bool {
    let key = KeyPair::generate().expect("a key");
    let chain = row.certificate.as_ref().map(|params| match row.by_the_root {
        true => root.signs(params, &key),
        false => params.self_signed(&key).expect("well-formed").pem(),
    });
    let chain: Vec<String> = chain.into_iter().collect();
    let credentials = (!chain.is_empty()).then_some((&chain[..], &key));
    let mut config = client_config(&root.pem, credentials, row.versions);
    config.alpn_protocols = vec![row.alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("peer").expect("a name");
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let Ok(mut stream) = timeout(DEADLINE, connecting).await.expect("in time") else { return false };
    // In TLS 1.3 the server's refusal comes behind the client's handshake.
    if stream.write_all(b"GET /row HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n").await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("in time");
    answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn a_peer_without_a_sound_certificate_of_this_mesh_is_refused_by_code_and_disturbs_nobody() {
    let stage = Stage::start("http").await;
    let root = Root::of(&stage);
    for row in rows() {
        let before = stage.refusals(Port::Inbound, row.code.unwrap_or("none")).await;
        let let_in = is_let_in(stage.address(Port::Inbound), &row, &root).await;
        assert_eq!(let_in, row.code.is_none(), "{}", row.what);
        assert_eq!(stage.server.take_seen().len(), usize::from(let_in), "{}", row.what);
        if let Some(code) = row.code {
            stage.tells(row.what, Port::Inbound, code, before).await;
        }
    }
    stage.check().await;
}

/// What begins like TLS and is none.
#[tokio::test]
async fn garbage_that_begins_like_tls_is_closed_on_both_ports_and_disturbs_nobody() {
    let stage = Stage::start("http").await;
    let hello = |length: u16, body: &[u8]| [&[22, 3, 1][..], &length.to_be_bytes(), body].concat();
    for (what, bytes) in [
        ("a record header and nothing more", hello(512, b"\x01")),
        ("a ClientHello of zeros", hello(512, &[&[1, 0, 1, 252][..], &[0; 508]].concat())),
        ("a ClientHello of ones", hello(512, &[&[1, 0, 1, 252][..], &[255; 508]].concat())),
        (
            "a ClientHello that promises 16 MiB",
            hello(16_384, &[&[1, 255, 255, 255][..], &[7; 16_380]].concat()),
        ),
        ("records without end that promise one ClientHello", hello(1, b"\x01").repeat(10_000)),
        ("a record of length 0", hello(0, b"")),
        ("a record that is too long", hello(16_385, &[1; 16_385])),
        ("an alert", vec![21, 3, 3, 0, 2, 2, 40]),
        ("application data", [&[23, 3, 3, 0, 100][..], &[9; 100]].concat()),
        ("SSL 2.0", [&[0x80, 0x2e, 1, 0, 2][..], &[0; 41]].concat()),
        ("noise", (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect()),
    ] {
        for port in [Port::Outbound, Port::Inbound] {
            let answer = say(stage.address(port), &bytes).await;
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(!text.contains("200 OK"), "{what} ({port:?}): {text}");
            assert_eq!(stage.server.take_seen(), [], "{what} ({port:?})");
        }
    }
    let well =
        call(Protocol::Http1, stage.address(Port::Outbound), "cart", "/after", "a").await.expect("an answer");
    assert_eq!(well.status, 200);
    stage.server.take_seen();
    stage.check().await;
}
