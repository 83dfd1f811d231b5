//! Who is meshed, and as whom. The pod's immutable spec decides, never a label or an annotation,
//! which others may edit.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gauze_model::cluster::{Transport, Workload};
use gauze_model::listener::Mtls;
use gauze_model::{Code, SpiffeId};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{annotation, annotation_path, name_of, namespace_of};
use crate::problem::Problem;
use crate::world::{ObjectKind, World, origin};

/// Our sidecar: an init container of this name with `restartPolicy: Always`.
const SIDECAR: &str = "gauze-proxy";
/// Names the ports, of the sidecar's arguments, that its redirect leaves alone.
const SKIP_INBOUND_PORTS: &str = "--skip-inbound-ports";
/// The sidecar's metrics and probes: answered by itself, in plaintext.
const METRICS_PORT: u16 = 15020;
pub(super) const MTLS_ANNOTATION: &str = "gauze.dev/mtls";

/// Whether our sidecar is in the pod.
pub fn is_meshed(pod: &Pod) -> bool {
    sidecar(pod).is_some()
}

/// Who a pod is, by its namespace and ServiceAccount.
pub fn identity(world: &World, pod: &Pod) -> SpiffeId {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    SpiffeId::new(&world.settings().trust_domain, namespace_of(&pod.metadata), account.unwrap_or("default"))
}

/// How this port of the pod must be dialled.
pub(super) fn transport(world: &World, pod: &Pod, port: u16) -> Transport {
    let meshed = sidecar(pod).is_some_and(|sidecar| port != METRICS_PORT && !skips(sidecar, port));
    match meshed && !is_on_host_network(pod) {
        true => Transport::Mesh(identity(world, pod)),
        false => Transport::Plain,
    }
}

/// The pod that has this address now: not one that has ended, nor one on its node's network.
pub(super) fn at(world: &World, address: IpAddr) -> Option<&Arc<Pod>> {
    world.pods_at(address).filter(|pod| owns(pod, address)).max_by_key(|pod| super::age(&pod.metadata))
}

/// Whether this address is the pod's own.
pub(super) fn owns(pod: &Pod, address: IpAddr) -> bool {
    is_at(pod, address) && !is_on_host_network(pod)
}

/// Whether a pod lives at this address, its own or its node's.
pub(super) fn is_at(pod: &Pod, address: IpAddr) -> bool {
    !has_ended(pod) && addresses(pod).contains(&address)
}

pub(super) fn workload(pod: &Pod) -> Workload {
    let labels = pod.metadata.labels.as_ref();
    let label = |keys: [&str; 2]| keys.iter().find_map(|key| labels?.get(*key)).cloned().unwrap_or_default();
    Workload {
        namespace: namespace_of(&pod.metadata).to_owned(),
        pod: name_of(&pod.metadata).to_owned(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        app: label(["app.kubernetes.io/name", "app"]),
        version: label(["app.kubernetes.io/version", "version"]),
    }
}

/// All addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<&String> = status.pod_ips.iter().flatten().map(|address| &address.ip).collect();
    let texts = if all.is_empty() { status.pod_ip.iter().collect() } else { all };
    texts.into_iter().filter_map(|address| address.parse().ok()).collect()
}

fn sidecar(pod: &Pod) -> Option<&Container> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    containers
        .iter()
        .find(|container| container.name == SIDECAR && container.restart_policy.as_deref() == Some("Always"))
}

fn is_on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the sidecar's arguments except the port: `--skip-inbound-ports=25,9000-9100`, or in two arguments.
fn skips(sidecar: &Container, port: u16) -> bool {
    let arguments = || sidecar.args.iter().flatten().map(String::as_str);
    let joined =
        arguments().filter_map(|argument| argument.strip_prefix(SKIP_INBOUND_PORTS)?.strip_prefix('='));
    let apart = arguments().zip(arguments().skip(1)).filter(|(flag, _)| *flag == SKIP_INBOUND_PORTS);
    joined.chain(apart.map(|(_, ports)| ports)).any(|ports| lists(ports, port))
}

/// Whether `25,9000-9100` holds this port.
pub(super) fn lists(ports: &str, port: u16) -> bool {
    ports.split(',').map(str::trim).any(|entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        }
    })
}

/// Who may come into a pod without mesh TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strictness {
    pub default: Mtls,
    pub ports: BTreeMap<u16, Mtls>,
}

impl Strictness {
    pub(super) fn of(&self, port: u16) -> Mtls {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

/// `gauze.dev/mtls` of the pod, else of its namespace, else of the mesh. One that cannot be read means strict.
pub(super) fn strictness(world: &World, pod: &Pod, problems: &mut Vec<Problem>) -> Strictness {
    let namespace = world.namespace(namespace_of(&pod.metadata)).map(|namespace| &namespace.metadata);
    let (text, kind, metadata) = if let Some(text) = annotation(&pod.metadata, MTLS_ANNOTATION) {
        (text, ObjectKind::Pod, &pod.metadata)
    } else if let Some((text, metadata)) =
        namespace.and_then(|at| Some((annotation(at, MTLS_ANNOTATION)?, at)))
    {
        (text, ObjectKind::Namespace, metadata)
    } else {
        return Strictness { default: world.settings().mtls, ports: BTreeMap::new() };
    };
    parse_strictness(text).unwrap_or_else(|| {
        problems.push(Problem::new(
            Code::INVALID_VALUE,
            origin(kind, metadata).at(annotation_path(MTLS_ANNOTATION)),
            format!(
                "`{text}` is not understood, so everything is strict; write `strict` or `permissive`, and exceptions as in `strict;9090=permissive`"
            ),
        ));
        Strictness { default: Mtls::Strict, ports: BTreeMap::new() }
    })
}

/// Whether a value of `gauze.dev/mtls` can be read.
pub(crate) fn is_strictness(text: &str) -> bool {
    parse_strictness(text).is_some()
}

/// Reads `strict;9090=permissive`.
fn parse_strictness(text: &str) -> Option<Strictness> {
    let mut parts = text.split(';').map(str::trim);
    let default = parse_mtls(parts.next()?)?;
    let ports = parts.map(|part| {
        let (port, mtls) = part.split_once('=')?;
        Some((port.trim().parse().ok()?, parse_mtls(mtls.trim())?))
    });
    Some(Strictness { default, ports: ports.collect::<Option<_>>()? })
}

fn parse_mtls(text: &str) -> Option<Mtls> {
    match text {
        "strict" => Some(Mtls::Strict),
        "permissive" => Some(Mtls::Permissive),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strictness_reads_a_default_and_exceptions() {
        let strict = |ports: &[(u16, Mtls)]| {
            Some(Strictness { default: Mtls::Strict, ports: ports.iter().copied().collect() })
        };
        for (text, expected) in [
            ("strict", strict(&[])),
            ("strict;9090=permissive", strict(&[(9090, Mtls::Permissive)])),
            (
                " strict ; 9090 = permissive ; 1=strict",
                strict(&[(9090, Mtls::Permissive), (1, Mtls::Strict)]),
            ),
            ("Strict", None),
            ("", None),
            ("strict;9090", None),
            ("strict;http=permissive", None),
            ("strict,9090=permissive", None),
        ] {
            assert_eq!(parse_strictness(text), expected, "{text}");
        }
    }

    #[test]
    fn a_sidecar_skips_the_ports_of_its_arguments() {
        for (arguments, port, expected) in [
            (vec!["--skip-inbound-ports=25,9000-9100"], 9050, true),
            (vec!["--skip-inbound-ports=25,9000-9100"], 25, true),
            (vec!["--skip-inbound-ports", "25, 26"], 26, true),
            (vec!["--skip-inbound-ports=25"], 2525, false),
            (vec!["--skip-outbound-ports=25"], 25, false),
            (vec!["--skip-inbound-ports=nonsense"], 25, false),
            (vec![], 25, false),
        ] {
            let args = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
            let sidecar = Container { args, ..Container::default() };
            assert_eq!(skips(&sidecar, port), expected, "{arguments:?} {port}");
        }
    }
}
