//! A mesh that is well: one replica, a namespace that asks for injection, a pod with a sidecar. Tests break one thing.

use serde_json::json;

use super::*;
use crate::cluster::CONTROL_PLANE;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const ROOTS: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
/// `ROOTS` as an API server returns a `caBundle`.
const ROOTS_BASE64: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
const REPLICA: &str = "gauze-control-plane-6f9c-x2v1p";

/// A Kubernetes object from its JSON.
pub(crate) fn object<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).expect("the test's object")
}

/// A running pod, `NAMESPACE/NAME`, of the Deployment `web`.
pub(crate) fn pod(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
    json!({
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": { "app": "web", "pod-template-hash": "5d9c" },
            "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c", "uid": "1", "controller": true },
            ],
        },
        "spec": { "containers": [{ "name": "app" }] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// The same with a sidecar of that release.
pub(crate) fn injected(name: &str, version: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["annotations"] =
        json!({ "gauze.dev/injected": format!("namespace-label: the namespace asks, by gauze {version}") });
    pod["spec"]["initContainers"] = json!([{
        "name": "gauze-proxy",
        "restartPolicy": "Always",
        "args": ["--control-plane=gauze-control-plane.gauze-system.svc:15012"],
    }]);
    pod
}

pub(crate) fn namespace(name: &str, labels: Value) -> Namespace {
    object(json!({ "metadata": { "name": name, "labels": labels } }))
}

pub(crate) fn definition(name: &str, version: &str) -> (String, CustomResourceDefinition) {
    let definition = json!({
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "gauze", "app.kubernetes.io/version": VERSION } },
        "spec": {
            "group": "g", "scope": "Namespaced", "names": { "kind": "K", "plural": "ks" },
            "versions": [{ "name": version, "served": true, "storage": true }],
        },
    });
    (name.to_owned(), object(definition))
}

pub(crate) fn replicas(wished: u64, ready: u64) -> Replicas {
    let deployment = json!({
        "metadata": { "name": CONTROL_PLANE, "labels": { "app.kubernetes.io/version": VERSION } },
        "spec": { "replicas": wished, "selector": {}, "template": {} },
        "status": { "readyReplicas": ready },
    });
    let mut replica = pod(&format!("gauze-system/{REPLICA}"));
    replica["status"]["conditions"][0]["status"] = json!(if ready > 0 { "True" } else { "False" });
    Replicas { deployment: object(deployment), pods: vec![object(replica)], leader: Some(REPLICA.to_owned()) }
}

pub(crate) fn proxy(name: &str, connected: bool, state: &str) -> Value {
    let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
    let resources = json!([{ "name": "routes/shop/cart/80", "state": state }]);
    json!({ "namespace": namespace, "pod": name, "connected": connected, "resources": resources })
}

pub(crate) fn answer(proxies: Vec<Value>) -> Answer {
    let about = json!({
        "version": VERSION,
        "certificates": { "rootEnds": NOW + 3600 * DAY, "ownEnds": NOW + 20 * HOUR, "life": DAY },
    });
    Answer { about, proxies: json!({ "proxies": proxies }), problems: Vec::new() }
}

pub(crate) fn webhook(ca_bundle: &str, failure_policy: &str) -> MutatingWebhookConfiguration {
    object(json!({ "metadata": { "name": "gauze-injector" }, "webhooks": [{
        "name": "pod.injector.gauze.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "NoneOnDryRun",
        "failurePolicy": failure_policy,
        "clientConfig": { "caBundle": ca_bundle },
        "namespaceSelector": { "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "legacy"] },
        ] },
    }] }))
}

pub(crate) fn well() -> Facts {
    Facts {
        now: NOW,
        kubernetes: "v1.36.4".to_owned(),
        answered: Duration::from_millis(41),
        system_namespace: "gauze-system".to_owned(),
        permissions: Vec::new(),
        definitions: Ok(BTreeMap::from([
            definition("trafficsplits.split.smi-spec.io", "v1alpha4"),
            definition("trafficpolicies.gauze.dev", "v1alpha1"),
            definition("authorizationpolicies.gauze.dev", "v1alpha1"),
            definition("httproutes.gateway.networking.k8s.io", "v1"),
            definition("grpcroutes.gateway.networking.k8s.io", "v1"),
        ])),
        cilium: Ok(None),
        namespaces: Ok(vec![namespace("shop", json!({ "gauze.dev/inject": "enabled" }))]),
        pods: Ok(vec![object(injected("shop/web-0", VERSION))]),
        control_plane: Ok(Some(replicas(1, 1))),
        answers: vec![(REPLICA.to_owned(), Ok(answer(vec![proxy("shop/web-0", true, "current")])))],
        webhook: Ok(Some(webhook(ROOTS_BASE64, "Fail"))),
        trust: BTreeMap::from([("shop".to_owned(), Ok(Some(ROOTS.to_owned())))]),
    }
}
