//! Every rule by the pods that it decides about. A row: what it shows, the namespace's name and label, the pod's
//! metadata, its spec, and what comes out.

use serde_json::{Value, json};

use super::*;
use crate::inject::settings;

/// The rule, what is done, and the codes: of the refusal, then of the warnings.
type Outcome = (Rule, &'static str, Vec<Code>);

fn injector() -> Injector {
    Injector {
        settings: settings::defaults(),
        trust_domain: "cluster.local".to_owned(),
        system_namespace: "gauze-system".to_owned(),
        mesh_networks: Vec::new(),
    }
}

fn decided(namespace: &str, label: Option<&str>, metadata: &Value, spec: &Value) -> Outcome {
    let pod: Pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    let namespace = Asked { namespace: namespace.to_owned(), label: label.map(str::to_owned) };
    let decision = decide(&pod, &namespace, &injector());
    let (action, refused) = match &decision.action {
        Action::Inject(_) => ("inject", Vec::new()),
        Action::Leave => ("leave", Vec::new()),
        Action::Refuse(findings) => ("refuse", findings.clone()),
    };
    let codes = refused.iter().chain(&decision.warnings).map(|finding| finding.code).collect();
    (decision.rule, action, codes)
}

fn app() -> Value {
    json!({ "containers": [{ "name": "app" }] })
}

/// The spec of an app with these fields.
fn with(fields: &Value) -> Value {
    let mut spec = app();
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

#[test]
fn who_asks_is_heard_in_order() {
    let label = |value: &str| json!({ "labels": { INJECT: value } });
    let annotation = |value: &str| json!({ "annotations": { INJECT: value } });
    let both = |label: &str, annotation: &str| json!({ "labels": { INJECT: label }, "annotations": { INJECT: annotation } });
    let enabled = Some("enabled");
    for (shows, namespace, of_namespace, metadata, expected) in [
        ("nobody asks", "shop", None, json!({}), (Rule::NotAsked, "leave", vec![])),
        ("the namespace asks", "shop", enabled, json!({}), (Rule::NamespaceLabel, "inject", vec![])),
        (
            "the namespace declines",
            "shop",
            Some("disabled"),
            json!({}),
            (Rule::NamespaceLabel, "leave", vec![]),
        ),
        (
            "what the namespace says is not understood, and nobody would ask us",
            "shop",
            Some("true"),
            json!({}),
            (Rule::NotAsked, "leave", vec![Code::INJECT_VALUE_UNKNOWN]),
        ),
        ("the pod asks by label", "shop", None, label("enabled"), (Rule::PodLabel, "inject", vec![])),
        (
            "the pod asks by annotation",
            "shop",
            None,
            annotation("enabled"),
            (Rule::PodAnnotation, "inject", vec![]),
        ),
        ("the pod declines by label", "shop", enabled, label("disabled"), (Rule::PodLabel, "leave", vec![])),
        (
            "the pod declines by annotation",
            "shop",
            enabled,
            annotation("disabled"),
            (Rule::PodAnnotation, "leave", vec![]),
        ),
        (
            "the pod asks where the namespace declines",
            "shop",
            Some("disabled"),
            label("enabled"),
            (Rule::PodLabel, "inject", vec![]),
        ),
        (
            "the label beats the annotation, and that is said",
            "shop",
            None,
            both("enabled", "disabled"),
            (Rule::PodLabel, "inject", vec![Code::INJECT_VALUES_DISAGREE]),
        ),
        ("both say the same", "shop", None, both("disabled", "disabled"), (Rule::PodLabel, "leave", vec![])),
        (
            "the pod's label is a slip",
            "shop",
            None,
            label("true"),
            (Rule::PodLabel, "refuse", vec![Code::INJECT_VALUE_UNKNOWN]),
        ),
        (
            "the pod's annotation is a slip, in a namespace that asks",
            "shop",
            enabled,
            annotation("Enabled"),
            (Rule::PodAnnotation, "refuse", vec![Code::INJECT_VALUE_UNKNOWN]),
        ),
        (
            "kube-system is never injected",
            "kube-system",
            enabled,
            label("enabled"),
            (Rule::SystemNamespace, "leave", vec![]),
        ),
        (
            "nor is kube-public",
            "kube-public",
            enabled,
            label("enabled"),
            (Rule::SystemNamespace, "leave", vec![]),
        ),
        (
            "nor is kube-node-lease",
            "kube-node-lease",
            None,
            label("yes"),
            (Rule::SystemNamespace, "leave", vec![]),
        ),
        (
            "nor is the control plane's own",
            "gauze-system",
            enabled,
            json!({}),
            (Rule::SystemNamespace, "leave", vec![]),
        ),
    ] {
        assert_eq!(decided(namespace, of_namespace, &metadata, &app()), expected, "{shows}");
    }
}

#[test]
fn a_pod_that_asks_is_looked_at() {
    let container = |fields: Value| {
        let mut container = json!({ "name": "app" });
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "containers": [container] })
    };
    let port = |port: u16, protocol: &str| {
        container(json!({ "ports": [{ "name": "http", "containerPort": port, "protocol": protocol }] }))
    };
    let injected = |codes: &[Code]| (Rule::PodLabel, "inject", codes.to_vec());
    for (shows, spec, expected) in [
        (
            "a pod on its node's network is left alone",
            with(&json!({ "hostNetwork": true })),
            (Rule::HostNetwork, "leave", vec![Code::HOST_NETWORK]),
        ),
        (
            "a pod for Windows is left alone",
            with(&json!({ "os": { "name": "windows" } })),
            (Rule::Windows, "leave", vec![Code::WINDOWS_POD]),
        ),
        (
            "also by its node selector",
            with(&json!({ "nodeSelector": { "kubernetes.io/os": "windows" } })),
            (Rule::Windows, "leave", vec![Code::WINDOWS_POD]),
        ),
        ("a pod for Linux is injected", with(&json!({ "os": { "name": "linux" } })), injected(&[])),
        (
            "a pod that runs as the proxy's user would pass by the mesh",
            with(&json!({ "securityContext": { "runAsUser": 1337 } })),
            (Rule::ProxyUser, "refuse", vec![Code::PROXY_USER_TAKEN]),
        ),
        (
            "so would a container",
            container(json!({ "securityContext": { "runAsUser": 1337 } })),
            (Rule::ProxyUser, "refuse", vec![Code::PROXY_USER_TAKEN]),
        ),
        (
            "and an init container",
            with(
                &json!({ "initContainers": [{ "name": "init", "securityContext": { "runAsUser": 1337 } }] }),
            ),
            (Rule::ProxyUser, "refuse", vec![Code::PROXY_USER_TAKEN]),
        ),
        (
            "a pod of that user whose containers all run as others does not",
            json!({ "securityContext": { "runAsUser": 1337 }, "containers": [{ "name": "app", "securityContext": { "runAsUser": 0 } }] }),
            injected(&[]),
        ),
        (
            "a container with the sidecar's name is not ours by its name",
            json!({ "containers": [{ "name": "gauze-proxy" }] }),
            (Rule::ProxyName, "refuse", vec![Code::PROXY_NAME_TAKEN]),
        ),
        (
            "nor is an init container with the init step's",
            with(&json!({ "initContainers": [{ "name": "gauze-redirect", "args": ["sleep"] }] })),
            (Rule::ProxyName, "refuse", vec![Code::PROXY_NAME_TAKEN]),
        ),
        (
            "a volume with the name of ours is refused",
            with(&json!({ "volumes": [{ "name": "gauze-admin", "emptyDir": {} }] })),
            (Rule::ProxyName, "refuse", vec![Code::PROXY_NAME_TAKEN]),
        ),
        (
            "a port of the proxy is refused",
            port(15020, "TCP"),
            (Rule::ProxyPort, "refuse", vec![Code::PROXY_PORT_TAKEN]),
        ),
        (
            "and the outbound port",
            port(15001, "TCP"),
            (Rule::ProxyPort, "refuse", vec![Code::PROXY_PORT_TAKEN]),
        ),
        ("the proxy has no port of UDP", port(15020, "UDP"), injected(&[])),
        ("a port beside the proxy's is free", port(15021, "TCP"), injected(&[])),
        (
            "shared processes are reported",
            with(&json!({ "shareProcessNamespace": true })),
            injected(&[Code::PROCESSES_SHARED]),
        ),
        (
            "a pod that does not use the cluster's DNS is told so",
            with(&json!({ "dnsPolicy": "Default" })),
            injected(&[Code::CLUSTER_DNS_UNUSED]),
        ),
        (
            "a probe of a port that is not declared is reported",
            container(json!({ "livenessProbe": { "httpGet": { "port": "http" } } })),
            injected(&[Code::PROBE_PORT_UNKNOWN]),
        ),
        (
            "a probe of a port that is declared by name, by number or by a number in a string is fine",
            container(json!({
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "livenessProbe": { "httpGet": { "port": "http" } },
                "readinessProbe": { "tcpSocket": { "port": 8080 } },
                "startupProbe": { "httpGet": { "port": "8080" } },
            })),
            injected(&[]),
        ),
        ("a Job's pod is injected", with(&json!({ "restartPolicy": "Never" })), injected(&[])),
        (
            "a pod without an API token is injected: our token is another",
            with(&json!({ "automountServiceAccountToken": false })),
            injected(&[]),
        ),
        (
            "restartable init containers of others are fine",
            with(&json!({ "initContainers": [{ "name": "logs", "restartPolicy": "Always" }] })),
            injected(&[]),
        ),
    ] {
        let metadata = json!({ "labels": { INJECT: "enabled" } });
        assert_eq!(decided("shop", None, &metadata, &spec), expected, "{shows}");
    }
}

#[test]
fn a_namespace_that_asks_does_not_blame_its_pods_for_what_cannot_be_injected() {
    for spec in [json!({ "hostNetwork": true }), json!({ "os": { "name": "windows" } })] {
        let (_, action, codes) = decided("shop", Some("enabled"), &json!({}), &with(&spec));
        assert_eq!((action, codes), ("leave", vec![]), "{spec}");
    }
}

#[test]
fn the_mirror_of_a_static_pod_is_left_alone() {
    let metadata =
        json!({ "labels": { INJECT: "enabled" }, "annotations": { "kubernetes.io/config.mirror": "1" } });
    let expected = (Rule::StaticPod, "leave", vec![Code::STATIC_POD]);
    assert_eq!(decided("shop", None, &metadata, &app()), expected);
}

#[test]
fn annotations_that_cannot_be_read_refuse_and_unknown_ones_are_reported() {
    let annotated = |key: &str, value: &str| json!({ "labels": { INJECT: "enabled" }, "annotations": { format!("gauze.dev/{key}"): value } });
    for (metadata, expected) in [
        (annotated("cpu", "ten"), (Rule::Annotations, "refuse", vec![Code::ANNOTATION_INVALID])),
        (annotated("redirect", "cni"), (Rule::Annotations, "refuse", vec![Code::ANNOTATION_INVALID])),
        (annotated("cpus", "10m"), (Rule::PodLabel, "inject", vec![Code::UNKNOWN_FIELD])),
        (annotated("cpu", "10m"), (Rule::PodLabel, "inject", vec![])),
    ] {
        assert_eq!(decided("shop", None, &metadata, &app()), expected, "{metadata}");
    }
}

#[test]
fn nothing_is_looked_at_in_a_pod_that_does_not_ask() {
    let metadata = json!({ "annotations": { "gauze.dev/cpu": "ten" } });
    let spec = with(&json!({ "securityContext": { "runAsUser": 1337 } }));
    assert_eq!(decided("shop", None, &metadata, &spec), (Rule::NotAsked, "leave", vec![]));
}

#[test]
fn a_decision_says_why_in_words() {
    let reason = |namespace: &str, label: Option<&str>, metadata: Value, spec: Value| {
        let pod: Pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        let namespace = Asked { namespace: namespace.to_owned(), label: label.map(str::to_owned) };
        decide(&pod, &namespace, &injector()).reason()
    };
    let asks = json!({ "labels": { INJECT: "enabled" } });
    for (said, expected) in [
        (reason("shop", None, asks.clone(), app()), "label gauze.dev/inject of the pod is enabled"),
        (
            reason("shop", Some("disabled"), json!({}), app()),
            "label gauze.dev/inject of the namespace is disabled",
        ),
        (reason("shop", None, json!({}), app()), "neither pod nor namespace has gauze.dev/inject: enabled"),
        (reason("kube-system", None, asks.clone(), app()), "pods of system namespaces are never injected"),
        (
            reason("shop", None, asks, with(&json!({ "securityContext": { "runAsUser": 1337 } }))),
            "spec.securityContext.runAsUser: container `app` would run as 1337, the proxy's user, and pass by the mesh",
        ),
    ] {
        assert_eq!(said, expected);
    }
}
