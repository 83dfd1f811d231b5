//! The pod with our sidecar. Values in, values out: fields that this version of Kubernetes' types does not know stay.
//!
//! A pod that is injected already (the API server asks again when another webhook changed something) keeps our
//! containers as they are, changes of others included; they are put first again, and what was added since is rewritten.

use serde_json::{Value, json};

use super::probes::Rewrite;
use super::settings::Injector;
use super::wishes::Wishes;
use super::{INJECTED, REDIRECT, Rule, SIDECAR, VOLUMES, is_ours};
use super::{pre_stop, sidecar};

/// Where the ServiceAccount admission plugin mounts the app's API token into every container.
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What kubectl takes where no container is named.
const DEFAULT_CONTAINERS: [&str; 2] =
    ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"];

/// The pod as it is after injection, for the reason of [`decide`](super::decide). `word` ends the paths of hooks, so
/// that nobody else can call them: it must be drawn at random for each pod.
pub fn inject(
    pod: &Value,
    rule: Rule,
    reason: &str,
    wishes: &Wishes,
    injector: &Injector,
    word: &str,
) -> Value {
    let mut pod = pod.clone();
    let mut others = array(&pod["spec"]["initContainers"]);
    let mut apps = array(&pod["spec"]["containers"]);
    let was_injected = others.iter().any(|container| is(SIDECAR, container));
    let redirect = take(&mut others, REDIRECT).unwrap_or_else(|| sidecar::redirect(&pod, wishes, injector));
    let proxy = take(&mut others, SIDECAR).unwrap_or_else(|| sidecar::proxy(&pod, wishes, injector));

    let seconds = wishes.pre_stop_sleep.unwrap_or(injector.settings.pre_stop_sleep);
    if pre_stop::waits(&pod["spec"], seconds) {
        apps.iter_mut().for_each(|container| pre_stop::wait(container, seconds));
    }
    let rewrite = Rewrite { skipped: &wishes.skip_inbound_ports, word };
    let restartable = others.iter_mut().filter(|container| container["restartPolicy"] == "Always");
    let arguments: Vec<String> =
        restartable.chain(&mut apps).flat_map(|container| rewrite.container(container)).collect();

    annotate(
        &mut pod,
        &apps,
        was_injected,
        &format!("{rule}: {reason}, by gauze {}", env!("CARGO_PKG_VERSION")),
    );
    let mut init = vec![without_api_token(redirect), without_api_token(with_arguments(proxy, arguments))];
    init.append(&mut others);
    pod["spec"]["initContainers"] = init.into();
    pod["spec"]["containers"] = apps.into();
    pod["spec"]["volumes"] = volumes(array(&pod["spec"]["volumes"])).into();
    pod
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn is(name: &str, container: &Value) -> bool {
    container["name"] == name
        && serde_json::from_value(container.clone()).is_ok_and(|container| is_ours(&container))
}

fn take(containers: &mut Vec<Value>, name: &str) -> Option<Value> {
    let at = containers.iter().position(|container| is(name, container))?;
    Some(containers.remove(at))
}

fn with_arguments(mut proxy: Value, arguments: Vec<String>) -> Value {
    let mut all = array(&proxy["args"]);
    all.extend(arguments.into_iter().map(sidecar::literal).map(Value::from));
    proxy["args"] = all.into();
    proxy
}

/// The sidecar has a token of its own, for the control plane only; the app's is none of its business.
fn without_api_token(mut container: Value) -> Value {
    if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
        mounts.retain(|mount| mount["mountPath"] != API_TOKEN);
    }
    container
}

fn volumes(mut volumes: Vec<Value>) -> Vec<Value> {
    for name in VOLUMES {
        if !volumes.iter().any(|volume| volume["name"] == name) {
            volumes.push(sidecar::volume(name));
        }
    }
    volumes
}

fn annotate(pod: &mut Value, apps: &[Value], was_injected: bool, why: &str) {
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    let annotations = &mut pod["metadata"]["annotations"];
    if !was_injected || annotations.get(INJECTED).is_none() {
        annotations[INJECTED] = why.into();
    }
    let Some(first) = apps.first().map(|app| &app["name"]) else { return };
    for key in DEFAULT_CONTAINERS {
        if annotations.get(key).is_none() {
            annotations[key] = first.clone();
        }
    }
}
