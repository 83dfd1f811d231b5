//! Connections that are open when policies change, that are silent at first, and requests in disguise.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Arc, Relaxed, Shop, hears_back};
use crate::harness::client::{Client, Protocol, call, request};
use crate::harness::eventually::{PATIENCE, eventually, holds};
use crate::harness::process::NEVER;

const CALLERS: [&str; 2] = ["mesh", "outside"];

/// What comes until the other side ends the connection, however it does.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    bytes
}

#[tokio::test]
async fn an_opaque_connection_is_closed_when_a_policy_comes_that_denies_it_and_no_other_is() {
    let shop = Shop::start(b"").await;
    let mut open = Vec::new();
    for caller in CALLERS {
        let mut stream = TcpStream::connect(shop.store_for(caller)).await.expect("a connection");
        assert!(hears_back(&mut stream).await, "{caller}: nothing is denied yet");
        open.push(stream);
    }
    let [mut mesh, mut outside] = <[TcpStream; 2]>::try_from(open).expect("two");
    shop.apply("audit-web").await;
    assert!(hears_back(&mut mesh).await && hears_back(&mut outside).await, "a policy that lets them in");
    shop.apply("deny-web").await;
    assert_eq!(rest(&mut mesh).await, b"", "the caller that is denied");
    assert!(hears_back(&mut outside).await, "the other goes on");
    shop.apply("deny-others").await;
    assert_eq!(rest(&mut outside).await, b"");
    shop.store.counts("gauze_streams_total", &["direction=\"inbound\"", "error=\"M4006\""], 2.0).await;
}

#[tokio::test]
async fn requests_on_an_open_connection_are_judged_by_what_holds_now() {
    let shop = Shop::start(b"").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let address = shop.cart_for("mesh");
        let mut client = Client::connect(protocol, address).await.expect("a connection");
        for (applied, status) in [("none", 200), ("deny-web", 403), ("allow-web", 200)] {
            shop.apply(applied).await;
            let answer = client.send(request(protocol, "cart", "/items", applied)).await.expect("an answer");
            assert_eq!(answer.status, status, "{protocol:?} {applied}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn of_a_connection_that_is_denied_no_byte_reaches_the_app_and_none_of_a_server_who_speaks_first_comes_back()
 {
    let shop = Shop::start(b"220 store\r\n").await;
    for (applied, callers) in
        [("deny-web", ["mesh"]), ("deny-others", ["outside"]), ("allow-items", ["outside"])]
    {
        shop.apply(applied).await;
        for caller in callers {
            let before = shop.echo.connections.load(Relaxed);
            let mut stream = TcpStream::connect(shop.store_for(caller)).await.expect("a connection");
            let mut byte = [0];
            let early = timeout(NEVER, stream.read(&mut byte)).await;
            assert!(early.is_err(), "{applied}: a client that is silent may yet speak HTTP: {early:?}");
            stream.write_all(b"\x00QUIT\r\n").await.expect("open");
            assert_eq!(rest(&mut stream).await, b"", "{applied}");
            assert_eq!(shop.echo.connections.load(Relaxed), before, "{applied}: the app heard of it");
        }
    }
    shop.apply("none").await;
    let mut stream = TcpStream::connect(shop.store_for("outside")).await.expect("a connection");
    let mut greeting = [0; 11];
    timeout(PATIENCE, stream.read_exact(&mut greeting)).await.expect("in time").expect("the greeting");
}

#[tokio::test]
async fn a_silent_client_that_would_be_denied_as_bytes_is_judged_anew_when_it_speaks_http() {
    let shop = Shop::start(b"").await;
    shop.apply("allow-items").await;
    for caller in CALLERS {
        let mut stream = TcpStream::connect(shop.cart_for(caller)).await.expect("a connection");
        let mut byte = [0];
        assert!(timeout(NEVER, stream.read(&mut byte)).await.is_err(), "{caller}: the silence was answered");
        let request = "GET /items HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("open");
        let answer = String::from_utf8(rest(&mut stream).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200"), "{caller}: {answer}");
    }
}

#[tokio::test]
async fn the_apps_own_tls_is_judged_as_bytes_that_are_not_http() {
    let shop = Shop::start(b"").await;
    let mut let_in = Vec::new();
    for applied in ["none", "allow-items", "deny-web", "deny-others"] {
        shop.apply(applied).await;
        let mut stream = TcpStream::connect(shop.store_for("outside")).await.expect("a connection");
        stream.write_all(&client_hello()).await.expect("open");
        let mut heard = [0; 5];
        let heard = timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("an answer, or the end");
        let_in.extend(heard.ok().map(|_| applied));
    }
    assert_eq!((&let_in[..], shop.echo.connections.load(Relaxed)), (&["none", "deny-web"][..], 2));
    for (error, count) in [("", 2.0), ("M4006", 1.0), ("M4007", 1.0)] {
        let error = format!("error=\"{error}\"");
        shop.store.counts("gauze_streams_total", &["protocol=\"tls\"", &error], count).await;
    }
}

/// The first bytes of a TLS client that is not of the mesh.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "store".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    hello
}

#[tokio::test]
async fn a_path_in_disguise_gets_round_no_policy() {
    let shop = Shop::start(b"").await;
    shop.apply("deny-admin").await;
    for target in [
        "/admin",
        "/%61dmin",
        "/%2561dmin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/admin;x=1",
        "/admin/",
        "/admin%2Fx",
        "/x/..%2fadmin",
        "http://cart/admin",
        "/admin?/items",
    ] {
        for caller in CALLERS {
            let mut stream = TcpStream::connect(shop.cart_for(caller)).await.expect("a connection");
            let request =
                format!("GET {target} HTTP/1.1\r\nhost: cart\r\nx-id: tricks\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("open");
            let answer = String::from_utf8_lossy(&rest(&mut stream).await).into_owned();
            assert!(
                answer.starts_with("HTTP/1.1 403") && answer.contains("M4006"),
                "{caller} {target}: {answer}"
            );
        }
    }
    assert_eq!(shop.app.count("tricks"), 0);
    let harmless = call(Protocol::Http1, shop.cart_for("mesh"), "admin", "/administration%20x", "ok").await;
    let answer = harmless.expect("an answer");
    assert_eq!(
        (answer.status.as_u16(), shop.app.received("ok")[0].target.as_str()),
        (200, "/administration%20x")
    );
}

#[tokio::test]
async fn log_and_access_log_name_policy_and_caller_and_metrics_and_probes_are_nobodys_to_deny() {
    let shop = Shop::start(b"").await;
    for (applied, caller, policy, peer) in [
        (
            "deny-web",
            "mesh",
            "AuthorizationPolicy/shop/deny-web spec.rules[0]",
            "spiffe://cluster.local/ns/shop/sa/web",
        ),
        ("allow-web", "outside", "AuthorizationPolicy/shop/allow-web", "outside"),
        (
            "audit-web",
            "mesh",
            "AuthorizationPolicy/shop/audit-web spec.rules[0]",
            "spiffe://cluster.local/ns/shop/sa/web",
        ),
    ] {
        shop.apply(applied).await;
        let answer =
            call(Protocol::Http1, shop.cart_for(caller), "cart", "/items", applied).await.expect("an answer");
        let log = shop.cart.process.log();
        let told = log.lines().any(|line| line.contains(policy) && line.contains(peer));
        assert!(told, "{applied}: {log}");
        let field = if applied == "audit-web" { "audited" } else { "policy" };
        eventually(&format!("{applied}: the access log names it"), async || {
            let lines = shop.cart.process.new_lines();
            let mut line = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found = line.rfind(|line| line["status"] == answer.status.as_u16());
            holds(found.as_ref().is_some_and(|line| line[field] == policy), (lines.clone(), found))
        })
        .await;
    }
    shop.apply("broken-deny").await;
    let probe = call(Protocol::Http1, shop.cart.process.address("metrics"), "cart", "/ready", "probe").await;
    assert_eq!(probe.expect("an answer").status, 200);
}
