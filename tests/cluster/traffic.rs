//! What two really injected pods say to each other: unreadable on the wire, refused or not to others, split by weight.
//! A namespace for each test; requests enter at `web` through the API server, in plaintext from the node.

use std::process::Stdio;

use serde_json::Value;

use crate::harness::cluster::{Cluster, demo_app};
use crate::harness::eventually;
use crate::harness::eventually::holds;
use crate::harness::objects;
use crate::harness::process::Process;
use crate::harness::programs::repository;

/// A Service on port 80 for the pods with this label.
fn service(namespace: &str, name: &str, app: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         selector: {{app: {app}}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
    )
}

/// `web` and `cart` with sidecars, `plain` without; `web` calls Service `cart`, `plain` the same pod as Service `open`.
pub(super) async fn shop(cluster: &Cluster, namespace: &str) {
    let injected = objects::namespace(namespace, &["web", "cart"]).replacen(
        "metadata: {",
        "metadata: {labels: {gauze.dev/inject: enabled}, ",
        1,
    );
    let services = service(namespace, "cart", "cart") + &service(namespace, "open", "cart");
    cluster.apply(&(injected + &services)).await;
    let calls = |service: &str| format!("--calls={service}.{namespace}={service}.{namespace}:80");
    let plain = demo_app(namespace, "plain", &[&calls("open")]).replacen(
        "labels: {",
        "labels: {gauze.dev/inject: disabled, ",
        1,
    );
    let web = demo_app(namespace, "web", &[&calls("cart")]);
    let pods = web.replacen("spec:", "spec:\n  serviceAccountName: web", 1)
        + &demo_app(namespace, "cart", &[]).replacen("spec:", "spec:\n  serviceAccountName: cart", 1);
    cluster.apply(&(pods + &plain)).await;
    cluster.pods_ready(namespace).await;
    for caller in ["web", "plain"] {
        eventually(&format!("{caller} finds cart"), async || ask(cluster, namespace, caller).await).await;
    }
}

/// The pod that answered in the end.
pub(super) async fn ask(cluster: &Cluster, namespace: &str, caller: &str) -> Result<String, String> {
    let said = cluster.get(namespace, caller, 8080, "/").await?;
    let answer: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    answer["calls"][0]["pod"].as_str().map(ToOwned::to_owned).ok_or(said)
}

async fn annotate(cluster: &Cluster, namespace: &str, pod: &str, annotation: &str) {
    let namespace = format!("--namespace={namespace}");
    let arguments = ["annotate", "--overwrite", "pod", pod, &namespace, annotation];
    cluster.kubectl(&arguments).await.expect("the pod is there");
}

#[tokio::test]
async fn a_request_between_injected_pods_is_mutual_tls_and_never_in_clear_on_the_wire() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    let Cluster::Own(_) = cluster else { return };
    shop(cluster, "wire").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("frames");
    // The hosts that `web` and `plain` call by. Frames are looked at in order.
    let markers = ["ost: cart.wire", "ost: open.wire"];
    let script = repository().join("tests/netns/wire.py");
    let [script, report] = [&script, &report].map(|path| path.to_str().expect("a path of text"));
    let mut listener = cluster.command(&["python3", "-u", script, report, markers[0], markers[1]]);
    listener.stdin(Stdio::null());
    let _wire = Process::spawn("wire", listener).await;
    for caller in ["web", "web", "web", "web", "web", "plain"] {
        assert_eq!(ask(cluster, "wire", caller).await.as_deref(), Ok("cart"));
    }
    let seen = eventually("the request of the pod outside the mesh is seen on the wire", async || {
        let text = std::fs::read_to_string(report).unwrap_or_default();
        let seen: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        if seen.get(2).is_some_and(|open| *open > 0) { Ok(seen) } else { Err(text) }
    })
    .await;
    assert_eq!(seen[1], 0, "frames with a request between injected pods in clear, of {}", seen[0]);

    let metrics = cluster.get("wire", "cart", 15020, "/metrics").await.expect("metrics are open to all");
    let from_web = metrics.lines().find(|line| {
        line.starts_with("gauze_requests_total{")
            && line.contains("direction=\"inbound\"")
            && line.contains("peer_identity=\"spiffe://cluster.local/ns/wire/sa/web\"")
            && line.contains("tls=\"mutual\"")
    });
    assert!(from_web.is_some(), "{metrics}");
}

#[tokio::test]
async fn a_pod_outside_the_mesh_is_let_in_by_permissive_and_denied_by_strict() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    shop(cluster, "strict").await;
    // `shop` has seen that permissive, the default, lets it in; its connection is kept open.
    annotate(cluster, "strict", "cart", "gauze.dev/mtls=strict").await;
    eventually("strict denies the pod outside the mesh", async || {
        let answer = ask(cluster, "strict", "plain").await;
        holds(answer.is_err(), answer)
    })
    .await;
    assert_eq!(ask(cluster, "strict", "web").await.as_deref(), Ok("cart"), "the mesh itself goes on");
    annotate(cluster, "strict", "cart", "gauze.dev/mtls=permissive").await;
    eventually("permissive lets it in again", async || ask(cluster, "strict", "plain").await).await;
}

#[tokio::test]
async fn a_traffic_split_moves_what_an_injected_pod_asks_for() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    shop(cluster, "moving").await;
    let second = demo_app("moving", "cart-b", &[]);
    let backends = service("moving", "cart-a", "cart") + &service("moving", "cart-b", "cart-b");
    cluster.apply(&(backends + &second)).await;
    cluster.pods_ready("moving").await;
    for (first, second, answers) in
        [(0, 100, vec!["cart-b"]), (100, 0, vec!["cart"]), (50, 50, vec!["cart", "cart-b"])]
    {
        let split = objects::split("moving", "cart", "cart", &[("cart-a", first), ("cart-b", second)]);
        cluster.apply(&split).await;
        eventually(&format!("{first}/{second} is live"), async || {
            let mut pods = Vec::new();
            for _ in 0..12 {
                pods.push(ask(cluster, "moving", "web").await?);
            }
            pods.sort();
            pods.dedup();
            holds(pods == answers, format!("{pods:?}"))
        })
        .await;
    }
}

#[tokio::test]
async fn the_command_line_asks_the_control_plane_and_the_sidecars_by_exec() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    shop(cluster, "asked").await;
    for (arguments, expected) in [
        (&["get", "pods", "-n", "asked"][..], "web"),
        (&["check", "-n", "asked"], "ok"),
        (&["explain", "asked/web", "GET", "http://cart/"], "cart"),
        (&["proxy", "clusters", "web", "-n", "asked"], "cart"),
    ] {
        let said = cluster.gauze(arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
