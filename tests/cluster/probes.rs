//! Probes and hooks of really injected pods, asked by a real kubelet: a dead app behind each kind of probe is seen as dead, a
//! living one as alive, in a strict pod and in a permissive one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::harness::cluster::{Cluster, REGISTRY, TAG};
use crate::harness::eventually::{holds, within};

const NAMESPACE: &str = "probes";

/// Two restarts after three seconds of grace each, on a machine that is busy.
const SEEN: Duration = Duration::from_secs(120);

/// The handler of each kind of probe of an app at this port.
fn handlers(port: u16) -> [(&'static str, String); 4] {
    [
        ("http", format!("httpGet: {{path: /healthz, port: {port}}}")),
        ("tcp", format!("tcpSocket: {{port: {port}}}")),
        ("grpc", format!("grpc: {{port: {port}}}")),
        ("exec", format!("exec: {{command: [/gauze, demo-ledger, --at=127.0.0.1:{port}]}}")),
    ]
}

/// A container of each kind that lives, and one of each kind whose app never listens where it should.
fn pod(mtls: &str) -> String {
    let mut yaml = format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {mtls}, namespace: {NAMESPACE}}}\nspec:\n  \
         selector: {{matchLabels: {{app: {mtls}}}}}\n  template:\n    metadata:\n      labels: {{app: {mtls}}}\n      \
         annotations: {{gauze.dev/mtls: {mtls}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n"
    );
    let mut port = 8000;
    for (state, offset) in [("alive", 0), ("dead", 1000)] {
        for kind in 0..4 {
            port += 1;
            let (kind, handler) = &handlers(port + offset)[kind];
            write!(
                yaml,
                "      - name: {state}-{kind}\n        image: {REGISTRY}/gauze:{TAG}\n        imagePullPolicy: Never\n        \
                 args: [demo-app, --service={kind}, --version=v1, \"--listen=[::]:{port}\", --pod=probed]\n        \
                 livenessProbe: {{{handler}, initialDelaySeconds: 3, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 3}}\n        \
                 readinessProbe: {{{handler}, periodSeconds: 1, timeoutSeconds: 5}}\n"
            )
            .expect("a string grows");
        }
    }
    yaml
}

/// Of each container of an app's pod: how often it was started again, and whether it is ready.
async fn containers(cluster: &Cluster, app: &str) -> BTreeMap<String, (u64, bool)> {
    let selector = format!("--selector=app={app}");
    let pods = cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, &selector, "--output=json"]).await;
    let pods: Value = serde_json::from_str(&pods.expect("kubectl lists")).expect("JSON");
    let statuses = pods["items"][0]["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let read = |status: &Value| {
        let name = status["name"].as_str().unwrap_or_default().to_owned();
        (name, (status["restartCount"].as_u64().unwrap_or_default(), status["ready"] == true))
    };
    statuses.iter().map(read).collect()
}

#[tokio::test]
async fn kubelet_sees_a_dead_app_as_dead_and_a_living_one_as_alive_behind_each_kind_of_probe() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: {{gauze.dev/inject: enabled}}}}\n"
    );
    let modes = ["permissive", "strict"];
    cluster.apply(&namespace).await;
    cluster.apply(&modes.map(pod).concat()).await;
    for mtls in modes {
        within(SEEN, &format!("{mtls}: the dead are restarted, the living are ready"), async || {
            let containers = containers(cluster, mtls).await;
            let as_wished =
                |(name, (restarts, ready)): (&String, &(u64, bool))| match name.starts_with("dead-") {
                    true => *restarts > 0 && !ready,
                    false => *restarts == 0 && *ready,
                };
            holds(containers.len() == 8 && containers.iter().all(as_wished), containers)
        })
        .await;
    }
    let events =
        cluster.kubectl(&["get", "events", "--namespace", NAMESPACE, "--output=jsonpath={..message}"]).await;
    let events = events.expect("kubectl lists");
    let rewritten = "Liveness probe failed: HTTP probe failed with statuscode: 503";
    assert!(events.contains(rewritten), "{events}");
    cluster.leave(NAMESPACE).await;
}
