use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::translate::is_meshed;

/// A pod as an API server sends it: long.
fn pod() -> Value {
    let long = "x".repeat(2_000);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "u", "resourceVersion": "17", "labels": {"app": "web"},
            "annotations": {"gauze.dev/mtls": "strict", "kubectl.kubernetes.io/last-applied-configuration": long},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:podIP": {}}}, "operation": "Update"}],
        },
        "spec": {
            "serviceAccountName": "web", "nodeName": "node1", "tolerations": [{"key": long}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [
                {"name": "gauze-redirect", "image": "x", "args": ["redirect"]},
                {"name": "gauze-proxy", "image": "x", "args": ["--skip-inbound-ports=25"], "restartPolicy": "Always", "env": [{"name": "A", "value": long}]},
            ],
            "containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080}], "env": [{"name": "A", "value": long}]}],
        },
        "status": {"phase": "Running", "podIP": "10.1.0.4", "podIPs": [{"ip": "10.1.0.4"}], "containerStatuses": [{"name": "app", "imageID": long}]},
    })
}

fn pod_of(read: &Read) -> &Pod {
    match &read.item {
        Some(Item::Object(Object::Pod(pod))) => pod,
        other => panic!("no pod: {other:?}"),
    }
}

#[test]
fn of_a_pod_only_what_is_used_is_kept() {
    let read = read(Watched::Object(ObjectKind::Pod), pod());
    let pod = pod_of(&read);
    assert!(is_meshed(pod));
    let kept = serde_json::to_value(pod).unwrap();
    let expected = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u", "labels": {"app": "web"}, "annotations": {"gauze.dev/mtls": "strict"}},
        "spec": {
            "serviceAccountName": "web", "nodeName": "node1",
            "initContainers": [{"name": "gauze-proxy", "image": "x", "args": ["--skip-inbound-ports=25"], "restartPolicy": "Always"}],
            "containers": [{"name": "app", "ports": [{"containerPort": 8080}]}],
        },
        "status": {"phase": "Running", "podIP": "10.1.0.4", "podIPs": [{"ip": "10.1.0.4"}]},
    });
    assert_eq!(kept, expected);
    assert!(expected.to_string().len() < 500, "{}", expected.to_string().len());
}

/// What holds a pod in memory: the fields of Kubernetes' own type weigh more than what stands in them.
#[test]
fn a_pod_takes_few_bytes() {
    let containers = 2 * size_of::<k8s_openapi::api::core::v1::Container>();
    let bytes = size_of::<Pod>() + containers + 500;
    println!("about {bytes} bytes a pod");
    assert!(bytes < 8 * 1024, "{bytes}");
}

#[test]
fn what_cannot_be_read_names_object_and_field() {
    for (what, watched, given, expected) in [
        (
            "a split with a wrong type",
            Watched::Object(ObjectKind::TrafficSplit),
            json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"service": 7, "backends": []}}),
            "TrafficSplit/shop/cart spec.service: invalid type: integer `7`, expected a string (M1003)",
        ),
        (
            "a route of another version",
            Watched::Object(ObjectKind::HttpRoute),
            json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"rules": [{"matches": "all"}]}}),
            "HTTPRoute/shop/cart spec.rules[0].matches: invalid type: string \"all\", expected a sequence (M1003)",
        ),
        (
            "a policy with a field that we do not know",
            Watched::Object(ObjectKind::TrafficPolicy),
            json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"targetRefs": [], "speed": "fast"}}),
            "TrafficPolicy/shop/cart spec.speed: TrafficPolicy has no field `spec.speed`; correct or remove it (M1002)",
        ),
    ] {
        let read = read(watched, given);
        let problems: Vec<String> = read.problems.iter().map(ToString::to_string).collect();
        assert_eq!((read.item, problems), (None, vec![expected.to_owned()]), "{what}");
    }
}

#[test]
fn a_field_of_a_newer_kubernetes_is_no_problem() {
    let given = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.0.0.1", "fromTheFuture": 1}});
    let read = read(Watched::Object(ObjectKind::Service), given);
    assert!(read.item.is_some());
    assert_eq!(read.problems, []);
}

#[test]
fn of_nodes_and_service_cidrs_the_networks_are_taken() {
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]}});
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "home"]}});
    let networks =
        |texts: &[&str]| Some(Item::Networks(texts.iter().map(|text| text.parse().unwrap()).collect()));
    assert_eq!(read(Watched::Node, node).item, networks(&["10.1.0.0/24", "fd00::/64"]));
    let cidr = read(Watched::ServiceCidr, cidr);
    assert_eq!(cidr.item, networks(&["10.96.0.0/16"]));
    assert_eq!(
        cidr.problems[0].to_string(),
        "ServiceCIDR//kubernetes spec.cidrs: `home` is no network; write one as in 10.244.0.0/24 (M1006)"
    );
}
