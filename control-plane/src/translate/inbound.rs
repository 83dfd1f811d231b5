//! How a pod accepts: `inbound/<ns>/<pod>`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use gauze_model::listener::{Inbound, InboundPort, Listener, PortProtocol};
use k8s_openapi::api::core::v1::Pod;

use super::{Answer, annotation, authorization, pods, ports, services};
use crate::problem::Problem;
use crate::world::{ObjectKind, World, origin};

pub(super) fn inbound(
    world: &World,
    namespace: &str,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<Answer> {
    let pod = world.pod(namespace, name).filter(|pod| pods::is_meshed(pod))?;
    let addresses = pods::addresses(pod);
    if addresses.is_empty() {
        // Kubelet has not told yet: what a pod without addresses accepts is not decided.
        return Some(Answer::Undecided);
    }
    let strictness = pods::strictness(world, pod, problems);
    let mut ports = BTreeMap::new();
    for port in named_ports(world, pod, &addresses).into_iter().chain(strictness.ports.keys().copied()) {
        let port_of =
            InboundPort { protocol: protocol(world, pod, &addresses, port), mtls: strictness.of(port) };
        ports.insert(port, port_of);
    }
    let inbound = Inbound {
        origin: origin(ObjectKind::Pod, &pod.metadata),
        identity: pods::identity(world, pod),
        addresses,
        mtls: strictness.default,
        ports,
        mesh_networks: world.settings().mesh_networks.clone(),
        policies: authorization::policies(world, pod),
    };
    Some(Answer::from(Listener::Inbound(inbound)))
}

/// The ports that a Service leads to, or that a container declares.
fn named_ports(world: &World, pod: &Pod, addresses: &[IpAddr]) -> BTreeSet<u16> {
    let mut named: BTreeSet<u16> =
        addresses.iter().flat_map(|address| services::ports_of_address(world, *address)).collect();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let declared = containers.flat_map(|container| container.ports.iter().flatten());
    let tcp = declared.filter(|port| ports::is_tcp(port.protocol.as_deref()));
    named.extend(tcp.filter_map(|port| ports::number(port.container_port)));
    named
}

/// The pod's own annotation, then what its Services say.
fn protocol(world: &World, pod: &Pod, addresses: &[IpAddr], port: u16) -> PortProtocol {
    let opaque = annotation(&pod.metadata, ports::OPAQUE_PORTS_ANNOTATION);
    if opaque.is_some_and(|ports| pods::lists(ports, port)) {
        return PortProtocol::Opaque;
    }
    let addresses = addresses.iter().map(|address| SocketAddr::new(*address, port));
    let declared = addresses.flat_map(|address| services::declared_protocols(world, address));
    ports::agree(declared).unwrap_or_else(|| ports::by_number([port]))
}
