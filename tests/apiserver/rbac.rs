//! What the chart allows the control plane, and that it needs all of it: the control plane runs as its ServiceAccount
//! with the arguments of its Deployment, and the API server's audit log says what it used.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::chart::{Installed, SYSTEM, texts};
use crate::harness::client::{self, Protocol};
use crate::harness::eventually::{eventually, holds};
use crate::harness::process::Process;

/// One verb on one resource: what a rule allows, or what a request used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    /// `secrets`, `endpointslices.discovery.k8s.io`.
    resource: String,
    /// The one object that it is about; empty: all.
    name: String,
    /// The one namespace; empty: all.
    namespace: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.namespace.is_empty() { "everywhere" } else { self.namespace.as_str() };
        write!(
            f,
            "{} {} {} {place}",
            self.verb,
            self.resource,
            if self.name.is_empty() { "*" } else { &self.name }
        )
    }
}

/// All that the control plane may do, and not one verb more. A change of the chart is a change here, to be read twice.
const ALLOWED: [(&str, &str, &str, &str); 16] = [
    ("list watch", "namespaces nodes pods services", "", ""),
    ("list watch", "endpointslices.discovery.k8s.io servicecidrs.networking.k8s.io", "", ""),
    ("list watch", "authorizationpolicies.gauze.dev trafficpolicies.gauze.dev", "", ""),
    ("list watch", "trafficsplits.split.smi-spec.io", "", ""),
    ("list watch", "httproutegroups.specs.smi-spec.io", "", ""),
    (
        "list watch",
        "grpcroutes.gateway.networking.k8s.io httproutes.gateway.networking.k8s.io tlsroutes.gateway.networking.k8s.io",
        "",
        "",
    ),
    ("patch", "authorizationpolicies/status.gauze.dev trafficpolicies/status.gauze.dev", "", ""),
    ("patch", "trafficsplits/status.split.smi-spec.io", "", ""),
    (
        "patch",
        "grpcroutes/status.gateway.networking.k8s.io httproutes/status.gateway.networking.k8s.io tlsroutes/status.gateway.networking.k8s.io",
        "",
        "",
    ),
    ("create", "events.events.k8s.io", "", ""),
    ("create", "tokenreviews.authentication.k8s.io", "", ""),
    ("list watch create patch", "configmaps", "gauze-trust", ""),
    ("list watch patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "gauze-injector", ""),
    (
        "list watch patch",
        "customresourcedefinitions.apiextensions.k8s.io",
        "trafficsplits.split.smi-spec.io",
        "",
    ),
    ("get create patch", "secrets", "gauze-root", SYSTEM),
    ("get watch create update", "leases.coordination.k8s.io", "", SYSTEM),
];

/// Rights without which it would not work elsewhere, and that a server of this version never makes it use.
const ELSEWHERE: [(&str, &str); 1] =
    [("list", "before Kubernetes 1.35 a server may not stream lists; then the same is listed")];

#[tokio::test]
async fn the_control_plane_uses_each_right_that_it_has_and_asks_for_no_other() {
    let Some(installed) = Installed::start().await else { return };
    let allowed = allowed();
    let rendered = rendered(&installed).await;
    let other: Vec<String> = rendered.symmetric_difference(&allowed).map(ToString::to_string).collect();
    assert!(other.is_empty(), "only in one of the chart's rules and those listed here: {other:#?}");

    let control_plane = start_control_plane(&installed).await;
    installed.server.apply(&one_of_each_kind()).await;
    what_happens_in_a_mesh(&installed, &control_plane).await;

    let used = eventually("every right is used", async || {
        let used = used(&installed);
        let idle: Vec<String> = allowed
            .iter()
            .filter(|right| !used.iter().any(|used| right.covers(used)))
            .filter(|right| !ELSEWHERE.iter().any(|(verb, _)| right.verb == *verb))
            .map(ToString::to_string)
            .collect();
        holds(idle.is_empty(), format!("nothing uses {idle:#?}"))?;
        Ok::<_, String>(used)
    })
    .await;
    let beyond: Vec<String> = used
        .iter()
        .filter(|used| !allowed.iter().any(|right| right.covers(used)))
        .map(ToString::to_string)
        .collect();
    assert!(beyond.is_empty(), "it asks for what it may not: {beyond:#?}\n{}", control_plane.log());
}

impl Right {
    fn covers(&self, used: &Right) -> bool {
        let one = |rule: &str, used: &str| rule.is_empty() || rule == used;
        self.verb == used.verb
            && self.resource == used.resource
            && one(&self.name, &used.name)
            && one(&self.namespace, &used.namespace)
    }
}

fn allowed() -> BTreeSet<Right> {
    let rows = ALLOWED.iter().flat_map(|(verbs, resources, name, namespace)| {
        combine(
            verbs.split(' ').map(ToOwned::to_owned).collect(),
            resources.split(' ').map(ToOwned::to_owned).collect(),
            vec![(*name).to_owned()],
            namespace,
        )
    });
    rows.collect()
}

fn combine(verbs: Vec<String>, resources: Vec<String>, names: Vec<String>, namespace: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for verb in &verbs {
        for resource in &resources {
            rights.extend(names.iter().map(|name| Right {
                verb: verb.clone(),
                resource: resource.clone(),
                name: name.clone(),
                namespace: namespace.to_owned(),
            }));
        }
    }
    rights
}

/// What roles the API server holds for the control plane's ServiceAccount.
async fn rendered(installed: &Installed) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for (kind, namespace) in [("role", SYSTEM), ("clusterrole", "")] {
        let role = installed.object(kind, "gauze-control-plane").await;
        for rule in role["rules"].as_array().expect("rules") {
            let groups = texts(&rule["apiGroups"]);
            let resources: Vec<String> = texts(&rule["resources"])
                .iter()
                .flat_map(|resource| {
                    groups.iter().map(|group| qualified(resource, group)).collect::<Vec<_>>()
                })
                .collect();
            let names = rule["resourceNames"]
                .as_array()
                .map_or(vec![String::new()], |_| texts(&rule["resourceNames"]));
            rights.extend(combine(texts(&rule["verbs"]), resources, names, namespace));
        }
    }
    rights
}

fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// What the control plane asked of the API server, by the audit log. Questions about itself need no right.
fn used(installed: &Installed) -> BTreeSet<Right> {
    let user = format!("system:serviceaccount:{SYSTEM}:gauze-control-plane");
    let log = installed.server.audit();
    // The last line may still be being written.
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours =
        events.filter(|event| event["user"]["username"] == user.as_str() && event["objectRef"].is_object());
    ours.flat_map(|event| rights_of(&event)).collect()
}

fn rights_of(event: &Value) -> Vec<Right> {
    let object = &event["objectRef"];
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let subresource = text("subresource");
    let resource = text("resource") + if subresource.is_empty() { "" } else { "/" } + &subresource;
    let mut verbs = vec![event["verb"].as_str().unwrap_or_default().to_owned()];
    // A server-side apply that makes an object is authorised as both.
    if verbs[0] == "patch" && event["responseStatus"]["code"] == 201 {
        verbs.push("create".to_owned());
    }
    combine(verbs, vec![qualified(&resource, &text("apiGroup"))], vec![text("name")], &text("namespace"))
}

/// The control plane as kubelet would start it, apart from its addresses.
async fn start_control_plane(installed: &Installed) -> Process {
    installed.server.apply(&gateway_kinds()).await;
    let pod = eventually("the control plane's pod", async || {
        let names = installed.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).await;
        holds(names.starts_with("gauze-control-plane-"), names.clone()).map(|()| names)
    })
    .await;
    let deployment = installed.object("deployment", "gauze-control-plane").await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let state = installed.server.kubeconfig().with_file_name("run");
    let mut arguments: Vec<String> =
        texts(&container["args"]).iter().map(|argument| on_the_loopback(argument)).collect();
    arguments.push(format!("--state-directory={}", state.display()));
    let kubeconfig = installed.server.kubeconfig_for(SYSTEM, "gauze-control-plane").await;
    arguments.extend([format!("--kubeconfig={}", kubeconfig.display()), format!("--pod-name={pod}")]);
    arguments.retain(|argument| argument != "--state-directory=/run/gauze");
    Process::start("gauze-control-plane", &arguments).await
}

fn on_the_loopback(argument: &str) -> String {
    match argument.split_once("=[::]:") {
        Some((flag, _port)) => format!("{flag}=127.0.0.1:0"),
        None => argument.to_owned(),
    }
}

/// Gateway API's kinds as the API server knows them, without their fields.
fn gateway_kinds() -> String {
    let kinds = [("HTTPRoute", "httproutes"), ("GRPCRoute", "grpcroutes"), ("TLSRoute", "tlsroutes")];
    let definitions = kinds.map(|(kind, plural)| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.gateway.networking.k8s.io"),
                "annotations": { "api-approved.kubernetes.io": "unapproved, for a test" },
            },
            "spec": {
                "group": "gateway.networking.k8s.io",
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                    "subresources": { "status": {} },
                }],
            },
        })
        .to_string()
    });
    definitions.join("\n---\n")
}

/// Objects whose statuses are to be written.
fn one_of_each_kind() -> String {
    let parent = "parentRefs: [{group: '', kind: Service, name: nobody}]";
    let target = "targetRefs: [{kind: Service, name: nobody}]";
    let object = |api_version: &str, kind: &str, spec: &str| {
        format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: cart}}, spec: {{{spec}}}}}")
    };
    [
        object("gateway.networking.k8s.io/v1", "HTTPRoute", parent),
        object("gateway.networking.k8s.io/v1", "GRPCRoute", parent),
        object("gateway.networking.k8s.io/v1", "TLSRoute", parent),
        object("gauze.dev/v1alpha1", "TrafficPolicy", &format!("{target}, connectTimeout: 2s")),
        object("gauze.dev/v1alpha1", "AuthorizationPolicy", target),
        object(
            "split.smi-spec.io/v1alpha4",
            "TrafficSplit",
            "service: nobody, backends: [{service: v1, weight: 1}]",
        ),
    ]
    .join("\n---\n")
}

/// A namespace joins, and a sidecar asks for its certificate.
async fn what_happens_in_a_mesh(installed: &Installed, control_plane: &Process) {
    let server = &installed.server;
    server
        .apply(
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {gauze.dev/inject: enabled}}}\n---\n\
             {apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: shop}}\n---\n\
             {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {gauze.dev/inject: disabled}}, \
             spec: {serviceAccountName: web, initContainers: [{name: gauze-proxy, image: gauze-proxy, restartPolicy: Always}], containers: [{name: web, image: web}]}}",
        )
        .await;
    let roots = eventually("gauze-trust in the namespace", async || {
        server
            .kubectl(&["get", "configmap", "gauze-trust", "-n", "shop", "-o", r"jsonpath={.data.roots\.pem}"])
            .await
    })
    .await;
    let token = [
        "create",
        "token",
        "web",
        "-n",
        "shop",
        "--audience=gauze",
        "--bound-object-kind=Pod",
        "--bound-object-name=web",
    ];
    let token = server.kubectl(&token).await.expect("the pod is there");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [roots, token] = [("roots.pem", roots), ("token", token)].map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text.trim()).expect("the folder is ours");
        path.display().to_string()
    });
    let arguments = [
        "--mode=none".to_owned(),
        "--namespace=shop".to_owned(),
        "--pod=web".to_owned(),
        "--pod-ip=127.0.0.1".to_owned(),
        "--service-account=web".to_owned(),
        format!("--control-plane={}", control_plane.address("grpc")),
        format!("--trust-roots={roots}"),
        format!("--token={token}"),
        format!("--system-namespace={SYSTEM}"),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--metrics-listen=127.0.0.1:0".to_owned(),
    ];
    let sidecar = Process::start("gauze-proxy", &arguments).await;
    eventually("the sidecar's certificate", async || {
        let answer = client::call(Protocol::Http1, sidecar.address("admin"), "admin", "/certs", "").await;
        let answer = answer.map_err(|error| error.to_string())?.text();
        holds(answer.contains("spiffe://cluster.local/ns/shop/sa/web"), answer)
    })
    .await;
}
