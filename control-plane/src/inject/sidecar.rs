//! What is put into a pod: the init step that programs the redirect, the sidecar, and two volumes.

use serde_json::{Value, json};

use super::settings::{Amount, Injector};
use super::wishes::{Bounds, Wishes};
use super::{PROBE_PORT, PROXY_USER, REDIRECT, SIDECAR, VOLUMES};

const IDENTITY_PATH: &str = "/var/run/gauze/identity";
const ADMIN_PATH: &str = "/var/run/gauze/admin";
/// The audience of the workload token, which the control plane asks for in its TokenReview.
const AUDIENCE: &str = "gauze";
/// The least that Kubernetes allows.
const TOKEN_SECONDS: u32 = 600;
/// The roots of the mesh, as the control plane keeps them in every namespace that has injected pods.
const TRUST_CONFIG_MAP: &str = "gauze-trust";
/// Seconds for which the app waits for its sidecar at start: a control plane may be away that long.
const STARTUP_SECONDS: u32 = 600;

/// The init step. NET_ADMIN is all that it can, and it ends before anything else of the pod starts.
pub(super) fn redirect(pod: &Value, wishes: &Wishes, injector: &Injector) -> Value {
    let mut args = vec!["redirect".to_owned()];
    args.extend(skipped(wishes));
    json!({
        "name": REDIRECT,
        "image": injector.settings.proxy_image,
        "imagePullPolicy": injector.settings.proxy_image_pull_policy.as_str(),
        "args": args,
        "resources": resources(pod, wishes, injector),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            // Said, since the pod may say otherwise for all its containers.
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

/// The sidecar: within Kubernetes' `restricted` profile.
pub(super) fn proxy(pod: &Value, wishes: &Wishes, injector: &Injector) -> Value {
    json!({
        "name": SIDECAR,
        "image": injector.settings.proxy_image,
        "imagePullPolicy": injector.settings.proxy_image_pull_policy.as_str(),
        "restartPolicy": "Always",
        "args": arguments(pod, wishes, injector),
        "env": [
            field("GAUZE_NAMESPACE", "metadata.namespace"),
            field("GAUZE_POD", "metadata.name"),
            field("GAUZE_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("GAUZE_POD_IPS", "status.podIPs"),
            // Here and not in the arguments, so that `gauze-proxy ask` finds it too.
            { "name": "GAUZE_ADMIN_SOCKET", "value": format!("{ADMIN_PATH}/admin.sock") },
        ],
        "ports": [{ "name": "gauze-metrics", "containerPort": PROBE_PORT, "protocol": "TCP" }],
        // Kubelet runs it when the pod begins to end, beside the app's own; SIGTERM comes only after the app has exited.
        "lifecycle": { "preStop": { "exec": { "command": ["/gauze-proxy", "drain"] } } },
        "startupProbe": ready(json!({ "periodSeconds": 1, "failureThreshold": STARTUP_SECONDS })),
        "readinessProbe": ready(json!({ "periodSeconds": 5, "timeoutSeconds": 3 })),
        "resources": resources(pod, wishes, injector),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_USER,
            "runAsNonRoot": true,
            "runAsUser": PROXY_USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            { "name": VOLUMES[0], "mountPath": IDENTITY_PATH, "readOnly": true },
            { "name": VOLUMES[1], "mountPath": ADMIN_PATH },
        ],
    })
}

/// One of [`VOLUMES`]. The socket lies in memory: a volume on disk would keep the autoscaler from removing the node.
pub(super) fn volume(name: &str) -> Value {
    if name != VOLUMES[0] {
        return json!({ "name": name, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } });
    }
    let token = json!({ "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token" });
    let roots = json!({ "name": TRUST_CONFIG_MAP, "items": [{ "key": "roots.pem", "path": "roots.pem" }] });
    json!({ "name": name, "projected": { "sources": [{ "serviceAccountToken": token }, { "configMap": roots }] } })
}

fn arguments(pod: &Value, wishes: &Wishes, injector: &Injector) -> Vec<String> {
    let settings = &injector.settings;
    let networks: Vec<String> = injector.mesh_networks.iter().map(ToString::to_string).collect();
    let access_log = wishes.access_log.as_ref().unwrap_or(&settings.proxy_access_log);
    let mut arguments = vec![
        format!("--control-plane={}", injector.control_plane_address()),
        format!("--trust-domain={}", injector.trust_domain),
        format!("--system-namespace={}", injector.system_namespace),
        format!("--trust-roots={IDENTITY_PATH}/roots.pem"),
        format!("--token={IDENTITY_PATH}/token"),
        format!("--mesh-networks={}", networks.join(",")),
        format!("--log-level={}", wishes.log_level.as_ref().unwrap_or(&settings.proxy_log_level)),
        format!("--access-log={access_log}"),
        // SIGTERM comes when the app has ended, so there is nothing to wait for, even if the order to drain was lost.
        "--drain-time=0s".to_owned(),
    ];
    let app = ("--app", label(pod, ["app.kubernetes.io/name", "app"]));
    let version = ("--app-version", label(pod, ["app.kubernetes.io/version", "version"]));
    arguments.extend(
        [app, version].iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value.as_ref()?))),
    );
    arguments.extend(skipped(wishes));
    arguments.into_iter().map(literal).collect()
}

/// An argument that kubelet hands over as it is: in others it replaces `$(NAME)`.
pub(super) fn literal(argument: String) -> String {
    argument.replace('$', "$$")
}

/// What the redirect leaves alone. The sidecar gets the same: from its arguments the control plane learns which
/// ports of this pod are not in the mesh.
fn skipped(wishes: &Wishes) -> impl Iterator<Item = String> {
    let networks: Vec<String> = wishes.skip_outbound_cidrs.iter().map(ToString::to_string).collect();
    let all = [
        ("--skip-inbound-ports", wishes.skip_inbound_ports.to_string()),
        ("--skip-outbound-ports", wishes.skip_outbound_ports.to_string()),
        ("--skip-outbound-cidrs", networks.join(",")),
    ];
    all.into_iter().filter(|(_, list)| !list.is_empty()).map(|(flag, list)| format!("{flag}={list}"))
}

/// The same labels as in `translate`: what peers call this workload.
fn label(pod: &Value, keys: [&str; 2]) -> Option<String> {
    let labels = &pod["metadata"]["labels"];
    keys.iter().find_map(|key| labels[*key].as_str()).map(str::to_owned)
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } })
}

fn ready(mut probe: Value) -> Value {
    probe["httpGet"] = json!({ "path": "/ready", "port": PROBE_PORT, "scheme": "HTTP" });
    probe
}

/// What the sidecar reserves and may use, without what the pod as a whole has bounds for (`spec.resources`): those
/// hold for the sidecar too, and it must fit in.
fn resources(pod: &Value, wishes: &Wishes, injector: &Injector) -> Value {
    let settings = &injector.settings;
    let cpu = bounds(wishes.cpu.as_ref(), &settings.proxy_cpu_request, &settings.proxy_cpu_limit);
    let memory = bounds(wishes.memory.as_ref(), &settings.proxy_memory_request, &settings.proxy_memory_limit);
    let mut resources = json!({});
    for (name, (request, limit)) in [("cpu", cpu), ("memory", memory)] {
        for (list, amount) in [("requests", request), ("limits", limit)] {
            let of_pod = &pod["spec"]["resources"];
            let is_bounded = ["requests", "limits"].iter().any(|list| !of_pod[*list][name].is_null());
            if let Some(amount) = amount.filter(|_| !is_bounded) {
                resources[list][name] = amount.as_str().into();
            }
        }
    }
    resources
}

fn bounds(wished: Option<&Bounds>, request: &Amount, limit: &Amount) -> (Amount, Amount) {
    match wished {
        Some(wished) => (Some(wished.request.clone()), wished.limit.clone().or_else(|| limit.clone())),
        None => (request.clone(), limit.clone()),
    }
}
