//! Probes as kubelet asks them, from the node: a dead app behind each kind is seen as dead, a living one as alive, whether the
//! pod lets in plaintext or not.

use super::{APP_USER, NAMESPACE, PORT, Place, Pods, Wishes};
use crate::harness::eventually::{eventually, holds};

/// Where the health service listens, and where nobody does.
const HEALTH: u16 = 9000;
const DEAD: u16 = 9;

const WORD: &str = "0123456789abcdefghij";

/// What is declared of each container, and how kubelet takes the answer.
fn declared() -> Vec<(&'static str, String, u16)> {
    let http = |port: u16| format!(r#"{{"httpGet":{{"path":"/healthz","port":{port}}},"timeoutSeconds":1}}"#);
    let tls = format!(r#"{{"httpGet":{{"port":{PORT},"scheme":"HTTPS"}},"timeoutSeconds":1}}"#);
    let tcp = |port: u16| format!(r#"{{"tcpSocket":{{"port":{port}}},"timeoutSeconds":1}}"#);
    let grpc = |port: u16| format!(r#"{{"grpc":{{"port":{port}}},"timeoutSeconds":1}}"#);
    vec![
        ("http", http(PORT), 200),
        ("tcp", tcp(PORT), 200),
        ("grpc", grpc(HEALTH), 200),
        ("dead-http", http(DEAD), 503),
        ("dead-tcp", tcp(DEAD), 503),
        ("dead-grpc", grpc(DEAD), 503),
        ("no-tls", tls, 503),
        ("no-grpc", grpc(PORT), 503),
        // kubelet could not reach what listens on the loopback, and neither do we.
        ("loopback", tcp(PORT + 1), 503),
    ]
}

#[tokio::test]
async fn a_dead_app_is_seen_as_dead_and_a_living_one_as_alive_strict_or_not() {
    let declared = declared();
    let mut flags: Vec<String> =
        declared.iter().map(|(container, json, _)| format!("--probe={container}/live={json}")).collect();
    flags.push(format!(r#"--hook=http/pre-stop/{WORD}={{"httpGet":{{"path":"/bye","port":{PORT}}}}}"#));
    flags.push(format!(r#"--hook=dead/post-start/{WORD}={{"httpGet":{{"port":{DEAD}}}}}"#));
    let Some(pods) = Pods::start_with(Wishes { cart: &flags, ..Wishes::default() }).await else { return };
    let _health = pods.node.script(Place::Pod("cart"), APP_USER, "health", &[&HEALTH.to_string()]).await;
    for mtls in ["permissive", "strict"] {
        pods.with_mtls(mtls).await;
        for address in pods.cart.map(|address| address.to_string()) {
            let ask =
                |path: &str| pods.node.call(Place::Node, 0, "client", &["get", &address, "15020", path]);
            for (container, _, status) in &declared {
                let answer = ask(&format!("/probe/{container}/live"));
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{mtls}, {container} at {address}: {answer}"
                );
                assert!(!answer.contains("x-app"), "nothing but the app's status is passed on: {answer}");
            }
            for (path, expected) in [
                (format!("/hook/http/pre-stop/{WORD}"), "HTTP/1.1 200 "),
                // kubelet takes any status of a hook for success: a dead app must be no answer.
                (format!("/hook/dead/post-start/{WORD}"), "closed"),
                ("/hook/http/pre-stop/0123456789abcdefghiX".to_owned(), "HTTP/1.1 404 "),
                ("/hook/http/pre-stop".to_owned(), "HTTP/1.1 404 "),
                ("/probe/http/ready".to_owned(), "HTTP/1.1 404 "),
                ("/probe/other/live".to_owned(), "HTTP/1.1 404 "),
            ] {
                let answer = ask(&path);
                assert!(answer.starts_with(expected), "{mtls}, {path} at {address}: {answer}");
            }
        }
    }
    // Why probes are rewritten at all: asked through the redirect, a port that nobody listens on seems to live.
    let address = pods.cart[0].to_string();
    let connected = pods.node.call(Place::Node, 0, "client", &["connect", &address, &DEAD.to_string()]);
    assert_eq!(connected, "connected");
}

#[tokio::test]
async fn probes_are_asked_while_the_sidecar_itself_is_not_ready() {
    let Some(pods) = Pods::start().await else { return };
    let addresses = pods.node.pod("early", 15);
    let yaml = super::objects::namespace(NAMESPACE, &["early"])
        + "---\n"
        + &super::pod("early", addresses, "strict");
    pods.apply("early.yaml", &yaml);
    // Without the redirect step it cannot become ready.
    let flag = format!(r#"--probe=app/startup={{"httpGet":{{"port":{PORT}}},"timeoutSeconds":1}}"#);
    let _sidecar = pods.sidecar("early", addresses, &[flag]).await;
    let ask = |path: &str| {
        pods.node.call(Place::Node, 0, "client", &["get", &addresses[0].to_string(), "15020", path])
    };
    assert!(ask("/ready").contains(" 503 "));
    assert!(ask("/probe/app/startup").contains("Connection refused"), "the app has not started");
    let _app = pods.node.script(Place::Pod("early"), APP_USER, "app", &[&PORT.to_string(), "early"]).await;
    eventually("the app is alive", async || {
        let answer = ask("/probe/app/startup");
        holds(answer.contains(" 200 "), answer)
    })
    .await;
    assert!(ask("/ready").contains(" 503 "), "and the sidecar is not ready still");
}
