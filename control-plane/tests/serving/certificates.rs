//! Who gets a certificate, and what stands in it.

use std::time::{Duration, SystemTime};

use gauze_control_plane::workload::Workload;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::client::{PATIENCE, Running, pod, request, shop, write};

fn workload(namespace: &str, pod: &str, service_account: &str) -> Workload {
    Workload {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: String::new(),
        service_account: service_account.to_owned(),
    }
}

#[tokio::test]
async fn a_pod_gets_the_identity_of_its_token_whatever_it_asks_for() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.subject_alt_names =
        vec![SanType::URI("spiffe://cluster.local/ns/shop/sa/cart".try_into().unwrap())];
    greedy.distinguished_name.push(DnType::CommonName, "gauze-control-plane");
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let greedy = greedy.serialize_request(&key).unwrap().pem().unwrap();

    let token = running.file("tokens/shop.web-0");
    let response = running.create_certificate(Some(&token), &greedy).await.unwrap();
    assert_eq!(response.cert_chain.len(), 1);
    assert_eq!(
        running.enroll("shop.web-0").await.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_token_gets_no_certificate_if() {
    let directory = shop();
    write(directory.path(), "own.yaml", &pod("gauze-system", "me-0", "gauze-control-plane", "10.1.0.9"));
    let running = Running::start(directory.path()).await;
    let elsewhere = shop();
    let stranger = Running::start(elsewhere.path()).await;
    let (tokens, now) = (running.tokens(), SystemTime::now());
    let sign = |workload: Workload, at| Some(tokens.sign(&workload, at).unwrap());
    let long_ago = now - Duration::from_secs(3600);

    for (why, token, code, expected) in [
        ("there is none", None, Code::Unauthenticated, "M1101"),
        ("it is empty", Some(String::new()), Code::Unauthenticated, "M1102"),
        ("it is garbage", Some("garbage".to_owned()), Code::Unauthenticated, "M1102"),
        ("it is huge", Some("x".repeat(9_000)), Code::Unauthenticated, "M1102"),
        (
            "it has expired",
            sign(workload("shop", "web-0", "web"), long_ago),
            Code::Unauthenticated,
            "expired",
        ),
        (
            "another mesh signed it",
            Some(stranger.file("tokens/shop.web-0")),
            Code::Unauthenticated,
            "not signed",
        ),
        ("its pod is unknown", sign(workload("shop", "web-9", "web"), now), Code::PermissionDenied, "M1103"),
        (
            "its pod has another account",
            sign(workload("shop", "web-0", "cart"), now),
            Code::PermissionDenied,
            "M1103",
        ),
        (
            "it would pose as us",
            Some(running.file("tokens/gauze-system.me-0")),
            Code::PermissionDenied,
            "own identity",
        ),
    ] {
        let key = KeyPair::generate().unwrap();
        let refused = running.create_certificate(token.as_deref(), &request(&key)).await.expect_err(why);
        assert_eq!(refused.code(), code, "{why}: {refused}");
        assert!(refused.message().contains(expected), "{why}: {refused}");
    }
    stranger.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_signing_request_that_cannot_be_used_is_refused_with_its_reason() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let token = running.file("tokens/shop.web-0");
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    for (csr, expected) in [(request(&rsa), "P-256"), ("garbage".to_owned(), "PEM"), (String::new(), "PEM")] {
        let refused = running.create_certificate(Some(&token), &csr).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("M1104") && refused.message().contains(expected), "{refused}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_was_deleted_gets_no_certificate_any_more() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let token = running.file("tokens/shop.web-0");
    std::fs::remove_file(directory.path().join("web.yaml")).unwrap();
    let key = KeyPair::generate().unwrap();
    let refused = async { while running.create_certificate(Some(&token), &request(&key)).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }
    // Silent connections, more than handshakes may go on one after another.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    running.enroll("shop.web-0").await;
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_root_and_token_key() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let (trust, token) = (running.file("trust.pem"), running.file("tokens/shop.web-0"));
    let credentials = running.enroll("shop.web-0").await;
    running.stop().await;

    let running = Running::start(directory.path()).await;
    assert_eq!(running.file("trust.pem"), trust);
    let key = KeyPair::generate().unwrap();
    running.create_certificate(Some(&token), &request(&key)).await.unwrap();
    running.stream(Some(credentials)).await.unwrap();
    running.stop().await;
}
