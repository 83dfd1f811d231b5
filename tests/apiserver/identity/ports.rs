//! What each port of the control plane tells whom. Everybody here comes from the loopback, which is no credential.

use http::HeaderMap;
use rcgen::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Desk;
use crate::harness::apiserver::ApiServer;
use crate::harness::client::{self, Protocol};
use crate::harness::enrolment::{ADS, CREATE, TlsPort, bearer, status};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::free_address;

#[tokio::test]
async fn configuration_is_given_to_the_pod_that_the_certificate_can_be() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let token = desk.good_token("web-0", "web").await;
    let chain = desk.ask(bearer(&token)).await.chain;
    desk.pod("web-1", "web").await;
    desk.good_token("cart-0", "cart").await;
    desk.mesh.account(&desk.mesh.system.name, "web").await;
    desk.mesh.bare_pod(&desk.mesh.system.name, "web-9", "web", free_address(), true).await;
    desk.good_token("gone-0", "web").await;
    desk.mesh.delete_pod("gone-0").await;
    let (shop, system) = (desk.mesh.shop(), &desk.mesh.system.name);
    let status_of = async |node: &str| {
        let credentials = Some((chain.as_slice(), &desk.key));
        let outcome = desk.port.call(credentials, ADS, HeaderMap::new(), &hello(node)).await;
        outcome.expect("the port answers").status
    };
    for (what, node, expected) in [
        ("its own pod", format!("{shop}/web-0"), status::OK),
        ("another pod of its ServiceAccount", format!("{shop}/web-1"), status::OK),
        ("a pod of another ServiceAccount", format!("{shop}/cart-0"), status::PERMISSION_DENIED),
        ("a pod of the same account's name elsewhere", format!("{system}/web-9"), status::PERMISSION_DENIED),
        ("the control plane's pod", format!("{system}/gauze-0"), status::PERMISSION_DENIED),
        ("a pod that was deleted", format!("{shop}/gone-0"), status::PERMISSION_DENIED),
        ("a pod that never was", format!("{shop}/web-7"), status::PERMISSION_DENIED),
        ("no pod", "web-0".to_owned(), status::INVALID_ARGUMENT),
    ] {
        // What was created and deleted just now is known by watch, a moment later.
        eventually(what, async || {
            let status = status_of(&node).await;
            holds(status == expected, status)
        })
        .await;
    }
}

/// Envoy's DeltaDiscoveryRequest with nothing but `node.id`.
fn hello(node: &str) -> Vec<u8> {
    let field = |content: &[u8]| {
        let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80).expect("a short one");
        [&[0x0a, length], content].concat()
    };
    field(&field(node.as_bytes()))
}

#[tokio::test]
async fn the_tls_port_tells_strangers_nothing() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let token = desk.good_token("web-0", "web").await;
    let chain = desk.ask(bearer(&token)).await.chain;
    let node = hello(&format!("{}/web-0", desk.mesh.shop()));
    let member = Some((chain.as_slice(), &desk.key));
    let call = async |credentials, path, headers| {
        desk.port.call(credentials, path, headers, &node).await.expect("the port answers")
    };
    for (what, credentials, path, headers, expected) in [
        ("configuration without a certificate", None, ADS, HeaderMap::new(), status::UNAUTHENTICATED),
        ("configuration with a token", None, ADS, bearer(&token), status::UNAUTHENTICATED),
        ("a certificate with a certificate", member, CREATE, HeaderMap::new(), status::UNAUTHENTICATED),
        ("the operator's pages", member, "/objects", HeaderMap::new(), status::UNIMPLEMENTED),
        ("metrics", None, "/metrics", HeaderMap::new(), status::UNIMPLEMENTED),
        (
            "reflection",
            None,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            HeaderMap::new(),
            status::UNIMPLEMENTED,
        ),
        (
            "another method",
            None,
            "/istio.v1.auth.IstioCertificateService/Sign",
            HeaderMap::new(),
            status::UNIMPLEMENTED,
        ),
    ] {
        let outcome = call(credentials, path, headers).await;
        assert_eq!((outcome.status, outcome.chain.len()), (expected, 0), "{what}: {outcome:?}");
    }
    // Replicas ask each other; nobody else learns anything, not even a pod of the mesh.
    for credentials in [None, member] {
        let outcome = call(credentials, "/gauze/fresh", HeaderMap::new()).await;
        assert_ne!(outcome.status, status::OK, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_of_this_mesh_is_not_let_in() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let key = KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    let id = desk.identity("web");
    params.subject_alt_names = vec![rcgen::SanType::URI(id.as_str().try_into().expect("ASCII"))];
    let chain = [params.self_signed(&key).expect("well-formed").pem()];
    let refused = desk.port.call(Some((&chain, &key)), ADS, HeaderMap::new(), &hello("shop/web-0")).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn the_metrics_port_answers_anybody_with_metrics_and_health_and_nothing_else() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    for (path, expected) in [
        ("/metrics", 200),
        ("/live", 200),
        ("/ready", 200),
        ("/objects", 404),
        ("/world", 404),
        ("/proxies", 404),
        ("/about", 404),
        ("/logging?level=trace", 404),
        ("/metrics/../objects", 404),
        ("//objects", 404),
        ("/", 404),
    ] {
        assert_eq!(desk.replica.page(path).await.status, expected, "{path}");
    }
}

#[tokio::test]
async fn the_webhook_port_serves_the_api_servers_reviews_under_dns_names_alone() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let port = TlsPort { address: desk.replica.process.address("webhook"), roots: desk.port.roots.clone() };
    let names = port.names().await.expect("its leaf chains to the mesh's root");
    let service = format!("gauze-control-plane.{}.svc", desk.mesh.system.name);
    assert!(names.iter().any(|name| name.contains(&service)), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("spiffe:")), "it is nobody in the mesh: {names:?}");
}

#[tokio::test]
async fn no_port_says_anything_to_plaintext_but_the_one_for_metrics() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    for port in ["grpc", "webhook"] {
        let address = desk.replica.process.address(port);
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is open");
        let mut answer = Vec::new();
        // A reset is an answer without words.
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("HTTP/1.1 200") && !text.contains("gauze_"), "{port}: {text}");
    }
    let answer =
        client::call(Protocol::Http1, desk.replica.process.address("metrics"), "x", "/live", "").await;
    assert_eq!(answer.expect("it answers").status, 200);
}
