//! The Helm chart against a real API server: what it renders is accepted, what it changes can be changed back, what it
//! installed goes again.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::apiserver::{ApiServer, output};
use crate::harness::eventually;
use crate::harness::eventually::holds;
use crate::harness::programs::{program, repository};
use crate::harness::tools::Tools;

mod definition; // of TrafficSplit: its versions and who converts them

pub(super) const SYSTEM: &str = "gauze-system";

fn chart() -> String {
    repository().join("charts/gauze").to_str().expect("a path of text").to_owned()
}

/// `helm template` with these values, without any server.
async fn render(tools: &Tools, values: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = tools.command("helm");
    command.args(["template", "gauze", &chart(), "--namespace", SYSTEM, "--kube-version", "1.36"]);
    command.args(values).env("HELM_CACHE_HOME", folder.path());
    output(command, "").await
}

#[tokio::test]
async fn two_renderings_are_equal_and_hold_neither_key_nor_certificate() {
    let Some(tools) = Tools::find(&["helm"]) else { return };
    for values in [vec![], vec!["--set", "profile=ha"]] {
        let first = render(&tools, &values).await.expect("it renders");
        assert_eq!(first, render(&tools, &values).await.expect("it renders"));
        for forbidden in ["caBundle:", "kind: Secret\n", "tls.key", "PRIVATE"] {
            assert!(!first.contains(forbidden), "{forbidden} is rendered");
        }
    }
}

#[tokio::test]
async fn a_mistake_in_a_value_is_refused_by_its_name() {
    let Some(tools) = Tools::find(&["helm"]) else { return };
    for (value, expected) in [
        ("profil=ha", "additional properties 'profil' not allowed"),
        ("profile=big", "at '/profile': value must be one of"),
        ("proxy.logLvel=debug", "at '/proxy': additional properties 'logLvel' not allowed"),
        ("proxy.resources.requests.cpu=ten", "at '/proxy/resources/requests/cpu'"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy'"),
        ("image.proxy.digest=abc", "at '/image/proxy/digest'"),
        ("mtls=off", "at '/mtls'"),
        ("replicaCount=two", "at '/replicaCount'"),
        ("meshNetworks={10.0.0.1}", "at '/meshNetworks/0'"),
        ("injector.timeoutSeconds=60", "at '/injector/timeoutSeconds'"),
        ("ca.secret=mine", "at '/ca': additional properties 'secret' not allowed"),
        ("crds.gatewayAPI=true", "additional properties 'gatewayAPI' not allowed"),
    ] {
        let said = render(&tools, &["--set", value]).await.expect_err(value);
        assert!(said.contains(expected), "{value}: {said}");
    }
}

const VALUES: &str = r#"
image:
  registry: example.test/mesh/
  tag: "7"
  proxy: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
ca: {existingSecret: my-root}
meshNetworks: [10.0.0.0/8, "fd00::/8"]
injector: {excludedNamespaces: [monitoring]}
commonLabels: {team: platform}
extraArgs: ["--log-level={{ .Release.Name }}=debug"]
networkPolicy: {enabled: true}
crds: {smi: false, keep: false}
extraObjects:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ .Release.Name }}-extra"}}
  - |
    apiVersion: v1
    kind: ConfigMap
    metadata:
      name: {{ .Release.Name }}-text
"#;

#[tokio::test]
async fn values_reach_the_objects_that_they_are_about() {
    let Some(tools) = Tools::find(&["helm"]) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, VALUES).expect("the folder is ours");
    let rendered = render(&tools, &["--values", file.to_str().expect("text")]).await.expect("it renders");
    for expected in [
        "image: example.test/mesh/gauze-control-plane:7",
        "--proxy-image=example.test/mesh/gauze-proxy@sha256:0123456789abcdef",
        "--root-secret=my-root\n            - --root-secret-exists",
        "resourceNames: [my-root]\n    verbs: [get]",
        "--mesh-networks=10.0.0.0/8,fd00::/8",
        r#"["kube-system","kube-public","kube-node-lease","gauze-system","monitoring"]"#,
        "team: platform",
        r#"- "--log-level=gauze=debug""#,
        "kind: NetworkPolicy",
        "name: 'gauze-extra'",
        "name: gauze-text",
        "name: trafficpolicies.gauze.dev",
        "name: authorizationpolicies.gauze.dev",
    ] {
        assert!(rendered.contains(expected), "`{expected}` is not in:\n{rendered}");
    }
    for unexpected in [
        "name: trafficsplits.split.smi-spec.io",
        "name: httproutegroups.specs.smi-spec.io",
        "resource-policy",
        "replicas: 2",
    ] {
        assert!(!rendered.contains(unexpected), "`{unexpected}` is rendered");
    }
    let hooks: Vec<&str> = rendered.split("---").filter(|object| object.contains("kind: Job")).collect();
    assert_eq!(hooks.len(), 2, "{hooks:?}");
    let named = hooks.iter().any(|hook| hook.contains("--root-secret"));
    assert!(!named, "a Secret that is the user's is left alone:\n{hooks:?}");
}

/// A server with the chart installed in a namespace that enforces the Pod Security level `restricted`.
pub(super) struct Installed {
    pub(super) server: ApiServer,
}

impl Installed {
    pub(super) async fn start() -> Option<Installed> {
        let server = ApiServer::start_empty().await?;
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: gauze-system, labels: {pod-security.kubernetes.io/enforce: restricted}}}";
        server.apply(namespace).await;
        let installed = Installed { server };
        installed.helm(&["install", "gauze", &chart()]).await;
        Some(installed)
    }

    async fn helm(&self, arguments: &[&str]) -> String {
        let all = [arguments, &["--namespace", SYSTEM]].concat();
        self.server.helm(&all).await.unwrap_or_else(|error| panic!("helm {arguments:?}: {error}"))
    }

    pub(super) async fn kubectl(&self, arguments: &[&str]) -> String {
        let all = [&["--namespace", SYSTEM], arguments].concat();
        self.server.kubectl(&all).await.unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// One object, as JSON.
    pub(super) async fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"]).await).expect("JSON")
    }

    /// Every object of the cluster as `Kind namespace/name`, without those that Kubernetes itself keeps making.
    async fn everything(&self) -> BTreeSet<String> {
        let kinds = self.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await;
        let kinds: Vec<&str> = kinds
            .lines()
            .filter(|kind| !kind.starts_with("events") && !kind.starts_with("componentstatuses"))
            .collect();
        let line = r#"jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
        let seen = self.kubectl(&["get", &kinds.join(","), "--all-namespaces", "-o", line]).await;
        seen.lines().map(ToOwned::to_owned).collect()
    }

    /// Runs one of our own hooks as its ServiceAccount, as the chart says; there is no kubelet here.
    async fn run_hook(&self, name: &str) -> String {
        let hooks = self.helm(&["get", "hooks", "gauze"]).await;
        let (jobs, rights): (Vec<&str>, Vec<&str>) =
            hooks.split("---\n").partition(|hook| hook.contains("kind: Job"));
        let rights: Vec<&str> =
            rights.into_iter().filter(|hook| hook.contains("name: gauze-uninstall")).collect();
        self.server.apply(&rights.join("---\n")).await;
        let job = jobs.into_iter().find(|job| job.contains(&format!("name: {name}\n"))).expect("the Job");
        let job: Value = serde_saphyr::from_str(job).expect("YAML");
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        let kubeconfig = self.server.kubeconfig_for(SYSTEM, "gauze-uninstall").await;
        let mut command = std::process::Command::new(program("gauze-control-plane"));
        command.args(texts(&container["args"])).arg("--kubeconfig").arg(kubeconfig);
        let said = output(command, "").await.expect("the hook does its work");
        let path = self.write("rights.yaml", &rights.join("---\n"));
        self.kubectl(&["delete", "-f", path.to_str().expect("a path of text")]).await;
        said
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.server.kubeconfig().with_file_name(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path
    }
}

pub(super) fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().expect("a list");
    items.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn an_installation_is_changed_changed_back_and_taken_away_and_only_the_definitions_stay() {
    let Some(installed) = Installed::start().await else { return };
    every_object_of_the_release_is_there(&installed).await;
    an_upgrade_keeps_what_the_control_plane_wrote(&installed).await;
    definition::an_upgrade_keeps_its_bundle_and_brings_versions_that_it_lacked(&installed).await;
    uninstalled_only_the_definitions_and_what_users_made_stay(&installed).await;
    definition::a_new_installation_brings_all_versions_back(&installed).await;
}

async fn every_object_of_the_release_is_there(installed: &Installed) {
    let manifest = installed.helm(&["get", "manifest", "gauze"]).await;
    let path = installed.write("manifest.yaml", &manifest);
    let wanted = manifest.matches("\nkind: ").count();
    let there = installed.kubectl(&["get", "-f", path.to_str().expect("text"), "-o", "name"]).await;
    assert_eq!(there.lines().count(), wanted, "{there}");
    // The API server prunes what it does not know, with a warning only: what it kept must be what was sent.
    let difference =
        installed.server.kubectl(&["diff", "--server-side=false", "-f", path.to_str().expect("text")]).await;
    assert_eq!(difference, Ok(String::new()), "the API server keeps something else than is rendered");
    // The pod is admitted where Pod Security enforces `restricted`.
    eventually("the control plane's pod", async || {
        let pods = installed.kubectl(&["get", "pods", "-o", "name"]).await;
        holds(pods.contains("pod/gauze-control-plane-"), pods)
    })
    .await;
    let established = installed
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/trafficsplits.split.smi-spec.io",
            "crd/httproutegroups.specs.smi-spec.io",
            "crd/trafficpolicies.gauze.dev",
            "crd/authorizationpolicies.gauze.dev",
        ])
        .await;
    assert_eq!(established.lines().count(), 4, "{established}");
    definition::serves_all_versions(installed).await;
}

async fn an_upgrade_keeps_what_the_control_plane_wrote(installed: &Installed) {
    // As the control plane does.
    let patch =
        r#"{"webhooks": [{"name": "pod.inject.gauze.dev", "clientConfig": {"caBundle": "LS0tCg=="}}]}"#;
    installed.kubectl(&["patch", "mutatingwebhookconfiguration", "gauze-injector", "--patch", patch]).await;
    let replicas =
        async || installed.object("deployment", "gauze-control-plane").await["spec"]["replicas"].clone();
    assert_eq!(replicas().await, 1);

    installed.helm(&["upgrade", "gauze", &chart(), "--set", "profile=ha", "--set", "logLevel=debug"]).await;
    assert_eq!(replicas().await, 2);
    assert_eq!(installed.object("pdb", "gauze-control-plane").await["spec"]["minAvailable"], 1);
    let spread = installed.object("deployment", "gauze-control-plane").await["spec"]["template"]["spec"]
        ["topologySpreadConstraints"]
        .clone();
    assert_eq!(spread.as_array().map(Vec::len), Some(2), "{spread}");
    let webhook = installed.object("mutatingwebhookconfiguration", "gauze-injector").await;
    let own = webhook["webhooks"].as_array().expect("webhooks").iter();
    let bundles: Vec<&Value> = own.map(|webhook| &webhook["clientConfig"]["caBundle"]).collect();
    assert!(bundles.contains(&&Value::from("LS0tCg==")), "the caBundle survives an upgrade: {bundles:?}");

    installed.helm(&["rollback", "gauze", "1"]).await;
    assert_eq!(replicas().await, 1);
    let gone = installed.server.kubectl(&["get", "pdb", "gauze-control-plane", "--namespace", SYSTEM]).await;
    assert!(gone.expect_err("it is gone").contains("NotFound"));
    let arguments =
        installed.object("deployment", "gauze-control-plane").await["spec"]["template"]["spec"]["containers"]
            [0]["args"]
            .clone();
    assert!(texts(&arguments).contains(&"--log-level=info".to_owned()), "{arguments}");
}

async fn uninstalled_only_the_definitions_and_what_users_made_stay(installed: &Installed) {
    let server = &installed.server;
    let before = installed.everything().await;
    let made = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {name: cart, namespace: shop}, spec: {service: cart, backends: [{service: cart-v1, weight: 1}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: somebody}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: gauze-trust, namespace: somebody}, data: {mine: "yes"}}
"#;
    server.apply(made).await;
    let by_control_plane = r#"
{apiVersion: v1, kind: ConfigMap, metadata: {name: gauze-trust, namespace: shop, labels: {app.kubernetes.io/managed-by: gauze}}, data: {roots.pem: ""}}
---
{apiVersion: v1, kind: Secret, metadata: {name: gauze-root, namespace: gauze-system}, type: Opaque}
---
{apiVersion: v1, kind: Secret, metadata: {name: of-somebody, namespace: gauze-system}, type: Opaque}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: gauze-control-plane, namespace: gauze-system}}
"#;
    server.apply(by_control_plane).await;
    // While a replica is left, nothing is taken back: it would make all anew. Without kubelet we confirm their end.
    installed.kubectl(&["scale", "deployment", "gauze-control-plane", "--replicas=0"]).await;
    eventually("the end of the control plane's pods", async || {
        installed.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0"]).await;
        let left = installed.kubectl(&["get", "pods", "-o", "name"]).await;
        holds(left.is_empty(), left)
    })
    .await;
    server.apply("{apiVersion: v1, kind: Pod, metadata: {name: gauze-check, namespace: gauze-system}, spec: {containers: [{name: check, image: check, securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}}]}}").await;
    definition::is_served_as_stored_alone(installed).await;
    let said = installed.run_hook("gauze-uninstall").await;
    assert_eq!(
        said,
        "deleted ConfigMap shop/gauze-trust\ndeleted Lease gauze-system/gauze-control-plane\n\
         deleted Secret gauze-system/gauze-root\ndeleted Pod gauze-system/gauze-check\n"
    );
    let path = installed.write("manifest.yaml", &installed.helm(&["get", "manifest", "gauze"]).await);
    installed.helm(&["uninstall", "gauze", "--no-hooks", "--wait"]).await;
    let left = server
        .kubectl(&["get", "-f", path.to_str().expect("text"), "-o", "name", "--ignore-not-found"])
        .await;
    assert_eq!(
        left.expect("it can be asked").split_whitespace().collect::<Vec<_>>(),
        [
            "customresourcedefinition.apiextensions.k8s.io/authorizationpolicies.gauze.dev",
            "customresourcedefinition.apiextensions.k8s.io/httproutegroups.specs.smi-spec.io",
            "customresourcedefinition.apiextensions.k8s.io/trafficpolicies.gauze.dev",
            "customresourcedefinition.apiextensions.k8s.io/trafficsplits.split.smi-spec.io"
        ]
    );
    // Whatever is of ours in the whole cluster, by name.
    eventually("only what users made is left", async || {
        let after = installed.everything().await;
        let ours: Vec<&String> = after
            .iter()
            .filter(|object| object.contains("gauze"))
            .filter(|object| {
                !object.starts_with("CustomResourceDefinition ") && !object.starts_with("APIService ")
            })
            .filter(|object| {
                **object != "Namespace /gauze-system" && **object != "ConfigMap somebody/gauze-trust"
            })
            .filter(|object| {
                // What Kubernetes puts into every namespace, and what is not ours to delete.
                ![
                    "ServiceAccount gauze-system/default",
                    "ConfigMap gauze-system/kube-root-ca.crt",
                    "Secret gauze-system/of-somebody",
                ]
                .contains(&object.as_str())
            })
            .collect();
        let users =
            after.contains("TrafficSplit shop/cart") && after.contains("Secret gauze-system/of-somebody");
        assert!(users, "a user's object is gone: {after:?}");
        holds(ours.is_empty(), format!("{ours:?}"))
    })
    .await;
    assert!(before.iter().any(|object| object.contains("gauze-injector")), "the snapshot sees what is ours");
}
