//! The control plane is scaled to nothing for a minute: what runs goes on, what was admitted waits and comes, what is not ours
//! does not notice.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::cluster::{Cluster, REGISTRY, TAG};
use crate::harness::eventually::{holds, within};
use crate::harness::programs::repository;

/// How long the control plane is away.
const AWAY: Duration = Duration::from_secs(60);
/// The issue's bound for pods that were admitted before.
const READY_AFTER_RETURN: Duration = Duration::from_secs(30);
/// The ReplicaSet controller asks again after pauses that double: about as long as the outage was.
const SCALED_AFTER_RETURN: Duration = Duration::from_secs(180);
/// For what has no bound of its own, on a busy machine.
const SOON: Duration = Duration::from_secs(120);

/// A pod that the webhook has seen and that is not scheduled before somebody says so.
fn waiting() -> String {
    pod("shop", "waiting", "schedulingGates: [{name: gauze.test/later}]")
}

fn pod(namespace: &str, name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec:\n  {more}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: app\n    image: {REGISTRY}/gauze:{TAG}\n    imagePullPolicy: Never\n    \
         args: [demo-app, --service={name}, --version=v1, \"--listen=[::]:8080\", --pod={name}]\n    \
         readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}\n"
    )
}

/// The demo's shop with our images.
fn shop() -> String {
    let text = std::fs::read_to_string(repository().join("docs/shop.yaml")).expect("the shop of the docs");
    let image = format!("image: {REGISTRY}/gauze:{TAG}\n          imagePullPolicy: Never");
    text.replace("image: gauze:0.1.0", &image)
}

/// What the load calls its requests from here on.
const RUN: &str = "outage";

struct Outage {
    cluster: Cluster,
}

impl Outage {
    async fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    async fn is_ready(&self, namespace: &str, pod: &str) -> Result<(), String> {
        let path = "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.status.initContainerStatuses[*].state}";
        let state = self.cluster.kubectl(&["get", "pod", pod, "--namespace", namespace, path]).await?;
        holds(state.starts_with("True"), state)
    }

    /// Ready pods of a deployment, and those that it should have.
    async fn replicas(&self, name: &str) -> String {
        let path = "--output=jsonpath={.status.readyReplicas}/{.spec.replicas}";
        self.kubectl(&["get", "deployment", name, "--namespace=shop", path]).await
    }

    /// What became of the load's requests of one run, after this order: sent, answered, failed, and why.
    async fn account(&self, run: &str, order: &[&str]) -> Value {
        let ledger =
            ["exec", "--namespace=shop", "deploy/load", "--container=load", "--", "/gauze", "demo-ledger"];
        let text = self.kubectl(&[&ledger[..], order].concat()).await;
        let ledger: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("a ledger: {text}"));
        ledger[run].clone()
    }

    async fn scale_control_plane(&self, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        self.kubectl(&["scale", "deployment/gauze-control-plane", "--namespace=gauze-system", &replicas])
            .await;
    }
}

#[tokio::test]
async fn an_outage_of_the_control_plane_loses_nothing_and_leaves_nothing_behind() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.install(&[]).await;
    cluster.apply(&shop()).await;
    let outage = Outage { cluster };
    let wait = ["wait", "--for=condition=Ready", "pods", "--all", "--namespace=shop", "--timeout=120s"];
    within(SOON, "the shop is ready", async || outage.cluster.kubectl(&wait).await).await;
    outage.cluster.apply(&waiting()).await;
    within(SOON, "requests are answered", async || {
        let account = outage.account("load", &[]).await;
        holds(account["answered"].as_u64() > Some(100), account)
    })
    .await;
    outage.account(RUN, &[&format!("--run={RUN}")]).await; // what failed before all were ready does not count

    outage.scale_control_plane(0).await;
    let gone = ["wait", "--for=delete", "pods", "--all", "--namespace=gauze-system", "--timeout=60s"];
    outage.kubectl(&gone).await;
    let away = Instant::now();

    let created = Instant::now();
    outage.cluster.apply(&pod("default", "unlabelled", "")).await;
    println!("an unlabelled pod is created: after {:?}", created.elapsed());
    within(SOON, "and runs", async || outage.is_ready("default", "unlabelled").await).await;
    outage.kubectl(&["scale", "deployment/web", "--namespace=shop", "--replicas=2"]).await;
    let gate = r#"--patch=[{"op":"remove","path":"/spec/schedulingGates"}]"#;
    outage.kubectl(&["patch", "pod", "waiting", "--namespace=shop", "--type=json", gate]).await;
    tokio::time::sleep(AWAY.saturating_sub(away.elapsed())).await; // the outage itself

    let waiting = outage.is_ready("shop", "waiting").await;
    assert!(waiting.is_err(), "no certificate, so no traffic, so not ready");
    assert_eq!(outage.replicas("web").await, "1/2", "a pod that would not be meshed is not created");
    outage.scale_control_plane(1).await;
    let back =
        ["rollout", "status", "deployment/gauze-control-plane", "--namespace=gauze-system", "--timeout=60s"];
    outage.kubectl(&back).await;
    within(READY_AFTER_RETURN, "the pod that was admitted before is ready", async || {
        outage.is_ready("shop", "waiting").await
    })
    .await;
    within(SCALED_AFTER_RETURN, "the deployment that was scaled meanwhile is complete", async || {
        let replicas = outage.replicas("web").await;
        holds(replicas == "2/2", replicas)
    })
    .await;
    outage.account(RUN, &["--rate=0"]).await;
    let account = within(SOON, "all requests have ended", async || {
        let account = outage.account(RUN, &[]).await;
        if account["open"] == 0 { Ok(account) } else { Err(account) }
    })
    .await;
    println!("{account}");
    assert_eq!((&account["failed"], &account["sent"]), (&Value::from(0), &account["answered"]), "{account}");
    assert!(account["sent"].as_u64() > Some(1000), "they went on meanwhile: {account}");
}
