//! Flagger's writes for a Deployment `podinfo`: pods of `podinfo` are the canary, those of `podinfo-primary` what runs.

mod gateway; // by HTTPRoute

use serde_json::{Value, json};

use super::live::landed_split;
use super::page;
use super::roles;
use super::stage::{App, Stage};
use super::tool::Tool;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;

const APEX: &str = "podinfo";
const PRIMARY: &str = "podinfo-primary";
const CANARY: &str = "podinfo-canary";

/// Enough for the share of one step to be told from that of the next.
const REQUESTS: u64 = 200;
/// Requests per second, all the time.
const RATE: u32 = 60;

/// The weights of the canary that an analysis goes through, and back to the primary when it is promoted.
const STEPS: [u64; 4] = [10, 50, 100, 0];

/// `podinfo` as Flagger leaves it before the mesh's router is asked: both sets of pods run, and three Services.
async fn podinfo(cluster: &'static Cluster, namespace: &str) -> Stage {
    let apps = [
        App { pod: "primary", labels: "app: podinfo-primary" },
        App { pod: "canary", labels: "app: podinfo" },
    ];
    let stage = Stage::set(cluster, namespace, APEX, &apps).await;
    let canary = format!(
        "---\napiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {{name: {APEX}, namespace: {namespace}}}\n"
    );
    let objects = roles::definition("flagger.app", "v1beta1", "Canary", "canaries") + &canary;
    // Other stages make the same definition at the same time, and it is not served at once.
    eventually("the definition is served", async || {
        cluster.kubectl_with(&["apply", "-f", "-"], &objects).await
    })
    .await;
    stage
}

/// Flagger in a namespace, at work on the Canary there.
struct Flagger<'a> {
    tool: Tool<'a>,
    /// As `metav1.NewControllerRef` writes it.
    owner: Value,
}

impl Flagger<'_> {
    async fn new(stage: &Stage) -> Flagger<'_> {
        let canary = stage.object("canaries.flagger.app", APEX).await.expect("it is there");
        let owner = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": APEX, "uid": canary["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        });
        Flagger { tool: Tool::new(stage, "flagger", roles::FLAGGER).await, owner }
    }

    fn namespace(&self) -> &str {
        &self.tool.stage.namespace
    }

    fn metadata(&self, name: &str) -> Value {
        json!({ "name": name, "namespace": self.namespace(), "ownerReferences": [self.owner] })
    }

    /// kubernetes_default.go `Initialize` and `Reconcile`: the apex leads to the primary, should the mesh be away.
    async fn create_services(&self) {
        let collection = format!("/api/v1/namespaces/{}/services", self.namespace());
        for (name, app) in [(PRIMARY, PRIMARY), (CANARY, APEX), (APEX, PRIMARY)] {
            let mut metadata = self.metadata(name);
            metadata["labels"] = json!({ "app": name });
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata,
                "spec": {
                    "type": "ClusterIP", "selector": { "app": app },
                    "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080 }],
                },
            });
            self.tool.create(&collection, &service).await;
        }
    }
}

/// factory.go: which router a provider gets, and which version of the API that router speaks.
const SMI: [(&str, &str); 3] =
    [("linkerd", "v1alpha1"), ("smi:v1alpha2:gauze", "v1alpha2"), ("smi:v1alpha3:gauze", "v1alpha3")];

/// The router of smi.go, smi_v1alpha2.go, smi_v1alpha3.go: they differ in how they write a weight.
struct SmiRouter<'a> {
    flagger: Flagger<'a>,
    version: &'static str,
}

impl SmiRouter<'_> {
    fn collection(&self) -> String {
        let namespace = self.flagger.namespace();
        format!("/apis/split.smi-spec.io/{}/namespaces/{namespace}/trafficsplits", self.version)
    }

    fn path(&self) -> String {
        format!("{}/{APEX}", self.collection())
    }

    /// v1alpha1: a quantity, which client-go writes as a string.
    fn weight(&self, weight: u64) -> Value {
        if self.version == "v1alpha1" { json!(weight.to_string()) } else { json!(weight) }
    }

    fn backends(&self, canary: u64) -> Value {
        json!([
            { "service": CANARY, "weight": self.weight(canary) },
            { "service": PRIMARY, "weight": self.weight(100 - canary) },
        ])
    }

    /// `Reconcile`, at every interval: creates the split, or takes it back to the start where it is not as it was
    /// written, but for the weights. It never should be.
    async fn reconcile(&self) {
        let Some(split) = self.flagger.tool.get(&self.path()).await else {
            let split = json!({
                "apiVersion": format!("split.smi-spec.io/{}", self.version), "kind": "TrafficSplit",
                "metadata": self.flagger.metadata(APEX),
                "spec": { "service": APEX, "backends": self.backends(0) },
            });
            return self.flagger.tool.create(&self.collection(), &split).await;
        };
        let read = split["spec"]["backends"].as_array().expect("a list").iter();
        let services: Vec<&Value> = read.map(|backend| &backend["service"]).collect();
        assert_eq!(
            (&split["spec"]["service"], services),
            (&json!(APEX), vec![&json!(CANARY), &json!(PRIMARY)])
        );
        assert_eq!(split["metadata"]["ownerReferences"], json!([self.flagger.owner]));
    }

    /// `GetRoutes`: the weights of primary and canary. Flagger gives up if both are 0, or if it cannot decode one.
    async fn routes(&self) -> (u64, u64) {
        let split = self.flagger.tool.get(&self.path()).await.expect("it was created");
        let weight_of = |service: &str| {
            let mut backends = split["spec"]["backends"].as_array().expect("a list").iter();
            let weight =
                &backends.find(|backend| backend["service"] == service).expect("it is there")["weight"];
            match self.version {
                "v1alpha1" => weight.as_str().and_then(|quantity| quantity.parse().ok()),
                _ => weight.as_u64(),
            }
            .unwrap_or_else(|| panic!("{}: Flagger cannot decode {weight}", self.version))
        };
        (weight_of(PRIMARY), weight_of(CANARY))
    }

    /// `SetRoutes`: an update of what was just read; after a conflict Flagger tries again at its next interval.
    async fn set_routes(&self, canary: u64) {
        eventually("the weights are written", async || {
            let mut split = self.flagger.tool.get(&self.path()).await.expect("it was created");
            split["spec"]["backends"] = self.backends(canary);
            self.flagger.tool.update(&self.path(), &split).await
        })
        .await;
    }
}

/// A whole release by one provider.
async fn release_by_split(cluster: &'static Cluster, provider: &str, version: &'static str) {
    let stage = podinfo(cluster, &format!("flagger-{version}")).await;
    let router = SmiRouter { flagger: Flagger::new(&stage).await, version };
    router.flagger.create_services().await;
    router.reconcile().await;
    landed_split(&stage, APEX).await;
    stage.begin_load(RATE).await;
    stage.count(REQUESTS).await.expect(&format!("{provider}: created"), "canary", 0.0);
    for canary in STEPS {
        router.set_routes(canary).await;
        assert_eq!(router.routes().await, (100 - canary, canary), "{provider}");
        router.reconcile().await;
        landed_split(&stage, APEX).await;
        let step = format!("{provider}: {canary} to the canary");
        stage.count(REQUESTS).await.expect(&step, "canary", canary as f64);
    }
    stage.assert_nothing_lost().await;
    // What its analysis would ask Prometheus for.
    let metrics = cluster.get(&stage.namespace, "load", 15020, "/metrics").await.expect("open to all");
    for (metric, label) in page::series(&stage.namespace, APEX) {
        let is_there = metrics.lines().any(|line| line.starts_with(&metric) && line.contains(&label));
        assert!(is_there, "no {metric} with {label}: {metrics}");
    }
    stage.strike().await;
}

#[tokio::test]
async fn flaggers_splits_of_every_version_that_it_speaks_land_step_by_step_and_move_the_traffic() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    let [linkerd, second, third] =
        SMI.map(|(provider, version)| release_by_split(cluster, provider, version));
    tokio::join!(linkerd, second, third);
}
