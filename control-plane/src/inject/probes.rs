//! Probes and hooks that the sidecar asks in kubelet's place: kubelet has no identity, and a redirected TCP probe would
//! find a dead app alive. What becomes of them: a handler of the sidecar's own port, and an argument that says what to ask.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::wishes::Ports;
use super::{OWN_PORTS, PROBE_PORT};

/// The probes of a container, by their fields, and as the sidecar calls them.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "live"), ("readinessProbe", "ready"), ("startupProbe", "startup")];
const HOOKS: [(&str, &str); 2] = [("postStart", "post-start"), ("preStop", "pre-stop")];
/// kubelet's own default.
const TIMEOUT_SECONDS: u64 = 1;

/// How probes and hooks are rewritten.
pub(super) struct Rewrite<'p> {
    /// Ports that pass by the proxy: kubelet reaches the app there itself.
    pub(super) skipped: &'p Ports,
    /// Ends the path of every hook.
    pub(super) word: &'p str,
}

/// A port as a handler names it.
enum Target {
    /// Of the app.
    Port(u16),
    /// Of nothing that the sidecar could ask in kubelet's place: another host, or a port that passes by it.
    Elsewhere,
    /// A name that no port of the container has.
    Unknown(String),
}

impl Rewrite<'_> {
    /// Rewrites a container's probes and hooks, and returns the arguments that tell the sidecar of them.
    pub(super) fn container(&self, container: &mut Value) -> Vec<String> {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let ports = container["ports"].clone();
        let mut arguments = Vec::new();
        for (field, kind) in PROBES {
            let Some(probe) = container.get_mut(field).filter(|probe| probe.is_object()) else { continue };
            let timeout = probe["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS);
            let Some(mut asked) = self.take(probe, &["httpGet", "tcpSocket", "grpc"], &ports) else {
                continue;
            };
            asked["timeoutSeconds"] = timeout.into();
            probe["httpGet"] = own(&format!("/probe/{name}/{kind}"));
            arguments.push(format!("--probe={name}/{kind}={asked}"));
        }
        for (field, kind) in HOOKS {
            let hook = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field));
            let Some(hook) = hook.filter(|hook| hook.is_object()) else { continue };
            let Some(asked) = self.take(hook, &["httpGet"], &ports) else { continue };
            let path = format!("{name}/{kind}/{}", self.word);
            hook["httpGet"] = own(&format!("/hook/{path}"));
            arguments.push(format!("--hook={path}={asked}"));
        }
        arguments
    }

    /// Takes the handler out of a probe or hook, with its port as a number, if the sidecar can ask in kubelet's place.
    fn take(&self, probe: &mut Value, kinds: &[&str], ports: &Value) -> Option<Value> {
        let kind = kinds.iter().find(|kind| probe[**kind].is_object())?;
        let mut handler = probe[*kind].clone();
        let Target::Port(port) = target(&handler, ports, self.skipped) else { return None };
        handler["port"] = port.into();
        handler.as_object_mut()?.remove("host");
        if *kind == "httpGet" {
            complete(&mut handler);
        }
        probe.as_object_mut()?.remove(*kind);
        Some(json!({ *kind: handler }))
    }
}

/// Probes and hooks of this container that name a port which it does not declare: field and name.
pub(super) fn unknown_ports(container: &Container) -> Vec<(String, String)> {
    let container = json!(container);
    let probes = PROBES.iter().map(|(field, _)| ((*field).to_owned(), container[*field].clone()));
    let hooks =
        HOOKS.iter().map(|(field, _)| (format!("lifecycle.{field}"), container["lifecycle"][*field].clone()));
    let handlers = probes.chain(hooks).flat_map(|(field, probe)| {
        ["httpGet", "tcpSocket"].map(|kind| (format!("{field}.{kind}.port"), probe[kind].clone()))
    });
    let handlers = handlers.filter(|(_, handler)| handler.is_object());
    let named = handlers.filter_map(|(path, handler)| {
        let Target::Unknown(name) = target(&handler, &container["ports"], &Ports::default()) else {
            return None;
        };
        Some((path, name))
    });
    named.collect()
}

/// With the API server's defaults, which a file need not have.
fn complete(http: &mut Value) {
    for (field, default) in [("path", "/"), ("scheme", "HTTP")] {
        if http[field].as_str().is_none_or(str::is_empty) {
            http[field] = default.into();
        }
    }
}

fn own(path: &str) -> Value {
    json!({ "path": path, "port": PROBE_PORT, "scheme": "HTTP" })
}

/// What a handler asks. A `host` of its own is dialled by kubelet from the node, and not through the pod's redirect.
fn target(handler: &Value, ports: &Value, skipped: &Ports) -> Target {
    if handler["host"].as_str().is_some_and(|host| !host.is_empty()) {
        return Target::Elsewhere;
    }
    let port = match &handler["port"] {
        Value::String(name) => named(name, ports).or_else(|| name.parse().ok()),
        number => number.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    match port {
        None => Target::Unknown(handler["port"].as_str().unwrap_or_default().to_owned()),
        Some(port) if OWN_PORTS.contains(&port) || skipped.contains(port) => Target::Elsewhere,
        Some(port) => Target::Port(port),
    }
}

fn named(name: &str, ports: &Value) -> Option<u16> {
    let port = ports.as_array()?.iter().find(|port| port["name"] == name)?;
    u16::try_from(port["containerPort"].as_u64()?).ok()
}
