//! TrafficSplits of every version of SMI, converted by our webhook for a real API server: what tools write reads in each
//! version, moves traffic, and needs no control plane to go again.

use std::net::SocketAddr;

use futures_util::{Stream, StreamExt, TryStreamExt};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::client::{self, Protocol};
use crate::harness::eventually::{eventually, holds};
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::mesh::{Sidecar, SidecarOptions};
use crate::harness::relay::Relay;

mod away; // nobody converts

const VERSIONS: [&str; 4] = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];
const DEFINITION: &str = "trafficsplits.split.smi-spec.io";

/// A mesh whose control planes convert for the API server.
struct Conversion<'a> {
    mesh: KubeMesh<'a>,
    /// What the Service of the control plane leads to, at the port of the webhook.
    front: Relay,
}

impl<'a> Conversion<'a> {
    /// Before any control plane. There is no kube-proxy here, so the Service is a name of this host.
    async fn start(server: &'a ApiServer) -> Conversion<'a> {
        let mesh = KubeMesh::start(server).await;
        let conversion = Conversion { mesh, front: Relay::start(&[]).await };
        let namespace = &conversion.mesh.system.name;
        server
            .apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: gauze-control-plane, namespace: {namespace}}}\n\
                 spec: {{type: ExternalName, externalName: localhost}}\n"
            ))
            .await;
        // As the chart would, were it installed there.
        let service = json!({ "namespace": namespace, "port": conversion.front.address.port() });
        let patch =
            json!({ "spec": { "conversion": { "webhook": { "clientConfig": { "service": service } } } } });
        let patch =
            ["patch", "customresourcedefinition", DEFINITION, "--type=merge", "--patch", &patch.to_string()];
        server.kubectl(&patch).await.expect("the API server takes it");
        conversion
    }

    async fn replica(&self, pod: &str) -> Replica {
        let replica = self.mesh.replica(pod, &self.mesh.server.kubeconfig(), &[]).await;
        replica.ready().await;
        replica
    }

    fn converts(&self, replicas: &[&Replica]) {
        let addresses: Vec<SocketAddr> =
            replicas.iter().map(|replica| replica.process.address("webhook")).collect();
        self.front.point_to(&addresses);
    }

    fn splits(&self, version: &str) -> Api<DynamicObject> {
        splits(&self.mesh.client, self.mesh.shop(), version)
    }

    /// Waits until a version that is not stored can be written.
    async fn in_force(&self) {
        let probe = split("v1alpha1", "probe", &json!(["1"]), &json!({}));
        eventually("the API server has TrafficSplits converted", async || {
            let made = self.splits("v1alpha1").create(&PostParams::default(), &probe).await;
            made.map(drop).map_err(|error| error.to_string())
        })
        .await;
        self.delete("probe").await;
    }

    async fn delete(&self, name: &str) {
        self.splits("v1alpha4").delete(name, &DeleteParams::default()).await.expect("it is there");
    }

    /// The split of that name, in each version.
    async fn read(&self, name: &str) -> Vec<DynamicObject> {
        let mut read = Vec::new();
        for version in VERSIONS {
            read.push(
                self.splits(version).get(name).await.unwrap_or_else(|error| panic!("{version}: {error}")),
            );
        }
        read
    }

    async fn weights(&self, name: &str) -> Value {
        self.read(name).await.iter().map(weights).collect()
    }

    async fn apply_as(
        &self,
        version: &str,
        manager: &str,
        name: &str,
        weights: &Value,
    ) -> kube::Result<DynamicObject> {
        let split = split(version, name, weights, &json!({}));
        self.splits(version).patch(name, &PatchParams::apply(manager), &Patch::Apply(&split)).await
    }
}

fn splits(client: &kube::Client, namespace: &str, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("split.smi-spec.io", version, "TrafficSplit");
    let resource = ApiResource::from_gvk_with_plural(&kind, "trafficsplits");
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Of `cart`: among `cart-v1`, `cart-v2` and so on, with these fields of `metadata`.
fn split(version: &str, name: &str, weights: &Value, metadata: &Value) -> DynamicObject {
    let mut all = metadata.clone();
    all["name"] = name.into();
    let split = json!({
        "apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit", "metadata": all,
        "spec": { "service": "cart", "backends": backends(weights) },
    });
    serde_json::from_value(split).expect("an object")
}

fn backends(weights: &Value) -> Value {
    let weights = weights.as_array().expect("a list").iter().enumerate();
    weights
        .map(|(index, weight)| json!({ "service": format!("cart-v{}", index + 1), "weight": weight }))
        .collect()
}

fn weights(split: &DynamicObject) -> Value {
    let backends = split.data["spec"]["backends"].as_array().expect("a list").iter();
    backends.map(|backend| backend["weight"].clone()).collect()
}

/// Waits until this app gets all requests.
async fn answers(web: &Sidecar, app: &str) {
    eventually(&format!("every answer is of {app}"), async || {
        for _ in 0..8 {
            let answer = client::call(Protocol::Http1, web.outbound[0], "cart", "/echo", "first").await;
            let answer = answer.map_err(|error| error.to_string())?;
            holds(answer.app() == app, format!("{} {} {}", answer.status, answer.app(), answer.text()))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

#[tokio::test]
async fn splits_are_written_as_each_tool_does_read_in_every_version_and_move_traffic() {
    let Some(server) = ApiServer::start().await else { return };
    let conversion = Conversion::start(&server).await;
    let mesh = &conversion.mesh;
    let replica = conversion.replica("gauze-0").await;
    conversion.converts(&[&replica]);
    conversion.in_force().await;

    let none = SidecarOptions::default();
    let apps = [App::start("cart-v1").await, App::start("cart-v2").await];
    let one = mesh.pod("cart-v1-0", "cart-v1", Some(&apps[0]), none).await;
    let two = mesh.pod("cart-v2-0", "cart-v2", Some(&apps[1]), none).await;
    mesh.service("cart-v1", &[&one]).await;
    mesh.service("cart-v2", &[&two]).await;
    let cart = mesh.service("cart", &[&one, &two]).await;
    let web = mesh.pod("web-0", "web", None, SidecarOptions { dials: &[cart], ..none }).await;
    for pod in [&one, &two, &web] {
        pod.ready().await;
    }

    watched_in_every_version(&conversion).await;
    as_flagger_does(&conversion, &web).await;
    as_argo_rollouts_does(&conversion, &web).await;
    by_kubectl(&conversion, &web).await;
    what_an_older_version_lacks_survives(&conversion).await;
    what_means_nothing_is_refused(&conversion).await;
    assert!(replica.metric("conversions_total", "converted").await > 0.0);
    assert!(replica.metric("conversions_total", "failed").await > 0.0);
}

/// A client of each version is told of a split that another version wrote.
async fn watched_in_every_version(conversion: &Conversion<'_>) {
    let mut watches = Vec::new();
    for version in VERSIONS {
        let api = conversion.splits(version);
        let listed = api.list(&ListParams::default()).await.expect("it is served");
        let since = listed.metadata.resource_version.expect("the API server gives one");
        watches.push(api.watch(&WatchParams::default(), &since).await.expect("it is served").boxed());
    }
    let made = split("v1alpha2", "seen", &json!([3]), &json!({}));
    conversion.splits("v1alpha2").create(&PostParams::default(), &made).await.expect("it is taken");
    for (version, (watch, expected)) in
        VERSIONS.iter().zip(watches.iter_mut().zip([json!(["3"]), json!([3]), json!([3]), json!([3])]))
    {
        let seen = added(watch).await;
        let api_version = seen.types.as_ref().map(|types| types.api_version.clone());
        assert_eq!(api_version, Some(format!("split.smi-spec.io/{version}")));
        assert_eq!(weights(&seen), expected, "{version}");
    }
    conversion.delete("seen").await;
}

/// The next object that comes.
async fn added(
    watch: &mut (impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Unpin),
) -> DynamicObject {
    loop {
        match watch.try_next().await.expect("the watch lasts").expect("an event") {
            WatchEvent::Added(seen) => return seen,
            WatchEvent::Bookmark(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Flagger: creates at v1alpha1 with quantities as texts, reads, and updates the whole object.
async fn as_flagger_does(conversion: &Conversion<'_>, web: &Sidecar) {
    let api = conversion.splits("v1alpha1");
    let made = split("v1alpha1", "cart", &json!(["0", "100"]), &json!({}));
    let made = api.create(&PostParams::default(), &made).await.expect("it is taken");
    assert_eq!(weights(&made), json!(["0", "100"]));
    answers(web, "cart-v2").await;
    assert_eq!(conversion.weights("cart").await, json!([["0", "100"], [0, 100], [0, 100], [0, 100]]));
    let mut read = api.get("cart").await.expect("it is there");
    read.data["spec"]["backends"] = backends(&json!(["1e2", "0"]));
    let written = api.replace("cart", &PostParams::default(), &read).await.expect("it is taken");
    assert_eq!(weights(&written), json!(["1e2", "0"]));
    answers(web, "cart-v1").await;
    // A Go client of v1alpha2 leaves out what is 0.
    let api = conversion.splits("v1alpha2");
    let mut read = api.get("cart").await.expect("it is there");
    read.data["spec"]["backends"] =
        json!([{ "service": "cart-v1" }, { "service": "cart-v2", "weight": 100 }]);
    api.replace("cart", &PostParams::default(), &read).await.expect("it is taken");
    answers(web, "cart-v2").await;
    assert_eq!(conversion.weights("cart").await[0], json!(["0", "100"]));
}

/// Argo Rollouts: a JSON merge patch, which replaces the list.
async fn as_argo_rollouts_does(conversion: &Conversion<'_>, web: &Sidecar) {
    for (version, written, app) in
        [("v1alpha1", json!(["100", "0"]), "cart-v1"), ("v1alpha3", json!([0, 100]), "cart-v2")]
    {
        let patch = json!({ "spec": { "backends": backends(&written) } });
        let api = conversion.splits(version);
        let patched =
            api.patch("cart", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("it is taken");
        assert_eq!(weights(&patched), written);
        answers(web, app).await;
    }
    conversion.delete("cart").await;
}

/// `kubectl apply` of an old manifest, and server-side apply at several versions.
async fn by_kubectl(conversion: &Conversion<'_>, web: &Sidecar) {
    let server = conversion.mesh.server;
    let manifest = format!(
        "apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {{name: cart, namespace: {}}}\n\
         spec: {{service: cart, backends: [{{service: cart-v1, weight: 500m}}, {{service: cart-v2, weight: 0}}]}}\n",
        conversion.mesh.shop()
    );
    let said = server.kubectl_says(&manifest).await;
    assert_eq!(said, "trafficsplit.split.smi-spec.io/cart created\n", "no warning either");
    assert_eq!(server.kubectl_says(&manifest).await, "trafficsplit.split.smi-spec.io/cart unchanged\n");
    answers(web, "cart-v1").await;
    assert_eq!(conversion.weights("cart").await, json!([["500m", 0], [500, 0], [500, 0], [500, 0]]));
    conversion.delete("cart").await;

    conversion.apply_as("v1alpha1", "somebody", "cart", &json!(["0", "1"])).await.expect("it is taken");
    answers(web, "cart-v2").await;
    let conflict =
        conversion.apply_as("v1alpha4", "another", "cart", &json!([1, 0])).await.expect_err("a conflict");
    assert!(conflict.to_string().contains("conflict with \"somebody\""), "{conflict}");
    conversion.apply_as("v1alpha4", "another", "cart", &json!([0, 1])).await.expect("they agree");
    conversion.apply_as("v1alpha3", "third", "cart", &json!([0, 1])).await.expect("they agree");
    // Two versions of one object under the managers of three.
    let read = conversion.splits("v1alpha4").get("cart").await.expect("it is there");
    let managers = read.metadata.managed_fields.unwrap_or_default();
    let mut versions: Vec<String> = managers.into_iter().filter_map(|entry| entry.api_version).collect();
    versions.sort();
    assert_eq!(
        versions,
        ["v1alpha1", "v1alpha3", "v1alpha4"].map(|version| format!("split.smi-spec.io/{version}"))
    );
    conversion.delete("cart").await;
}

async fn what_an_older_version_lacks_survives(conversion: &Conversion<'_>) {
    let matches = json!([{ "apiGroup": "specs.smi-spec.io", "kind": "HTTPRouteGroup", "name": "by-header" }]);
    let mut made = split("v1alpha4", "matching", &json!([1, 2]), &json!({}));
    made.data["spec"]["matches"] = matches.clone();
    conversion.splits("v1alpha4").create(&PostParams::default(), &made).await.expect("it is taken");
    for (version, written) in [("v1alpha1", json!(["5", "6", "7"])), ("v1alpha2", json!([8]))] {
        let api = conversion.splits(version);
        let mut read = api.get("matching").await.expect("it is there");
        assert_eq!(read.data["spec"].get("matches"), None, "{version}");
        read.data["spec"]["backends"] = backends(&written);
        api.replace("matching", &PostParams::default(), &read).await.expect("it is taken");
        let patch = json!({ "metadata": { "annotations": { "touched-by": version } } });
        api.patch("matching", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("it is taken");
        let stored = conversion.splits("v1alpha4").get("matching").await.expect("it is there");
        assert_eq!(stored.data["spec"]["matches"], matches, "{version}");
        let annotations: Vec<(String, String)> =
            stored.metadata.annotations.unwrap_or_default().into_iter().collect();
        assert_eq!(annotations, [("touched-by".to_owned(), version.to_owned())]);
    }
    assert_eq!(conversion.weights("matching").await, json!([["8"], [8], [8], [8]]));
}

async fn what_means_nothing_is_refused(conversion: &Conversion<'_>) {
    let unreadable = json!({ "annotations": { "split.gauze.dev/matches": "[1]" } });
    let none = json!({});
    for (version, weight, metadata, expected) in [
        ("v1alpha1", json!("ten"), &none, "spec.backends[0].weight in body should match '^"),
        ("v1alpha1", json!("-1"), &none, "spec.backends[0].weight in body should match '^"),
        (
            "v1alpha1",
            json!(-1),
            &none,
            "spec.backends[0].weight in body should be greater than or equal to 0",
        ),
        ("v1alpha1", json!(0.5), &none, "spec.backends[0].weight in body must be of type integer,string"),
        ("v1alpha2", json!(-1), &none, "weight must be 0 or more; write for example 90"),
        (
            "v1alpha2",
            json!(0.5),
            &none,
            "weight must be a whole number; for finer shares write larger numbers, as 995 and 5",
        ),
        ("v1alpha3", json!("90"), &none, "spec.backends[0].weight in body must be of type number"),
        ("v1alpha4", json!(0.5), &none, "weight must be a whole number"),
        ("v1alpha1", json!("1"), &unreadable, "TrafficSplit"),
    ] {
        let bad = split(version, "bad", &json!([weight]), metadata);
        let refusal =
            conversion.splits(version).create(&PostParams::default(), &bad).await.expect_err("refused");
        let kube::Error::Api(status) = refusal else { panic!("{refusal}") };
        assert!(status.message.contains(expected), "{version} {weight}: {}", status.message);
        let (code, of_webhook) = (status.code, status.message.ends_with("remove the annotation (M2016)"));
        assert_eq!(
            (code, of_webhook),
            if metadata == &none { (422, false) } else { (500, true) },
            "{}",
            status.message
        );
    }
}
