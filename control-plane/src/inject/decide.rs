//! Which rule decides about a pod. The order is the point: the first rule that says something decides, and its name
//! and sentence are what people see: in `gauze inject --explain`, in the pod's annotation, in refusals.

use std::fmt;

use gauze_model::Code;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodSpec};

use super::settings::Injector;
use super::wishes::{self, Wishes};
use super::{Finding, INJECT, OWN_PORTS, PROXY_USER, REDIRECT, SIDECAR, VOLUMES, is_ours, probes};

/// Namespaces that the cluster itself lives in; the control plane's own is one more.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What is done with a pod, why, and what else there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub action: Action,
    /// The rule that decided.
    pub rule: Rule,
    /// What its author should know, whatever was decided.
    pub warnings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It gets our sidecar.
    Inject(Box<Wishes>),
    /// It stays as it is.
    Leave,
    /// It asks for what cannot be, for all of these reasons; in a cluster it is not created.
    Refuse(Vec<Finding>),
}

/// The rules, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    SystemNamespace,
    PodLabel,
    PodAnnotation,
    NamespaceLabel,
    NotAsked,
    StaticPod,
    HostNetwork,
    Windows,
    ProxyUser,
    ProxyName,
    ProxyPort,
    Annotations,
}

/// What is known of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub namespace: String,
    /// Its label `gauze.dev/inject`, if it has it.
    pub label: Option<String>,
}

impl Asked {
    pub fn by(namespace: &Namespace) -> Asked {
        let metadata = &namespace.metadata;
        Asked {
            namespace: metadata.name.clone().unwrap_or_default(),
            label: metadata.labels.as_ref().and_then(|labels| labels.get(INJECT).cloned()),
        }
    }
}

/// Whether a pod gets our sidecar. A pod that has it already is decided about as if it had not.
pub fn decide(pod: &Pod, namespace: &Asked, injector: &Injector) -> Decision {
    let mut warnings = Vec::new();
    let (rule, action) = match consider(pod, namespace, injector, &mut warnings) {
        Ok((rule, wishes)) => (rule, Action::Inject(Box::new(wishes))),
        Err(Stop { rule, action }) => (rule, action),
    };
    Decision { action, rule, warnings }
}

/// A rule that ends the matter, against injection.
struct Stop {
    rule: Rule,
    action: Action,
}

fn consider(
    pod: &Pod,
    namespace: &Asked,
    injector: &Injector,
    warnings: &mut Vec<Finding>,
) -> Result<(Rule, Wishes), Stop> {
    let name = namespace.namespace.as_str();
    if SYSTEM_NAMESPACES.contains(&name) || name == injector.system_namespace {
        return Err(leave(Rule::SystemNamespace));
    }
    let asked = asked(pod, namespace, warnings)?;
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let by_pod = asked != Rule::NamespaceLabel;
    let impossible = [
        (Rule::StaticPod, static_pod(pod)),
        (Rule::HostNetwork, host_network(spec)),
        (Rule::Windows, windows(spec)),
    ];
    for (rule, found) in impossible {
        let Some(finding) = found else { continue };
        // A namespace asks for all its pods, so that is no slip.
        warnings.extend(by_pod.then_some(finding));
        return Err(leave(rule));
    }
    refuse(Rule::ProxyUser, runs_as_proxy(spec))?;
    refuse(Rule::ProxyName, names_taken(spec))?;
    refuse(Rule::ProxyPort, ports_taken(spec))?;
    let read = wishes::read(&pod.metadata, &injector.settings);
    let wishes = read.or_else(|findings| refuse(Rule::Annotations, findings).map(|()| Wishes::default()))?;
    warnings.extend(wishes::unknown_keys(&pod.metadata));
    warnings.extend(processes_shared(spec));
    warnings.extend(cluster_dns_unused(spec));
    warnings.extend(probe_ports_unknown(spec));
    Ok((asked, wishes))
}

fn leave(rule: Rule) -> Stop {
    Stop { rule, action: Action::Leave }
}

fn refuse(rule: Rule, findings: Vec<Finding>) -> Result<(), Stop> {
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Stop { rule, action: Action::Refuse(findings) }),
    }
}

/// Who asks for injection: the pod's label, else its annotation, else the namespace's label.
fn asked(pod: &Pod, namespace: &Asked, warnings: &mut Vec<Finding>) -> Result<Rule, Stop> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(INJECT));
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(INJECT));
    if let (Some(label), Some(annotation)) = (label, annotation)
        && label != annotation
    {
        let message =
            format!("label {INJECT} is `{label}` and the annotation is `{annotation}`; the label counts");
        warnings.push(Finding::new(Code::INJECT_VALUES_DISAGREE, message));
    }
    let of_pod = label.map(|value| (Rule::PodLabel, value));
    let of_pod = of_pod.or(annotation.map(|value| (Rule::PodAnnotation, value)));
    let Some((rule, value)) = of_pod.or(namespace.label.as_ref().map(|value| (Rule::NamespaceLabel, value)))
    else {
        return Err(leave(Rule::NotAsked));
    };
    match (value.as_str(), rule) {
        ("enabled", _) => Ok(rule),
        ("disabled", _) => Err(leave(rule)),
        // The API server does not ask us about pods of such a namespace.
        (_, Rule::NamespaceLabel) => {
            warnings.push(not_understood("the namespace's label", value));
            Err(leave(Rule::NotAsked))
        }
        (_, Rule::PodLabel) => refuse(rule, vec![not_understood("label", value)]).map(|()| rule),
        (_, _) => refuse(rule, vec![not_understood("annotation", value)]).map(|()| rule),
    }
}

fn not_understood(what: &str, value: &str) -> Finding {
    let message = format!("{what} {INJECT}: `{value}` is not understood; write enabled or disabled");
    Finding::new(Code::INJECT_VALUE_UNKNOWN, message)
}

/// kubelet runs it from a file, whatever the API server's copy says.
fn static_pod(pod: &Pod) -> Option<Finding> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let message = "the pod asks for a sidecar and is the mirror of a static pod, so it is left alone";
    annotations.contains_key("kubernetes.io/config.mirror").then(|| Finding::new(Code::STATIC_POD, message))
}

fn host_network(spec: &PodSpec) -> Option<Finding> {
    let message = "the pod asks for a sidecar and has spec.hostNetwork: true, so it is left alone";
    (spec.host_network == Some(true)).then(|| Finding::new(Code::HOST_NETWORK, message))
}

fn windows(spec: &PodSpec) -> Option<Finding> {
    let of_node = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get("kubernetes.io/os").is_some_and(|os| os == "windows")
    };
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows")
        || spec.node_selector.as_ref().is_some_and(of_node);
    let message = "the pod asks for a sidecar and is for Windows (spec.os.name), so it is left alone";
    windows.then(|| Finding::new(Code::WINDOWS_POD, message))
}

/// The containers that are not ours, with their field paths.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| (format!("spec.initContainers[{index}]"), container));
    let apps = spec.containers.iter().enumerate();
    let apps = apps.map(|(index, container)| (format!("spec.containers[{index}]"), container));
    init.filter(|(_, container)| !is_ours(container)).chain(apps)
}

fn runs_as_proxy(spec: &PodSpec) -> Vec<Finding> {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let found = containers(spec).filter_map(|(path, container)| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        let path = match own {
            Some(_) => format!("{path}.securityContext.runAsUser"),
            None => "spec.securityContext.runAsUser".to_owned(),
        };
        (own.or(of_pod) == Some(PROXY_USER)).then(|| {
            let name = &container.name;
            format!(
                "{path}: container `{name}` would run as {PROXY_USER}, the proxy's user, and pass by the mesh"
            )
        })
    });
    found.map(|message| Finding::new(Code::PROXY_USER_TAKEN, message)).collect()
}

fn names_taken(spec: &PodSpec) -> Vec<Finding> {
    let taken =
        containers(spec).filter(|(_, container)| [SIDECAR, REDIRECT].contains(&container.name.as_str()));
    let taken = taken.map(|(path, container)| {
        format!("{path}.name: `{}` is the name of a container of the mesh; rename it", container.name)
    });
    let is_injected = spec.init_containers.iter().flatten().any(is_ours);
    let volumes = spec.volumes.iter().flatten().enumerate();
    let volumes = volumes.filter(|(_, volume)| !is_injected && VOLUMES.contains(&volume.name.as_str()));
    let volumes = volumes.map(|(index, volume)| {
        format!(
            "spec.volumes[{index}].name: `{}` is the name of a volume of the mesh; rename it",
            volume.name
        )
    });
    taken.chain(volumes).map(|message| Finding::new(Code::PROXY_NAME_TAKEN, message)).collect()
}

fn ports_taken(spec: &PodSpec) -> Vec<Finding> {
    let ports = containers(spec).flat_map(|(path, container)| {
        let ports = container.ports.iter().flatten().enumerate();
        ports.map(move |(index, port)| (format!("{path}.ports[{index}].containerPort"), port))
    });
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
    let taken = ports.filter(|(_, port)| is_tcp(port.protocol.as_deref()));
    let taken = taken.filter(|(_, port)| OWN_PORTS.iter().any(|own| i32::from(*own) == port.container_port));
    let taken = taken.map(|(path, port)| {
        format!("{path}: {} is a port of the proxy; let the app listen on another", port.container_port)
    });
    taken.map(|message| Finding::new(Code::PROXY_PORT_TAKEN, message)).collect()
}

fn processes_shared(spec: &PodSpec) -> Option<Finding> {
    let message = "spec.shareProcessNamespace: the app can see the proxy's process, and as root read its key";
    (spec.share_process_namespace == Some(true)).then(|| Finding::new(Code::PROCESSES_SHARED, message))
}

fn cluster_dns_unused(spec: &PodSpec) -> Option<Finding> {
    let policy = spec.dns_policy.as_deref().filter(|policy| matches!(*policy, "Default" | "None"))?;
    let message =
        format!("spec.dnsPolicy: with `{policy}` the proxy may not find the control plane by its name");
    Some(Finding::new(Code::CLUSTER_DNS_UNUSED, message))
}

fn probe_ports_unknown(spec: &PodSpec) -> Vec<Finding> {
    let unknown = containers(spec).flat_map(|(path, container)| {
        probes::unknown_ports(container).into_iter().map(move |(field, name)| {
            format!("{path}.{field}: container `{}` declares no port `{name}`", container.name)
        })
    });
    unknown.map(|message| Finding::new(Code::PROBE_PORT_UNKNOWN, message)).collect()
}

impl Rule {
    /// The rule by its name, as scripts see it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::SystemNamespace => "system-namespace",
            Rule::PodLabel => "pod-label",
            Rule::PodAnnotation => "pod-annotation",
            Rule::NamespaceLabel => "namespace-label",
            Rule::NotAsked => "not-asked",
            Rule::StaticPod => "static-pod",
            Rule::HostNetwork => "host-network",
            Rule::Windows => "windows",
            Rule::ProxyUser => "proxy-user",
            Rule::ProxyName => "proxy-name",
            Rule::ProxyPort => "proxy-port",
            Rule::Annotations => "annotations",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Decision {
    /// Whether the pod gets our sidecar.
    pub fn injects(&self) -> bool {
        matches!(self.action, Action::Inject(_))
    }

    /// Why, in half a sentence: `label gauze.dev/inject of the pod is enabled`.
    pub fn reason(&self) -> String {
        let value = if self.injects() { "enabled" } else { "disabled" };
        match (&self.action, self.rule) {
            (Action::Refuse(findings), _) => {
                let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
                messages.join("; ")
            }
            (_, Rule::SystemNamespace) => "pods of system namespaces are never injected".to_owned(),
            (_, Rule::PodLabel) => format!("label {INJECT} of the pod is {value}"),
            (_, Rule::PodAnnotation) => format!("annotation {INJECT} of the pod is {value}"),
            (_, Rule::NamespaceLabel) => format!("label {INJECT} of the namespace is {value}"),
            (_, Rule::NotAsked) => format!("neither pod nor namespace has {INJECT}: enabled"),
            (_, Rule::StaticPod) => "kubelet runs the pod from a file".to_owned(),
            (_, Rule::HostNetwork) => "the pod is on its node's network (hostNetwork)".to_owned(),
            (_, Rule::Windows) => "the pod is for Windows".to_owned(),
            (_, rule) => rule.name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
