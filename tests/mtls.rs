//! Who may speak to whom, and that nobody else can listen.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::App;
use crate::harness::client::{Client, Protocol, call, request};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::{Mesh, SidecarOptions};
use crate::http::Pair;

#[tokio::test]
async fn an_edge_between_two_sidecars_is_mutual_tls_with_both_identities() {
    let pair = Pair::start("http").await;
    call(Protocol::Http1, pair.dial(), "cart", "/", "one").await.expect("an answer");
    let seen_by_web = [
        "direction=\"outbound\"",
        "tls=\"mutual\"",
        "peer_identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
    ];
    let seen_by_cart = [
        "direction=\"inbound\"",
        "tls=\"mutual\"",
        "peer_identity=\"spiffe://cluster.local/ns/shop/sa/web\"",
    ];
    pair.web.counts("gauze_requests_total", &seen_by_web, 1.0).await;
    pair.cart.counts("gauze_requests_total", &seen_by_cart, 1.0).await;
}

#[tokio::test]
async fn permissive_lets_plaintext_in_and_strict_does_not() {
    let pair = Pair::start("http").await;
    let plain = call(Protocol::Http1, pair.cart.address, "cart", "/", "plain-1").await.expect("an answer");
    assert_eq!(plain.status, 200, "permissive is the default");
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {gauze.dev/mtls: strict}}\n";
    pair.mesh.apply("namespace.yaml", namespace);
    eventually("plaintext is refused once the namespace is strict", async || {
        let answer = call(Protocol::Http1, pair.cart.address, "cart", "/", "plain-2").await;
        match answer {
            Ok(answer) => {
                holds(answer.code().starts_with("M4"), format!("{} {}", answer.status, answer.code()))
            }
            Err(_) => Ok(()), // closed without an answer is a refusal too
        }
    })
    .await;
    let before = pair.app.count("plain");
    let _ = call(Protocol::Http1, pair.cart.address, "cart", "/", "plain-3").await;
    assert_eq!(pair.app.count("plain"), before, "no byte of it reached the app");
    let meshed = call(Protocol::Http1, pair.dial(), "cart", "/", "meshed").await.expect("an answer");
    assert_eq!(meshed.status, 200, "the mesh goes on");
}

#[tokio::test]
async fn a_plaintext_connection_that_is_open_when_its_port_becomes_strict_carries_nothing_more() {
    for port_name in ["http", "tcp"] {
        let pair = Pair::start(port_name).await;
        let mut client = Client::connect(Protocol::Http1, pair.cart.address).await.expect("a connection");
        let mut ask = async |id: &str| client.send(request(Protocol::Http1, "cart", "/", id)).await;
        assert_eq!(
            ask("before").await.expect("an answer").status,
            200,
            "{port_name}: permissive is the default"
        );
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {gauze.dev/mtls: strict}}\n";
        pair.mesh.apply("namespace.yaml", namespace);
        eventually(&format!("{port_name}: refused, or closed where it cannot be told"), async || match ask(
            "during",
        )
        .await
        {
            Ok(answer) => holds(answer.code().starts_with("M4"), answer.text()),
            Err(_) => Ok(()),
        })
        .await;
        let reached = pair.app.count("during");
        assert!(!ask("after").await.is_ok_and(|answer| answer.status == 200), "{port_name}: it stays so");
        assert_eq!((pair.app.count("during"), pair.app.count("after")), (reached, 0));
    }
}

#[tokio::test]
async fn an_endpoint_outside_the_mesh_is_reached_as_the_app_would_have_reached_it() {
    let mesh = Mesh::start().await;
    let app = App::start("legacy").await;
    let service = mesh.service_address();
    let yaml = crate::harness::objects::service("shop", "legacy", service, "http")
        + &crate::harness::objects::slice("shop", "legacy", "http", &[("legacy-0", app.address)]);
    let pod = crate::harness::objects::Pod {
        namespace: "shop",
        name: "legacy-0",
        app: "legacy",
        version: "v1",
        account: "legacy",
        address: app.address,
        meshed: false,
        annotations: &[],
    };
    mesh.apply("legacy.yaml", &(yaml + "---\n" + &pod.yaml()));
    let web =
        mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..Default::default() }).await;
    web.ready().await;
    let answer = call(Protocol::Http1, web.outbound[0], "legacy", "/", "l").await.expect("an answer");
    assert_eq!(answer.app(), "legacy");
    web.counts("gauze_requests_total", &["tls=\"none\""], 1.0).await;
}

#[tokio::test]
async fn a_peer_with_another_identity_than_named_is_never_spoken_to() {
    let pair = Pair::start("http").await;
    // The Pod object now says that another account runs there: the certificate behind the address says otherwise.
    let pod = crate::harness::objects::Pod {
        namespace: "shop",
        name: "cart-0",
        app: "cart",
        version: "v1",
        account: "payments",
        address: pair.cart.address,
        meshed: true,
        annotations: &[],
    };
    pair.mesh.apply("pod-cart-0.yaml", &pod.yaml());
    let code = eventually("the identity is refused", async || {
        let answer =
            call(Protocol::Http1, pair.dial(), "cart", "/", "wrong").await.map_err(|e| e.to_string())?;
        if answer.status == 503 { Ok(answer.code().to_owned()) } else { Err(answer.status.to_string()) }
    })
    .await;
    assert!(code.starts_with('M'), "{code}");
}

#[tokio::test]
async fn certificates_of_ten_seconds_are_rotated_for_two_minutes_under_load_without_a_failure() {
    let mesh = Mesh::start_with(&["--certificate-life", "10s"]).await;
    let pair = Pair::start_in(mesh, "http").await;
    let serial = pair.web.admin("/certs").await;
    let load = crate::harness::load::Load::start("rotation", pair.dial(), "cart", 200);
    let mut seen = std::collections::BTreeSet::from([serial]);
    while load.elapsed() < Duration::from_secs(120) {
        load.send_more(100).await;
        seen.insert(pair.web.admin("/certs").await);
    }
    let report = load.finish().await;
    println!("{} requests, {} states of the certificates seen", report.outcomes.len(), seen.len());
    assert!(seen.len() > 10, "only {} rotations", seen.len());
    report.assert_nothing_lost(&[&pair.app]);
}

/// TLS of an app of its own, with this certificate.
pub(crate) fn server_tls(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .expect("a matching key");
    TlsAcceptor::from(Arc::new(config))
}

/// A client that trusts only this certificate.
pub(crate) fn client_tls(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).expect("a certificate");
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
