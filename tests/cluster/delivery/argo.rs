//! Argo Rollouts' writes for a Rollout `shop`: it adds the hash of a ReplicaSet to the selectors of the user's Services
//! `shop-stable` and `shop-canary`, and shares out the traffic by a TrafficSplit of its own, or by weights in an
//! HTTPRoute of the user (the plugin for the Gateway API).

mod plugin; // by HTTPRoute

use serde_json::{Value, json};

use super::live::landed_split;
use super::roles;
use super::stage::{App, Stage, service};
use super::tool::Tool;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::harness::eventually::{holds, within};

const ROLLOUT: &str = "shop";
const STABLE: &str = "shop-stable";
const CANARY: &str = "shop-canary";
const HASH: &str = "rollouts-pod-template-hash";

/// The hashes of the ReplicaSet that runs, and of the new one.
const OLD: &str = "7d9f8c5b44";
const NEW: &str = "5c8b66d9f7";

const REQUESTS: u64 = 200;
/// Requests per second, all the time.
const RATE: u32 = 60;
const STEPS: [u64; 3] = [20, 50, 100];

/// How long the garbage collector may take: it looks for new kinds every 30 s.
const COLLECTED: std::time::Duration = std::time::Duration::from_secs(120);

/// The user's objects: a Rollout with a pod of each ReplicaSet, and Services for it; `target` is the one that is called.
async fn shop(cluster: &'static Cluster, namespace: &str, target: &str) -> Stage {
    let apps = [
        App { pod: "old", labels: "app: shop, rollouts-pod-template-hash: 7d9f8c5b44" },
        App { pod: "new", labels: "app: shop, rollouts-pod-template-hash: 5c8b66d9f7" },
    ];
    let stage = Stage::set(cluster, namespace, target, &apps).await;
    let services = [ROLLOUT, STABLE, CANARY].map(|name| service(namespace, name, "app: shop"));
    stage.apply(&services.concat()).await;
    let rollout = format!(
        "---\napiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {{name: {ROLLOUT}, namespace: {namespace}}}\n"
    );
    let objects = roles::definition("argoproj.io", "v1alpha1", "Rollout", "rollouts") + &rollout;
    // Other stages make the same definition at the same time, and it is not served at once.
    eventually("the definition is served", async || {
        cluster.kubectl_with(&["apply", "-f", "-"], &objects).await
    })
    .await;
    stage
}

/// service.go `switchServiceSelector`: a strategic merge patch that adds the hash, and an annotation the first time.
async fn switch_selector(tool: &Tool<'_>, service: &str, hash: &str) {
    let patch = json!({
        "metadata": { "annotations": { "argo-rollouts.argoproj.io/managed-by-rollouts": ROLLOUT } },
        "spec": { "selector": { HASH: hash } },
    });
    tool.patch("service", service, "strategic", &patch).await;
}

/// The reconciler of trafficrouting/smi/smi.go.
struct Smi<'a> {
    tool: Tool<'a>,
    /// `--traffic-split-api-version`.
    version: &'static str,
    /// `rootService`, or the stable Service: then that is a backend of its own.
    root: &'static str,
    /// `metav1.NewControllerRef`.
    owner: Value,
}

impl Smi<'_> {
    fn collection(&self) -> String {
        let namespace = &self.tool.stage.namespace;
        format!("/apis/split.smi-spec.io/{}/namespaces/{namespace}/trafficsplits", self.version)
    }

    /// `trafficSplitV1Alpha1` to `…V1Alpha3`: canary first.
    fn spec(&self, canary: u64) -> Value {
        let weight = |weight: u64| match self.version {
            "v1alpha1" => json!(weight.to_string()),
            _ => json!(weight),
        };
        json!({
            "service": self.root,
            "backends": [
                { "service": CANARY, "weight": weight(canary) },
                { "service": STABLE, "weight": weight(100 - canary) },
            ],
        })
    }

    /// `SetWeight`: creates the split; later patches it (`patchtypes.MergePatchType`, which replaces lists whole) with
    /// what differs, and nothing if nothing does. It never touches one that is not its own.
    async fn set_weight(&self, canary: u64) {
        let spec = self.spec(canary);
        let Some(split) = self.tool.get(&format!("{}/{ROLLOUT}", self.collection())).await else {
            let metadata = json!({
                "name": ROLLOUT, "namespace": self.tool.stage.namespace, "ownerReferences": [self.owner],
            });
            let split = json!({
                "apiVersion": format!("split.smi-spec.io/{}", self.version), "kind": "TrafficSplit",
                "metadata": metadata, "spec": spec,
            });
            return self.tool.create(&self.collection(), &split).await;
        };
        assert_eq!(
            split["metadata"]["ownerReferences"],
            json!([self.owner]),
            "Rollout does not own TrafficSplit"
        );
        assert_eq!(split["spec"]["service"], spec["service"]);
        if split["spec"] != spec {
            let patch = json!({ "spec": { "backends": spec["backends"] } });
            let kind = format!("trafficsplits.{}.split.smi-spec.io", self.version);
            self.tool.patch(&kind, ROLLOUT, "merge", &patch).await;
        }
    }
}

/// A whole release. Returns when the Rollout is deleted and its split with it.
async fn release_by_split(cluster: &'static Cluster, version: &'static str, root: &'static str) {
    let stage = shop(cluster, &format!("argo-{version}"), root).await;
    let rollout = stage.object("rollouts.argoproj.io", ROLLOUT).await.expect("it is there");
    let owner = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": ROLLOUT,
        "uid": rollout["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    });
    let smi =
        Smi { tool: Tool::new(&stage, "argo-rollouts", roles::ARGO_ROLLOUTS).await, version, root, owner };

    // canary.go `rolloutCanary`: services first, then the traffic. Both Services begin at what runs.
    switch_selector(&smi.tool, STABLE, OLD).await;
    switch_selector(&smi.tool, CANARY, OLD).await;
    smi.set_weight(0).await;
    landed_split(&stage, ROLLOUT).await;
    stage.begin_load(RATE).await;
    switch_selector(&smi.tool, CANARY, NEW).await;
    stage.count(REQUESTS).await.expect(&format!("{version}: created"), "new", 0.0);
    for canary in STEPS {
        smi.set_weight(canary).await;
        landed_split(&stage, ROLLOUT).await;
        let step = format!("{version}, root {root}: {canary} to the canary");
        stage.count(REQUESTS).await.expect(&step, "new", canary as f64);
    }
    // Promoted: in one reconciliation the stable Service is given the new pods, and all the traffic.
    switch_selector(&smi.tool, STABLE, NEW).await;
    smi.set_weight(0).await;
    landed_split(&stage, ROLLOUT).await;
    eventually("the stable Service has the new pod", async || {
        let count = stage.count(50).await;
        holds(count.share("new") == 100.0, count)
    })
    .await;
    // Aborted and retried: the canary's selector goes back and forth while it has a share.
    smi.set_weight(50).await;
    for hash in [OLD, NEW, OLD, NEW] {
        switch_selector(&smi.tool, CANARY, hash).await;
    }
    smi.set_weight(0).await;
    landed_split(&stage, ROLLOUT).await;
    stage.count(50).await;

    cluster.kubectl(&["delete", "rollout", ROLLOUT, "-n", &stage.namespace]).await.expect("it is there");
    within(COLLECTED, "the split goes with its Rollout", async || {
        let split = stage.object("trafficsplits.split.smi-spec.io", ROLLOUT).await;
        holds(split.as_ref().is_err_and(|error| error.contains("NotFound")), split)
    })
    .await;
    stage.count(50).await;
    stage.assert_nothing_lost().await;
    stage.strike().await;
}

#[tokio::test]
async fn argo_rollouts_splits_land_and_move_the_traffic_also_where_the_root_is_its_own_backend() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    // Without `rootService` the stable Service is the root.
    tokio::join!(
        release_by_split(cluster, "v1alpha1", STABLE),
        release_by_split(cluster, "v1alpha3", ROLLOUT)
    );
}
