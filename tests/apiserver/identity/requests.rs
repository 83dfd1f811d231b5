//! What a signing request can bring about: a certificate for its own public key, or none. Whatever else it asks for,
//! the certificate is the one that the token's pod gets.

use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use super::{Desk, request};
use crate::harness::apiserver::ApiServer;
use crate::harness::enrolment::{Leaf, bearer, status};

const DAY: u64 = 24 * 3600;

#[tokio::test]
async fn whatever_a_request_asks_for_the_certificate_is_the_callers() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let token = bearer(&desk.good_token("web-0", "web").await);
    for (what, csr, validity, life) in granted(&desk) {
        let now = SystemTime::now();
        let outcome = desk.port.create(token.clone(), csr.as_bytes(), validity).await;
        let [leaf] = outcome.chain.as_slice() else { panic!("{what}: {outcome:?}") };
        let mut leaf = Leaf::read(leaf, &desk.port.roots, &desk.key, now);
        let slack = Duration::from_secs(10);
        let expected = Duration::from_secs(life);
        assert!(leaf.life <= expected + slack && leaf.life + slack >= expected, "{what}: {:?}", leaf.life);
        assert!((50..=60).contains(&leaf.backdated.as_secs()), "{what}: {:?}", leaf.backdated);
        assert!(leaf.serial_bits >= 64, "{what}: a serial number of {} bits", leaf.serial_bits);
        (leaf.life, leaf.backdated, leaf.serial_bits) = Default::default();
        assert_eq!(leaf, callers(desk.identity("web")), "{what}");
    }
}

/// The certificate of a pod, but for its times and serial number.
fn callers(id: String) -> Leaf {
    Leaf {
        names: vec![id],
        subject: String::new(),
        authority: false,
        key_usage: "Digital Signature".to_owned(),
        purposes: "client true, server true, others false".to_owned(),
        key: "the caller's".to_owned(),
        // Names, key usage, purposes, basic constraints, the key's and the authority's identifiers.
        extensions: ["2.5.29.35", "2.5.29.17", "2.5.29.15", "2.5.29.37", "2.5.29.14", "2.5.29.19"]
            .map(str::to_owned)
            .to_vec(),
        chains: true,
        backdated: Duration::ZERO,
        life: Duration::ZERO,
        serial_bits: 0,
    }
}

/// Requests that are granted, each with the life that is asked for and the one that is given, in seconds.
fn granted(desk: &Desk<'_>) -> Vec<(&'static str, String, i64, u64)> {
    let of = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        request(&params, &desk.key)
    };
    let named = |names: Vec<SanType>| of(&|params| params.subject_alt_names = names.clone());
    let uri = |id: &str| SanType::URI(id.try_into().expect("ASCII"));
    let dns = || SanType::DnsName("payments.shop.svc".try_into().expect("ASCII"));
    let email = || SanType::Rfc822Name("root@example.com".try_into().expect("ASCII"));
    let ip = || SanType::IpAddress([10, 96, 0, 1].into());
    let own = uri(&desk.identity("web"));
    let cart = uri(&desk.identity("cart"));
    let control_plane = format!("spiffe://cluster.local/ns/{}/sa/gauze-control-plane", desk.mesh.system.name);
    let plain = || desk.csr.clone();
    let other = request(&CertificateParams::default(), &KeyPair::generate().expect("a key"));
    vec![
        ("nothing", plain(), 0, DAY),
        ("its own identity", named(vec![own.clone()]), 0, DAY),
        ("another's identity", named(vec![cart.clone()]), 0, DAY),
        ("its own identity and another's", named(vec![own.clone(), cart]), 0, DAY),
        ("the control plane's identity", named(vec![uri(&control_plane)]), 0, DAY),
        (
            "an identity of another trust domain",
            named(vec![uri("spiffe://elsewhere/ns/shop/sa/web")]),
            0,
            DAY,
        ),
        ("a DNS name", named(vec![dns()]), 0, DAY),
        ("an IP address", named(vec![ip()]), 0, DAY),
        ("an e-mail address", named(vec![email()]), 0, DAY),
        ("names of all kinds beside its own", named(vec![own, dns(), ip(), email()]), 0, DAY),
        ("a subject", of(&|p| p.distinguished_name.push(DnType::CommonName, "gauze-control-plane")), 0, DAY),
        ("an authority", of(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), 0, DAY),
        (
            "the right to sign certificates",
            of(&|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]),
            0,
            DAY,
        ),
        (
            "other purposes",
            of(&|p| {
                p.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::Any]
            }),
            0,
            DAY,
        ),
        ("a request with text around it", format!("Hello\n{}Bye\n", plain()), 0, DAY),
        ("two requests, its own first", plain() + &other, 0, DAY),
        ("a life of one hour", plain(), 3600, 3600),
        ("a life of 25 hours", plain(), 25 * 3600, DAY),
        ("a life of 300 million years", plain(), i64::MAX, DAY),
        ("a life of -1 s", plain(), -1, DAY),
        ("the shortest life that can be written", plain(), i64::MIN, DAY),
    ]
}

#[tokio::test]
async fn a_request_that_is_no_good_p_256_request_gets_nothing() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let token = bearer(&desk.good_token("web-0", "web").await);
    for (what, csr, words) in refused(&desk) {
        let outcome = desk.port.create(token.clone(), &csr, 0).await;
        assert!(outcome.chain.is_empty(), "{what}: a certificate was issued");
        assert_eq!(outcome.status, status::INVALID_ARGUMENT, "{what}: {outcome:?}");
        let fits = outcome.message.starts_with("M1104: ") && outcome.message.contains(words);
        assert!(fits, "{what}: {outcome:?}");
    }
    let key = desk.key.serialize_pem();
    let secret = key.lines().nth(1).expect("PEM has lines");
    assert!(!desk.replica.process.log().contains(secret), "a private key that was sent stands in the log");
}

fn refused(desk: &Desk<'_>) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const NOT_P256: &str = "not ECDSA P-256";
    const NO_REQUEST: &str = "not a PEM PKCS #10 request";
    let good = &desk.csr;
    let of_kind = |algorithm| {
        request(&CertificateParams::default(), &KeyPair::generate_for(algorithm).expect("a key")).into_bytes()
    };
    let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    let mut extended = CertificateParams::default();
    extended.custom_extensions = vec![unknown];
    vec![
        ("an RSA key of 1024 bits", openssl(&["-newkey", "rsa:1024"]), NO_REQUEST),
        ("an RSA key of 2048 bits", of_kind(&rcgen::PKCS_RSA_SHA256), NOT_P256),
        ("a P-384 key", of_kind(&rcgen::PKCS_ECDSA_P384_SHA384), NOT_P256),
        ("a P-384 key that signs with SHA-256", elliptic("secp384r1", "-sha256"), NOT_P256),
        ("a P-521 key", elliptic("secp521r1", "-sha512"), NO_REQUEST),
        ("an Ed25519 key", of_kind(&rcgen::PKCS_ED25519), NOT_P256),
        ("the curve of Bitcoin", elliptic("secp256k1", "-sha256"), NO_REQUEST),
        ("a P-256 key that signs with SHA-1", elliptic("prime256v1", "-sha1"), NO_REQUEST),
        ("a P-256 key that signs with SHA-384", elliptic("prime256v1", "-sha384"), NOT_P256),
        ("an extension that nobody knows", request(&extended, &desk.key).into_bytes(), NO_REQUEST),
        ("a signature that was changed", changed(good, 12), "signature"),
        ("a public key that was exchanged", exchanged(desk), "signature"),
        ("nothing", Vec::new(), NO_REQUEST),
        ("spaces", b"   \n\n".to_vec(), NO_REQUEST),
        ("garbage", b"garbage".to_vec(), NO_REQUEST),
        ("PEM without content", pem("CERTIFICATE REQUEST", ""), NO_REQUEST),
        ("PEM of garbage", pem("CERTIFICATE REQUEST", "Z2FyYmFnZQ=="), NO_REQUEST),
        ("half a request", good.as_bytes()[..good.len() / 2].to_vec(), NO_REQUEST),
        ("a certificate", desk.port.roots.clone().into_bytes(), NO_REQUEST),
        ("a private key", desk.key.serialize_pem().into_bytes(), NO_REQUEST),
        ("17 KiB", vec![b'x'; 17 * 1024], "more than 16384"),
        ("a request followed by 17 KiB", [good.as_bytes(), &[b'\n'; 17 * 1024]].concat(), "more than 16384"),
    ]
}

/// A request that openssl makes of a key that our own library does not.
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/"]).args(arguments);
    let output = command.output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn elliptic(curve: &str, digest: &str) -> Vec<u8> {
    openssl(&["-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}"), digest])
}

/// The same with another letter so many before the end of its content.
fn changed(pem: &str, before_end: usize) -> Vec<u8> {
    let at = pem.find("-----END").expect("PEM ends") - before_end;
    let mut bytes = pem.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    bytes
}

/// The request of one key with the public key of another in it.
fn exchanged(desk: &Desk<'_>) -> Vec<u8> {
    use rcgen::PublicKeyData;
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let request = CertificateParams::default().serialize_request(&desk.key).expect("well-formed");
    let mut der = request.der().to_vec();
    let own = desk.key.der_bytes();
    let at = der.windows(own.len()).position(|window| window == own).expect("the key is in it");
    der[at..at + own.len()].copy_from_slice(other.der_bytes());
    pem("CERTIFICATE REQUEST", &base64(&der))
}

fn base64(bytes: &[u8]) -> String {
    let text = super::forge::base64url(bytes).replace('-', "+").replace('_', "/");
    let padding = "=".repeat(text.len().wrapping_neg() % 4);
    text + &padding
}

fn pem(label: &str, content: &str) -> Vec<u8> {
    let lines: Vec<String> =
        content.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}
