//! What the operator's socket and the metrics port answer, and to whom.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Running, shop, write};
use crate::streams::{Proxy, is_served};

/// Sends one request by hand; returns the status and the body.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    let head = format!("{request} HTTP/1.1\r\nhost: gauze\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn on_socket(running: &Running, request: &str) -> (u16, String) {
    ask(UnixStream::connect(running.path("control-plane.sock")).await.unwrap(), request).await
}

async fn on_port(running: &Running, request: &str) -> (u16, String) {
    ask(TcpStream::connect(running.metrics).await.unwrap(), request).await
}

async fn json(running: &Running, path: &str) -> Value {
    let (status, body) = on_socket(running, &format!("GET {path}")).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn the_socket_tells_which_proxy_holds_what() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let mut web = Proxy::connect(&running, "web-0").await;
    web.dial("10.96.0.2:80").await;
    web.until(is_served).await;
    // The last ACK is on its way; the control plane has it when it answers a later request on the same stream.
    web.dial("10.96.0.99:80").await;
    web.until(|client| !client.snapshot().absent.is_empty()).await;

    let proxies = json(&running, "/proxies").await;
    let proxy = &proxies["proxies"][0];
    assert_eq!((&proxy["namespace"], &proxy["pod"]), (&"shop".into(), &"web-0".into()));
    assert_eq!((&proxy["serviceAccount"], &proxy["connected"]), (&"web".into(), &true.into()));
    let resources = proxy["resources"].as_array().unwrap();
    let routes = resources.iter().find(|resource| resource["name"] == "routes/shop/cart/80").unwrap();
    assert_eq!((&routes["kind"], &routes["state"]), (&"routes".into(), &"current".into()), "{routes}");
    running.stop().await;
}

#[tokio::test]
async fn the_socket_tells_what_is_wrong_with_an_object_and_where() {
    let directory = shop();
    write(
        directory.path(),
        "bad.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: shop}\nspec: {ports: seven}\n",
    );
    write(directory.path(), "worse.yaml", "kind: [\n");
    let running = Running::start(directory.path()).await;
    let objects = json(&running, "/objects").await;
    let text = objects.to_string();
    assert!(text.contains("bad.yaml") && text.contains("spec.ports"), "{text}");
    assert!(text.contains("worse.yaml"), "{text}");
    let cart = objects["objects"].as_array().unwrap().iter().find(|object| object["name"] == "cart").unwrap();
    assert_eq!((&cart["kind"], &cart["problems"]), (&"Service".into(), &Value::Array(Vec::new())));

    let about = json(&running, "/about").await;
    assert_eq!(about["mesh"]["trustDomain"], "cluster.local", "{about}");
    let ends = |which: &str| about["certificates"][which].as_u64().unwrap();
    assert!(ends("rootEnds") > ends("ownEnds") && ends("ownEnds") > 1_700_000_000, "{about}");

    let world = json(&running, "/world").await;
    assert_eq!(world["kind"], "List");
    assert_eq!(world["items"].as_array().unwrap().len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn the_port_tells_strangers_its_health_and_metrics_only() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    for (request, expected) in [
        ("GET /live", 200),
        ("GET /ready", 200),
        ("GET /metrics", 200),
        ("GET /about", 404),
        ("GET /objects", 404),
        ("GET /world", 404),
        ("GET /proxies", 404),
        ("POST /logging?level=debug", 404),
        ("POST /metrics", 404),
    ] {
        assert_eq!(on_port(&running, request).await.0, expected, "{request}");
    }
    let (_, metrics) = on_port(&running, "GET /metrics").await;
    assert!(metrics.contains("gauze_control_plane_workload_tokens 2\n"), "{metrics}");
    running.stop().await;
}

#[tokio::test]
async fn a_level_that_is_none_is_refused() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    for (request, expected) in [
        ("POST /logging?level=info=loud", "is no level"),
        ("POST /logging?level=loud", "`loud` is no level"),
        ("POST /logging", "POST /logging?level=LEVEL"),
        ("POST /logging?level=debug", "writes no logs"),
    ] {
        let (status, body) = on_socket(&running, request).await;
        assert_eq!(status, 400, "{request}");
        assert!(body.contains(expected), "{request}: {body}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_directory_has_one_socket_which_is_its_users_alone() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let socket = running.path("control-plane.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = Running::try_start(directory.path(), &[]).await.err().unwrap().to_string();
    assert!(
        refused.contains("another control plane serves") && refused.contains("--admin-socket"),
        "{refused}"
    );
    running.stop().await;
    assert!(!socket.exists(), "nothing is left behind");

    // One that a killed process left is taken over.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let running = Running::start(directory.path()).await;
    assert_eq!(on_socket(&running, "GET /ready").await.0, 200);
    running.stop().await;
}
