//! The injection webhook, called by a real API server: with the chart's own selectors, only by URL and not by a Service.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::apiserver::{ApiServer, Namespace};
use crate::harness::eventually::{eventually, holds};
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::programs::repository;
use other_webhook::OtherWebhook;

mod other_webhook; // one that adds a container after ours

const SIDECAR: [&str; 2] = ["gauze-redirect", "gauze-proxy"];

/// A control plane whose webhook the API server calls for two namespaces, one of which asks for all its pods.
struct Injection<'a> {
    mesh: KubeMesh<'a>,
    control_plane: Replica,
    asking: Namespace<'a>,
    silent: Namespace<'a>,
}

impl<'a> Injection<'a> {
    async fn start(server: &'a ApiServer) -> Injection<'a> {
        let asking = server.namespace("asking").await;
        let silent = server.namespace("silent").await;
        let label = ["label", "namespace", &asking.name, "gauze.dev/inject=enabled"];
        server.kubectl(&label).await.expect("a label");
        for namespace in [&asking, &silent] {
            let account = ["get", "serviceaccount", "default", "--namespace", &namespace.name];
            eventually("the ServiceAccount", async || server.kubectl(&account).await).await;
        }
        let mesh = KubeMesh::start(server).await;
        let control_plane =
            mesh.replica("gauze-0", &server.kubeconfig(), &["--webhook-names=localhost"]).await;
        control_plane.ready().await;
        let injection = Injection { mesh, control_plane, asking, silent };
        injection.configure().await;
        injection.trusted().await;
        injection
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.mesh.client.clone())
    }

    fn pods(&self, namespace: &Namespace<'_>) -> Api<Pod> {
        Api::namespaced(self.mesh.client.clone(), &namespace.name)
    }

    /// The chart's configuration, for our namespaces alone, under the name of the system namespace.
    async fn configure(&self) {
        let port = self.control_plane.process.address("webhook").port();
        let mut configuration = of_chart(&self.mesh).await;
        configuration["metadata"] = json!({ "name": self.mesh.system.name });
        for webhook in configuration["webhooks"].as_array_mut().expect("webhooks") {
            let path = webhook["clientConfig"]["service"]["path"].as_str().expect("a path").to_owned();
            webhook["clientConfig"] = json!({ "url": format!("https://localhost:{port}{path}") });
            let ours = json!({
                "key": "kubernetes.io/metadata.name", "operator": "In",
                "values": [self.asking.name, self.silent.name],
            });
            let expressions = &mut webhook["namespaceSelector"]["matchExpressions"];
            expressions.as_array_mut().expect("expressions").push(ours);
        }
        let configuration = serde_json::from_value(configuration).expect("a configuration");
        self.configurations().create(&PostParams::default(), &configuration).await.expect("it is accepted");
    }

    /// Waits until the API server knows the webhook.
    async fn trusted(&self) {
        eventually("a caBundle in each webhook", async || {
            let found = self.configurations().get(&self.mesh.system.name).await.map_err(|e| e.to_string())?;
            let webhooks = found.webhooks.unwrap_or_default();
            let bundles = webhooks.iter().filter(|webhook| webhook.client_config.ca_bundle.is_some()).count();
            holds(bundles == 2, format!("{bundles} of {}", webhooks.len()))
        })
        .await;
        // The API server reads configurations at its own pace.
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        eventually("the webhook is called", async || {
            let created =
                self.pods(&self.asking).create(&parameters, &pod("probe", &json!({}), &json!({}))).await;
            holds(is_injected(&created.map_err(|error| error.to_string())?), "not injected".to_owned())
        })
        .await;
    }

    /// How often the webhook answered with this action.
    async fn answered(&self, action: &str) -> f64 {
        self.control_plane.metric("admissions_total", action).await
    }
}

impl Drop for Injection<'_> {
    /// A cluster-wide object, which no namespace takes along.
    fn drop(&mut self) {
        self.mesh.server.delete_later("mutatingwebhookconfiguration", &self.mesh.system.name);
    }
}

async fn of_chart(mesh: &KubeMesh<'_>) -> Value {
    let chart = repository().join("charts/gauze");
    let chart = chart.to_str().expect("a path of text");
    let arguments = ["template", "gauze", chart, "--namespace", &mesh.system.name, "--kube-version", "1.36"];
    let rendered = mesh.server.helm(&arguments).await.expect("it renders");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).expect("YAML");
    let found = objects.into_iter().find(|object| object["kind"] == "MutatingWebhookConfiguration");
    found.expect("the chart has one")
}

fn pod(name: &str, metadata: &Value, spec: &Value) -> Pod {
    let mut pod =
        json!({ "metadata": metadata, "spec": { "containers": [{ "name": "app", "image": "app" }] } });
    pod["metadata"]["name"] = name.into();
    pod["spec"].as_object_mut().expect("a spec").extend(spec.as_object().expect("fields").clone());
    serde_json::from_value(pod).expect("a pod")
}

fn init_containers(pod: &Pod) -> Vec<&str> {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    spec.init_containers.iter().flatten().map(|container| container.name.as_str()).collect()
}

fn is_injected(pod: &Pod) -> bool {
    init_containers(pod).starts_with(&SIDECAR)
}

/// What is done with a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// By this rule.
    Injected(&'static str),
    /// The webhook is asked, and leaves it.
    Left,
    /// The webhook is not even asked.
    NotSeen,
    /// With this code.
    Refused(&'static str),
}

#[tokio::test]
async fn each_pod_is_injected_refused_left_or_not_even_seen() {
    use Expected::{Injected, Left, NotSeen, Refused};
    let Some(server) = ApiServer::shared().await else { return };
    let injection = Injection::start(server).await;
    let label = |value: &str| json!({ "labels": { "gauze.dev/inject": value } });
    let annotation = |value: &str| json!({ "annotations": { "gauze.dev/inject": value } });
    let annotated = |key: &str, value: &str| json!({ "annotations": { key: value } });
    let (asks, nothing) = (label("enabled"), json!({}));
    let (asking, silent) = (&injection.asking, &injection.silent);
    let container = |fields: &Value| {
        let mut container = json!({ "name": "app", "image": "app" });
        container.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
        json!({ "containers": [container] })
    };
    for (index, (shows, namespace, metadata, spec, expected)) in [
        ("the namespace asks", asking, nothing.clone(), nothing.clone(), Injected("namespace-label")),
        ("nobody asks", silent, nothing.clone(), nothing.clone(), NotSeen),
        ("the pod asks by label", silent, label("enabled"), nothing.clone(), Injected("pod-label")),
        (
            "the pod asks by annotation",
            silent,
            annotation("enabled"),
            nothing.clone(),
            Injected("pod-annotation"),
        ),
        ("the pod declines by label", asking, label("disabled"), nothing.clone(), NotSeen),
        ("the pod declines by annotation", asking, annotation("disabled"), nothing.clone(), NotSeen),
        ("the pod declines where nobody asks", silent, label("disabled"), nothing.clone(), NotSeen),
        ("the pod's label is a slip", silent, label("yes"), nothing.clone(), Refused("M2001")),
        ("the pod's annotation is a slip", asking, annotation("true"), nothing.clone(), Refused("M2001")),
        (
            "an annotation is a slip",
            asking,
            annotated("gauze.dev/cpu", "ten"),
            nothing.clone(),
            Refused("M2003"),
        ),
        (
            "an unknown annotation",
            asking,
            annotated("gauze.dev/cpus", "1"),
            nothing.clone(),
            Injected("namespace-label"),
        ),
        (
            "on its node's network, by the namespace",
            asking,
            nothing.clone(),
            json!({ "hostNetwork": true }),
            NotSeen,
        ),
        ("on its node's network, by itself", silent, asks.clone(), json!({ "hostNetwork": true }), Left),
        ("for Windows", silent, asks.clone(), json!({ "os": { "name": "windows" } }), Left),
        (
            "as the proxy's user",
            asking,
            nothing.clone(),
            json!({ "securityContext": { "runAsUser": 1337 } }),
            Refused("M2004"),
        ),
        (
            "with the sidecar's name",
            asking,
            nothing.clone(),
            json!({ "containers": [{ "name": "gauze-proxy", "image": "app" }] }),
            Refused("M2005"),
        ),
        (
            "with the sidecar's port",
            asking,
            nothing.clone(),
            container(&json!({ "ports": [{ "containerPort": 15006 }] })),
            Refused("M2006"),
        ),
        (
            "a Job's pod",
            asking,
            nothing.clone(),
            json!({ "restartPolicy": "Never" }),
            Injected("namespace-label"),
        ),
        (
            "without an API token",
            asking,
            nothing.clone(),
            json!({ "automountServiceAccountToken": false }),
            Injected("namespace-label"),
        ),
        (
            "that may not run as root",
            asking,
            nothing.clone(),
            json!({ "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000 } }),
            Injected("namespace-label"),
        ),
        (
            "with init containers, one of which goes on",
            asking,
            nothing.clone(),
            json!({ "initContainers": [
                { "name": "migrate", "image": "app" },
                { "name": "logs", "image": "app", "restartPolicy": "Always" },
            ] }),
            Injected("namespace-label"),
        ),
        (
            "with probes and hooks of all kinds",
            asking,
            nothing.clone(),
            container(&json!({
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "startupProbe": { "tcpSocket": { "port": "http" } },
                "livenessProbe": { "grpc": { "port": 9000 } },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" }, "periodSeconds": 3 },
                "lifecycle": {
                    "postStart": { "httpGet": { "path": "/warm", "port": "http" } },
                    "preStop": { "sleep": { "seconds": 1 } },
                },
            })),
            Injected("namespace-label"),
        ),
        (
            "bounded as a whole, more narrowly than a sidecar",
            asking,
            nothing.clone(),
            json!({ "resources": { "limits": { "memory": "128Mi", "cpu": "1" } } }),
            Injected("namespace-label"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let actions = ["injected", "left", "refused", "failed"];
        let mut before = BTreeMap::new();
        for action in actions {
            before.insert(action, injection.answered(action).await);
        }
        let pod = pod(&format!("pod-{index}"), &metadata, &spec);
        let created = injection.pods(namespace).create(&PostParams::default(), &pod).await;
        let outcome = match &created {
            Err(error) => Refused(code_of(&error.to_string())),
            Ok(pod) if is_injected(pod) => Injected(rule_of(pod)),
            Ok(_) => match expected {
                Left => Left,
                _ => NotSeen,
            },
        };
        assert_eq!(outcome, expected, "{shows}: {created:?}");
        let wanted = match expected {
            Injected(_) => Some("injected"),
            Left => Some("left"),
            NotSeen => None,
            Refused(_) => Some("refused"),
        };
        for action in actions {
            let more = injection.answered(action).await > before[action];
            assert_eq!(more, wanted == Some(action), "{shows}: {action}");
        }
    }
}

/// The first code of ours in a refusal.
fn code_of(refusal: &str) -> &'static str {
    let codes = ["M2001", "M2003", "M2004", "M2005", "M2006"];
    codes.into_iter().find(|code| refusal.contains(code)).unwrap_or("no code")
}

fn rule_of(pod: &Pod) -> &'static str {
    let why = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get("gauze.dev/injected"));
    let rules = ["namespace-label", "pod-label", "pod-annotation"];
    rules.into_iter().find(|rule| why.is_some_and(|why| why.starts_with(rule))).unwrap_or("no rule")
}

#[tokio::test]
async fn kubectl_shows_warnings_and_refusals_with_their_codes() {
    let Some(server) = ApiServer::shared().await else { return };
    let injection = Injection::start(server).await;
    let manifest = |name: &str, annotations: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {}, labels: {{gauze.dev/inject: enabled}}, \
             annotations: {{{annotations}}}}}, spec: {{{spec} containers: [{{name: app, image: app}}]}}}}",
            injection.silent.name
        )
    };
    let said =
        server.kubectl_says(&manifest("a", "gauze.dev/inject: disabled, gauze.dev/cpus: '1'", "")).await;
    assert!(
        said.contains("Warning: label gauze.dev/inject is `enabled` and the annotation is `disabled`"),
        "{said}"
    );
    assert!(said.contains("Warning: gauze knows no annotation `gauze.dev/cpus`"), "{said}");
    let said = server.kubectl_says(&manifest("b", "", "hostNetwork: true,")).await;
    assert!(said.contains("hostNetwork: true, so it is left alone (M2007"), "{said}");
    let said = server.refusal(&manifest("c", "gauze.dev/redirect: cni, gauze.dev/cpu: ten", "")).await;
    for wanted in [
        "pod.inject.gauze.dev",
        "annotation gauze.dev/redirect: `cni` does not exist",
        "gauze.dev/cpu",
        "M2003",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
    }
}

#[tokio::test]
async fn what_another_webhook_adds_later_is_brought_into_the_mesh_when_ours_is_asked_again() {
    let Some(server) = ApiServer::shared().await else { return };
    let injection = Injection::start(server).await;
    let other = OtherWebhook::start().await;
    other
        .configure(
            &injection.configurations(),
            &format!("zz-{}", injection.mesh.system.name),
            &injection.asking.name,
        )
        .await;
    let probed = json!({ "containers": [{
        "name": "app", "image": "app", "livenessProbe": { "httpGet": { "path": "/", "port": 8080 } },
    }] });
    let created = injection
        .pods(&injection.asking)
        .create(&PostParams::default(), &pod("two", &json!({}), &probed))
        .await;
    let created = json!(created.expect("it is accepted"));
    assert!(other.calls() > 0, "the other webhook was not called");
    let names = |list: &str| -> Vec<String> {
        let all = created["spec"][list].as_array().into_iter().flatten();
        all.map(|container| container["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names("containers"), ["app", "added"]);
    assert_eq!(names("initContainers"), SIDECAR);
    let sidecar = created["spec"]["initContainers"][1].to_string();
    for probe in ["--probe=app/live=", "--probe=added/ready="] {
        assert_eq!(sidecar.matches(probe).count(), 1, "{probe} in {sidecar}");
    }
    assert_eq!(created["spec"]["containers"][1]["readinessProbe"]["httpGet"]["port"], 15020);
    assert!(!sidecar.contains("serviceaccount"), "the sidecar has the app's API token: {sidecar}");
    other.forget(&injection.configurations()).await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind_and_a_pod_brings_the_roots_into_its_namespace() {
    let Some(server) = ApiServer::shared().await else { return };
    let injection = Injection::start(server).await;
    let asks = json!({ "labels": { "gauze.dev/inject": "enabled" } });
    let pods = injection.pods(&injection.silent);
    let trust = ["get", "configmap", "gauze-trust", "--namespace", &injection.silent.name];
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let created = pods.create(&dry_run, &pod("dry", &asks, &json!({}))).await.expect("it is accepted");
    assert!(is_injected(&created), "{created:?}");
    server.kubectl(&trust).await.expect_err("a dry run wrote the roots");
    assert_eq!(injection.answered("injected").await, 0.0, "a dry run is not counted");
    pods.create(&PostParams::default(), &pod("wet", &asks, &json!({}))).await.expect("it is accepted");
    server.kubectl(&trust).await.expect("the roots are there before the pod is");
}

#[tokio::test]
async fn without_the_webhook_a_pod_that_asks_is_refused_and_any_other_is_created_at_once() {
    let Some(server) = ApiServer::shared().await else { return };
    let mut injection = Injection::start(server).await;
    injection.control_plane.process.kill();
    let plain = pod("plain", &json!({}), &json!({}));
    injection.pods(&injection.silent).create(&PostParams::default(), &plain).await.expect("nobody asks");
    let declines = pod("declines", &json!({ "labels": { "gauze.dev/inject": "disabled" } }), &json!({}));
    injection.pods(&injection.asking).create(&PostParams::default(), &declines).await.expect("it declines");
    let on_node = pod("on-node", &json!({}), &json!({ "hostNetwork": true }));
    injection.pods(&injection.asking).create(&PostParams::default(), &on_node).await.expect("never injected");
    let refused = injection.pods(&injection.asking).create(&PostParams::default(), &plain).await;
    let refused = refused.expect_err("it asks").to_string();
    assert!(refused.contains("failed calling webhook \\\"namespace.inject.gauze.dev\\\""), "{refused}");
}

#[tokio::test]
async fn a_ca_bundle_that_an_upgrade_empties_is_written_again() {
    let Some(server) = ApiServer::shared().await else { return };
    let injection = Injection::start(server).await;
    let emptied = json!([
        { "op": "remove", "path": "/webhooks/0/clientConfig/caBundle" },
        { "op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": "" },
    ]);
    let patch =
        Patch::<MutatingWebhookConfiguration>::Json(serde_json::from_value(emptied).expect("a patch"));
    let name = &injection.mesh.system.name;
    injection.configurations().patch(name, &PatchParams::default(), &patch).await.expect("it is accepted");
    injection.trusted().await;
    // An uninstall and an install anew.
    injection.configurations().delete(name, &DeleteParams::default()).await.expect("it is deleted");
    injection.configure().await;
    injection.trusted().await;
}
