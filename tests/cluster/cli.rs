//! The command line against the mesh as it is installed: the same answers as beside a demo, asked through the API
//! server by programs in the pods.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::harness::eventually::holds;

/// The namespace of these tests.
const NAMESPACE: &str = "tour";

/// The demo's shop in a namespace of its own, without load.
async fn shop(cluster: &Cluster) {
    let read = |name: &str| {
        let page = std::fs::read_to_string(crate::harness::programs::repository().join("docs").join(name));
        page.expect("it is there").replace("namespace: shop", &format!("namespace: {NAMESPACE}"))
    };
    let shop = read("shop.yaml").replace("  name: shop\n", &format!("  name: {NAMESPACE}\n"));
    cluster.apply(&shop.replace("image: gauze:0.1.0", "image: gauze.test/gauze:dev")).await;
    cluster.apply(&read("split.yaml")).await;
    let rollout = ["rollout", "status", "--timeout=120s", "-n", NAMESPACE];
    for deployment in ["web", "cart-v1", "cart-v2", "payments", "load"] {
        let ready = cluster.kubectl(&[&rollout[..], &[&format!("deployment/{deployment}")]].concat()).await;
        ready.unwrap_or_else(|error| panic!("{deployment}: {error}"));
    }
}

/// What `gauze` printed, which must end with exit code 0.
async fn gauze(cluster: &Cluster, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    cluster.gauze(&arguments).await.unwrap_or_else(|error| panic!("gauze {arguments:?}: {error}"))
}

async fn json(cluster: &Cluster, arguments: &str) -> Value {
    let said = gauze(cluster, &format!("{arguments} -o json")).await;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("gauze {arguments}: {error}: {said}"))
}

fn contains(said: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(said.contains(wanted), "no `{wanted}` in\n{said}");
    }
}

#[tokio::test]
async fn the_mesh_is_checked_shown_and_explained_through_the_api_server() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    shop(cluster).await;
    let checked = eventually("all sidecars are connected", async || {
        let said = cluster.gauze(&["check", "-n", NAMESPACE]).await?;
        holds(said.contains("5/5 sidecars connected, 5 up to date"), &said)?;
        Ok::<_, String>(said)
    })
    .await;
    contains(&checked, &["leader gauze-control-plane-", "as this command", "trusted by the API server"]);
    contains(&checked, &["the root certificate ends in", "with the roots of the mesh", "everything is fine"]);
    contains(&gauze(cluster, "status").await, &["replicas ready, leader", "refusals       none"]);
    contains(&gauze(cluster, "version").await, &["gauze 0.", "control plane 0."]);

    // Somebody uses it once the load's first call has passed.
    let programmed = eventually("the split is live in web", async || {
        let said = cluster.gauze(&["get", "split", "-n", NAMESPACE]).await?;
        holds(said.contains("1/1"), &said)?;
        Ok::<_, String>(said)
    })
    .await;
    contains(&programmed, &["PROGRAMMED", "TrafficSplit  tour       cart  True      True      1/1"]);
    let explained = gauze(cluster, &format!("explain {NAMESPACE}/web GET http://cart/items")).await;
    contains(
        &explained,
        &["cart-v1 90 % · cart-v2 10 %", "spiffe://cluster.local/ns/tour/sa/cart", "→ carried"],
    );

    let set = format!("split set {NAMESPACE}/cart v1=50 v2=50 --wait");
    contains(
        &gauze(cluster, &set).await,
        &["cart-v1=90 cart-v2=10 -> cart-v1=50 cart-v2=50", "tour/cart: live, 1/1"],
    );
    let explained = gauze(cluster, &format!("explain {NAMESPACE}/web GET http://cart/items")).await;
    contains(&explained, &["cart-v1 50 % · cart-v2 50 %"]);

    let clusters = json(cluster, &format!("proxy clusters {NAMESPACE}/web")).await;
    let endpoint = &clusters["cluster/tour/cart-v1/80"]["endpoints"][0];
    assert_eq!(endpoint["transport"]["mesh"], "spiffe://cluster.local/ns/tour/sa/cart", "{clusters}");
    contains(
        &gauze(cluster, &format!("proxy config web -n {NAMESPACE}")).await,
        &["routes/tour/cart/80", "Service/tour/cart", "held"],
    );
    contains(&gauze(cluster, &format!("proxy log web -n {NAMESPACE} --level debug")).await, &[": debug"]);
    contains(
        &gauze(cluster, &format!("proxy log web -n {NAMESPACE} --lines 200")).await,
        &["configuration stream"],
    );
    let several = cluster.gauze(&["proxy", "config", "cart", "-n", NAMESPACE]).await.expect_err("two pods");
    contains(&several, &["cart has several pods", "cart-v1-", "cart-v2-"]);
}

/// A pod that was there before its namespace asked, and one that does not want to.
const LATE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: late}
---
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: late}
spec: {containers: [{name: app, image: 'gauze.test/pause:dev'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: declines, namespace: late, labels: {gauze.dev/inject: disabled}}
spec: {containers: [{name: app, image: 'gauze.test/pause:dev'}]}
";

#[tokio::test]
async fn pods_without_the_sidecar_that_they_should_have_are_found_and_explained() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    cluster.apply(LATE).await;
    cluster.kubectl(&["label", "namespace", "late", "gauze.dev/inject=enabled"]).await.expect("it is there");
    let found = cluster.gauze(&["check", "-n", "late"]).await.expect_err("a pod has no sidecar");
    contains(
        &found,
        &["M2101  1 pod should have a sidecar", "late/early", "1 pod opted out", "gauze docs M2101"],
    );
    let explained = gauze(cluster, "inject --explain late/early").await;
    contains(&explained, &["yes       namespace-label", "it has none: it is older than the rule"]);
    let explained = gauze(cluster, "inject --explain late/declines").await;
    contains(&explained, &["no        pod-label", "it has none"]);
}
