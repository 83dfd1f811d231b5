//! The command line against a real API server: what it finds in a cluster, and what it says when it may not look.
//! What needs a running control plane is proved in `tests/cluster/cli.rs`.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::apiserver::{ApiServer, NODE};
use crate::harness::eventually;
use crate::harness::eventually::holds;
use crate::harness::programs::program;

/// Runs `gauze` in an empty folder: no demo is there that it could look at.
async fn gauze(kubeconfig: &Path, arguments: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = tokio::process::Command::new(program("gauze"));
    command.args(arguments.split_whitespace()).current_dir(folder.path());
    command.env("HOME", folder.path()).env("KUBECONFIG", kubeconfig);
    command.output().await.expect("gauze runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The lines of `gauze check -o json`: severity, code and words of each.
fn lines(output: &Output) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = report["lines"].as_array().expect("lines").iter();
    lines
        .map(|line| {
            let details = line["details"].as_array().expect("details").iter().map(text).collect::<Vec<_>>();
            let words = format!("{} {}", text(&line["what"]), details.join(" "));
            (text(&line["severity"]), text(&line["code"]), words)
        })
        .collect()
}

/// The codes that a check reports.
fn codes(output: &Output) -> Vec<String> {
    let mut codes: Vec<String> =
        lines(output).into_iter().map(|(_, code, _)| code).filter(|code| !code.is_empty()).collect();
    codes.sort();
    codes
}

#[tokio::test]
async fn an_empty_cluster_can_carry_the_mesh_and_has_none_yet() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("empty").await;
    let system = format!("--system-namespace {0} -n {0}", namespace.name);
    let before = gauze(&server.kubeconfig(), &format!("check --pre {system}")).await;
    assert_eq!(before.status.code(), Some(0), "{}", said(&before));
    for wanted in ["✔ Kubernetes 1.", "you may create what the chart creates", "yet", "everything is fine"]
    {
        assert!(said(&before).contains(wanted), "no `{wanted}` in {}", said(&before));
    }
    let after = gauze(&server.kubeconfig(), &format!("check -o json {system}")).await;
    assert_eq!((after.status.code(), codes(&after)), (Some(1), vec!["M1305".to_owned()]), "{}", said(&after));
    for command in ["status", "get", "explain shop/web GET http://cart/"] {
        let refused = gauze(&server.kubeconfig(), &format!("{command} {system}")).await;
        assert_eq!(refused.status.code(), Some(3), "{command}: {}", said(&refused));
        assert!(
            said(&refused).contains("helm install gauze charts/gauze -n"),
            "{command}: {}",
            said(&refused)
        );
    }
    let version = gauze(&server.kubeconfig(), &format!("version {system}")).await;
    assert_eq!(version.status.code(), Some(0));
    assert!(said(&version).contains("gauze is not installed"), "{}", said(&version));
}

#[tokio::test]
async fn who_may_not_look_is_told_what_is_missing() {
    let Some(server) = ApiServer::shared().await else { return };
    let guard = server.namespace("nobody").await;
    let namespace = &guard.name;
    let account = ["get", "serviceaccount", "default", "--namespace", namespace];
    eventually("the ServiceAccount", async || server.kubectl(&account).await).await;
    let kubeconfig = server.kubeconfig_for(namespace, "default").await;
    let refused = gauze(&kubeconfig, &format!("get --system-namespace {namespace}")).await;
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    for wanted in ["you may not read the Deployment gauze-control-plane", "gauze check --pre"] {
        assert!(said(&refused).contains(wanted), "{}", said(&refused));
    }
    let checked = gauze(&kubeconfig, &format!("check -o json --system-namespace {namespace}")).await;
    assert_eq!(
        (checked.status.code(), codes(&checked)),
        (Some(0), vec!["M1302".to_owned()]),
        "{}",
        said(&checked)
    );
    let before = gauze(&kubeconfig, &format!("check --pre --system-namespace {namespace}")).await;
    assert_eq!(before.status.code(), Some(1), "{}", said(&before));
    assert!(said(&before).contains("create customresourcedefinitions"), "{}", said(&before));
}

#[tokio::test]
async fn nobody_there_and_nobody_known_are_one_sentence_each() {
    let Some(server) = ApiServer::shared().await else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = std::fs::read_to_string(server.kubeconfig()).expect("a kubeconfig");
    let port = config.split("https://").nth(1).and_then(|rest| rest.split(['\n', '"', ' ']).next());
    let dead = folder.path().join("dead");
    std::fs::write(&dead, config.replace(port.expect("its address"), "127.0.0.1:1")).expect("it is written");
    let unreachable = gauze(&dead, "get").await;
    assert_eq!(unreachable.status.code(), Some(3), "{}", said(&unreachable));
    assert!(
        said(&unreachable).contains("does not answer") && said(&unreachable).contains("kubectl cluster-info")
    );
    assert_eq!(said(&unreachable).lines().count(), 1, "{}", said(&unreachable));
    let context = gauze(&server.kubeconfig(), "get --context nowhere").await;
    assert_eq!(context.status.code(), Some(3));
    assert!(said(&context).contains("has no context nowhere; its contexts are"), "{}", said(&context));
}

/// A control plane that is ready as far as the API server knows, and an account that may see it and run nothing in it.
fn ready_on_paper(namespace: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: gauze-control-plane, namespace: {namespace}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: gauze}}}}
  template:
    metadata: {{labels: {{app: gauze}}}}
    spec: {{containers: [{{name: control-plane, image: gauze.test/none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: control-plane-0, namespace: {namespace}, labels: {{app: gauze}}}}
spec: {{nodeName: {NODE}, containers: [{{name: control-plane, image: gauze.test/none}}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: looks, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}
subjects: [{{kind: ServiceAccount, name: default, namespace: {namespace}}}]
"#
    )
}

#[tokio::test]
async fn a_control_plane_that_cannot_be_asked_says_whether_it_is_a_right_or_the_way() {
    let Some(server) = ApiServer::shared().await else { return };
    let guard = server.namespace("paper").await;
    let namespace = &guard.name;
    server.apply(&ready_on_paper(namespace)).await;
    let ready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    let patch = [
        "patch",
        "pod",
        "control-plane-0",
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        ready,
    ];
    server.kubectl(&patch).await.expect("it is there");
    let account = ["get", "serviceaccount", "default", "--namespace", namespace];
    eventually("the ServiceAccount", async || server.kubectl(&account).await).await;
    let viewer = server.kubeconfig_for(namespace, "default").await;
    let get = format!("get --system-namespace {namespace}");
    let refused = eventually("its rights are known", async || {
        let refused = gauze(&viewer, &get).await;
        holds(!said(&refused).contains("read the Deployment"), said(&refused))?;
        Ok::<_, String>(refused)
    })
    .await;
    assert_eq!(refused.status.code(), Some(3));
    let wanted = format!("you may not run a program in pods of namespace {namespace} (create pods/exec)");
    assert!(said(&refused).contains(&wanted), "{}", said(&refused));
    // Nothing runs on the node: an administrator gets as far as its kubelet.
    let lost = gauze(&server.kubeconfig(), &get).await;
    assert_eq!(lost.status.code(), Some(3));
    assert!(said(&lost).contains("cannot run a program in pods"), "{}", said(&lost));
    assert_eq!(said(&lost).lines().count(), 1, "{}", said(&lost));
    let checked =
        gauze(&server.kubeconfig(), &format!("check -o json -n {namespace} --system-namespace {namespace}"))
            .await;
    assert!(codes(&checked).contains(&"M1315".to_owned()), "{}", said(&checked));
}

/// A system namespace whose control plane never gets ready, a namespace that forbids what it asks for, a pod without its
/// sidecar, a webhook that nobody trusts.
const BROKEN: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: gauze-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: gauze-control-plane, namespace: gauze-system, labels: {app.kubernetes.io/version: 0.0.9}}
spec:
  replicas: 1
  selector: {matchLabels: {app: gauze}}
  template:
    metadata: {labels: {app: gauze}}
    spec: {containers: [{name: control-plane, image: gauze.test/none}]}
---
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {gauze.dev/inject: enabled, pod-security.kubernetes.io/enforce: baseline}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {kube-proxy-replacement: "true"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: gauze-injector}
webhooks:
- name: pod.injector.gauze.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {service: {name: gauze-control-plane, namespace: gauze-system}}
  rules: []
"#;

#[tokio::test]
async fn everything_that_is_broken_is_found_by_its_code() {
    let Some(server) = ApiServer::start().await else { return };
    server.apply(BROKEN).await;
    let account = ["get", "serviceaccount", "default", "--namespace", "shop"];
    eventually("the ServiceAccount", async || server.kubectl(&account).await).await;
    for (name, label) in [("web", "{}"), ("old", "{gauze.dev/inject: disabled}")] {
        server
            .apply(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {label}}}, \
                 spec: {{nodeName: {NODE}, containers: [{{name: app, image: gauze.test/none}}]}}}}"
            ))
            .await;
    }
    let expected = [
        "M1306", // no replica is ready
        "M1311", // the caBundle of the injector is empty
        "M1311", // that of who converts TrafficSplits too
        "M1312", // its failures are ignored
        "M1313", // no roots in the namespace
        "M1314", // Cilium
        "M2101", // a pod without sidecar
        "M2104", // pod security
    ];
    let checked = eventually("all is found", async || {
        let checked = gauze(&server.kubeconfig(), "check -o json").await;
        holds(codes(&checked) == expected, format!("{:?}", codes(&checked)))?;
        Ok::<_, String>(checked)
    })
    .await;
    assert_eq!(checked.status.code(), Some(1));
    let lines = lines(&checked);
    let line = |code: &str| lines.iter().find(|line| line.1 == code).expect(code).2.clone();
    assert!(line("M2101").contains("shop/web") && !line("M2101").contains("shop/old"), "{}", line("M2101"));
    assert!(line("M2104").contains("shop enforces baseline"), "{}", line("M2104"));
    assert!(lines.iter().any(|(severity, _, words)| severity == "note" && words.contains("1 pod opted out")));
    let page = gauze(&server.kubeconfig(), "check").await;
    assert!(said(&page).contains("fix:  kubectl label namespace shop pod-security"), "{}", said(&page));

    server.kubectl(&["delete", "mutatingwebhookconfiguration", "gauze-injector"]).await.expect("it is there");
    let without = gauze(&server.kubeconfig(), "check -o json").await;
    assert!(codes(&without).contains(&"M1310".to_owned()), "{:?}", codes(&without));
    let unready = gauze(&server.kubeconfig(), "get").await;
    assert_eq!(unready.status.code(), Some(3));
    assert!(said(&unready).contains("no replica of the control plane is ready"), "{}", said(&unready));
}

/// A split of 90 and 10, with `metadata` beside its name.
fn split(namespace: &str, metadata: &str) -> String {
    format!(
        "{{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {{name: cart, namespace: {namespace}{metadata}}}, \
         spec: {{service: cart, backends: [{{service: cart-v1, weight: 90}}, {{service: cart-v2, weight: 10}}]}}}}"
    )
}

/// Writes conditions into the split's status, as the leader does: of the version that stands there, less `behind`.
async fn stands(server: &ApiServer, namespace: &str, behind: i64, status: &str, reason: &str, message: &str) {
    let read = ["get", "trafficsplit", "cart", "-n", namespace, "-o", "jsonpath={.metadata.generation}"];
    let generation: i64 = server.kubectl(&read).await.expect("it is there").parse().expect("a number");
    let condition = |name: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": name, "status": status, "reason": reason, "message": message,
            "observedGeneration": generation - behind, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let conditions = [
        condition("Accepted", "True", "Accepted", "accepted"),
        condition("Programmed", status, reason, message),
    ];
    let patch = json!({ "status": { "conditions": conditions } }).to_string();
    let patch = [
        "patch",
        "trafficsplit",
        "cart",
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    server.kubectl(&patch).await.expect("it may be written");
}

#[tokio::test]
async fn weights_are_written_into_the_cluster_and_what_was_and_what_is_is_said() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("splits").await;
    let name = &namespace.name;
    server.apply(&split(name, "")).await;
    let run = async |arguments: &str, code: i32, wanted: &[&str]| {
        let output = gauze(&server.kubeconfig(), arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        for wanted in wanted {
            assert!(said.contains(wanted), "{arguments}: no `{wanted}` in {said}");
        }
    };
    let list = format!("split list -n {name}");
    let set = |rest: &str| format!("split set {name}/cart {rest}");
    run(&list, 0, &["cart-v1=90 cart-v2=10"]).await;
    run(&set("v1=50 cart-v2=50"), 0, &["cart: cart-v1=90 cart-v2=10 -> cart-v1=50 cart-v2=50"]).await;
    run(&set("v1=50"), 0, &["cart: cart-v1=50 cart-v2=50, as before"]).await;
    run(&set("v2=0 --dry-run"), 0, &["-> cart-v1=50 cart-v2=0; nothing is written"]).await;
    run(&set("v3=1"), 2, &["has no backend v3; it has cart-v1, cart-v2"]).await;
    run(&format!("split set {name}/carrot v1=1"), 2, &["no TrafficSplit carrot", "there is: cart"]).await;
    run(&list, 0, &["cart-v1=50 cart-v2=50"]).await;
    run(&set("v1=0 v2=0"), 0, &["all weights are 0", "M5105"]).await;

    // Each of two who change it at once has their way, whoever comes first.
    let (one, other) = (set("v1=70"), set("v2=30"));
    tokio::join!(run(&one, 0, &["cart-v1=70"]), run(&other, 0, &["cart-v2=30"]));
    run(&list, 0, &["cart-v1=70 cart-v2=30"]).await;
}

#[tokio::test]
async fn a_split_that_another_writes_or_a_route_overrides_is_written_by_force_only() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("owned").await;
    let name = &namespace.name;
    server.kubectl(&["create", "configmap", "canary", "-n", name]).await.expect("it is made");
    let uid = ["get", "configmap", "canary", "-n", name, "-o", "jsonpath={.metadata.uid}"];
    let uid = server.kubectl(&uid).await.expect("it is there");
    let owner = format!(
        ", ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: canary, uid: {uid}, controller: true}}]"
    );
    server.apply(&split(name, &owner)).await;
    let set = async |rest: &str| gauze(&server.kubeconfig(), &format!("split set {name}/cart {rest}")).await;
    let refused = set("v1=50").await;
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("ConfigMap canary (v1) owns the split"), "{}", said(&refused));
    let forced = set("v1=50 --force").await;
    assert_eq!(forced.status.code(), Some(0), "{}", said(&forced));
    assert!(said(&forced).contains("-> cart-v1=50 cart-v2=10"), "{}", said(&forced));

    let nobody = r#"{"metadata": {"ownerReferences": null}}"#;
    server
        .kubectl(&["patch", "trafficsplit", "cart", "-n", name, "--type=merge", "-p", nobody])
        .await
        .expect("it is there");
    stands(server, name, 0, "False", "Overridden", "an HTTPRoute decides at port 80").await;
    let refused = set("v1=60").await;
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("have no effect: an HTTPRoute decides at port 80"), "{}", said(&refused));
    assert_eq!(set("v1=60 --force").await.status.code(), Some(0));
}

#[tokio::test]
async fn who_waits_for_weights_waits_until_the_status_says_that_all_hold_this_version() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("waits").await;
    let name = &namespace.name;
    server.apply(&split(name, "")).await;
    // No control plane runs here that could be asked: the status tells.
    let set = async |rest: &str| {
        let line = format!("split set {name}/cart {rest} --wait --system-namespace {name}");
        gauze(&server.kubeconfig(), &line).await
    };
    stands(server, name, 0, "True", "Programmed", "3/3").await;
    let late = set("v1=50 --timeout 1").await;
    assert_eq!(late.status.code(), Some(4), "an earlier version is live: {}", said(&late));
    assert!(said(&late).contains("has not seen it yet"), "{}", said(&late));

    let leader = async || {
        let read = ["get", "trafficsplit", "cart", "-n", name, "-o", "jsonpath={.spec.backends[0].weight}"];
        eventually("the weight is written", async || {
            let weight = server.kubectl(&read).await?;
            holds(weight == "40", weight)
        })
        .await;
        stands(server, name, 0, "False", "Reconciling", "1/3").await;
        stands(server, name, 0, "True", "Programmed", "3/3").await;
    };
    let (waited, ()) = tokio::join!(set("v1=40"), leader());
    assert_eq!(waited.status.code(), Some(0), "{}", said(&waited));
    assert!(
        said(&waited).contains("waiting for the status") && said(&waited).contains("live, 3/3"),
        "{}",
        said(&waited)
    );

    let listed = gauze(&server.kubeconfig(), &format!("split list -n {name}")).await;
    assert!(said(&listed).contains("PROGRAMMED") && said(&listed).contains("3/3"), "{}", said(&listed));
}
