//! Services, and dialled pods, as backends: the cluster and its endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gauze_model::cluster::{Cluster, Endpoint, EndpointSet, Transport, Workload};
use gauze_model::listener::{Mtls, PortProtocol};
use gauze_model::name::ServicePort;
use gauze_model::{Code, Origin};
use k8s_openapi::api::core::v1::{self as core, Pod, Service};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};

use super::{age, name_of, namespace_of, pods, policies, ports};
use crate::problem::Problem;
use crate::world::{self, ObjectKind, World, origin};

/// `cluster/<ns>/<service>/<port>`.
pub(super) fn cluster(
    world: &World,
    name: &ServicePort,
    shaped_by: &mut Vec<Origin>,
    problems: &mut Vec<Problem>,
) -> Option<(Cluster, EndpointSet)> {
    let (service, index, port) = find(world, name)?;
    let endpoints = endpoints(world, service, port, problems);
    let policy = policies::holding(world, service, port);
    shaped_by.extend(policy.map(|policy| policies::origin(policy)));
    let cluster = policies::cluster(
        policy.map(|policy| &**policy),
        port_origin(service, index),
        ports::of_service(world, service, port),
    );
    Some((cluster, EndpointSet { endpoints }))
}

/// `cluster/pod/<ip>:<port>`.
pub(super) fn pod_cluster(
    world: &World,
    address: SocketAddr,
    shaped_by: &mut Vec<Origin>,
    problems: &mut Vec<Problem>,
) -> Option<(Cluster, EndpointSet)> {
    let pod = pods::at(world, address.ip())?;
    let services = services_of_endpoint(world, address);
    let oldest = services.iter().min_by_key(|(service, _)| age(&service.metadata));
    let policy = oldest.and_then(|(service, port)| policies::holding(world, service, port));
    shaped_by.extend(policy.map(|policy| policies::origin(policy)));
    let cluster = policies::cluster(
        policy.map(|policy| &**policy),
        origin(ObjectKind::Pod, &pod.metadata),
        pod_protocol(world, address),
    );
    let endpoints = endpoint_of_pod(world, pod, address, problems).into_iter().collect();
    Some((cluster, EndpointSet { endpoints }))
}

/// What a dialled pod's port speaks.
pub(super) fn pod_protocol(world: &World, address: SocketAddr) -> PortProtocol {
    ports::agree(declared_protocols(world, address)).unwrap_or_else(|| ports::by_number([address.port()]))
}

/// What the Services whose slices hold this address and port declare.
pub(super) fn declared_protocols(world: &World, address: SocketAddr) -> Vec<PortProtocol> {
    let services = services_of_endpoint(world, address);
    services.iter().map(|(service, port)| ports::of_service(world, service, port)).collect()
}

/// The Service of that name and its TCP port of that number, with the port's index.
pub(super) fn find<'w>(
    world: &'w World,
    name: &ServicePort,
) -> Option<(&'w Arc<Service>, usize, &'w core::ServicePort)> {
    let service = world.service(&name.namespace, &name.service)?;
    let (index, port) = tcp_ports(service).find(|(_, port)| port.port == i32::from(name.port))?;
    Some((service, index, port))
}

pub(super) fn tcp_ports(service: &Service) -> impl Iterator<Item = (usize, &core::ServicePort)> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let is_usable = |port: &core::ServicePort| {
        ports::is_tcp(port.protocol.as_deref()) && ports::number(port.port).is_some()
    };
    ports.enumerate().filter(move |(_, port)| is_usable(port))
}

/// What a port of a Service is called.
pub(super) fn name_of_port(service: &Service, port: &core::ServicePort) -> ServicePort {
    let metadata = &service.metadata;
    let number = ports::number(port.port).unwrap_or_default();
    ServicePort::new(namespace_of(metadata), name_of(metadata), number)
}

pub(super) fn port_origin(service: &Service, index: usize) -> Origin {
    origin(ObjectKind::Service, &service.metadata).at(format!("spec.ports[{index}]"))
}

/// Why nobody dials a Service by an address of its own, if so: then it has neither routes nor splits.
pub(super) fn not_dialled(service: &Service) -> Option<(Code, String)> {
    let name = name_of(&service.metadata);
    let given = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    if is_external_name(service) {
        let message = format!(
            "Service `{name}` is of type ExternalName, a name in DNS without an address; use a Service with a ClusterIP"
        );
        Some((Code::SERVICE_TYPE_UNSUPPORTED, message))
    } else if !addresses_of(service).is_empty() {
        None
    } else if given == Some("None") {
        let message = format!(
            "Service `{name}` is headless: its clients dial pods, which are never routed or split; use a Service with a ClusterIP"
        );
        Some((Code::HEADLESS_PARENT, message))
    } else {
        let message =
            format!("Service `{name}` has no address; write `spec.clusterIP` (an API server assigns one)");
        Some((Code::MISSING_FIELD, message))
    }
}

/// The addresses at which a Service is dialled.
pub(super) fn addresses_of(service: &Service) -> BTreeSet<IpAddr> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let texts = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Whether a Service is only another name in DNS.
pub(super) fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// The endpoints in use: the ready ones; if there are none, those serving and terminating (as kube-proxy).
pub(super) fn endpoints(
    world: &World,
    service: &Service,
    port: &core::ServicePort,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint> {
    let (namespace, name) = (namespace_of(&service.metadata), name_of(&service.metadata));
    let slices: Vec<_> =
        world.slices_of(namespace, name).filter(|slice| is_of_family(service, slice)).collect();
    let ready = addresses(&slices, port, |conditions| conditions.ready);
    let used = match ready.is_empty() {
        true => addresses(&slices, port, |conditions| conditions.serving && conditions.terminating),
        false => ready,
    };
    used.into_iter()
        .filter_map(|(address, reference)| endpoint(world, address, reference, problems))
        .collect()
}

/// A dual-stack Service has each pod in two slices; the family of its first address counts.
fn is_of_family(service: &Service, slice: &EndpointSlice) -> bool {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    match families.and_then(|families| families.first()) {
        Some(family) => slice.address_type == *family,
        None => slice.address_type != "FQDN",
    }
}

/// The conditions of an endpoint, with the defaults that the API gives them.
struct Conditions {
    ready: bool,
    serving: bool,
    terminating: bool,
}

/// Where an endpoint is, and the slice with what it refers to.
type Found<'w> = BTreeMap<SocketAddr, (&'w EndpointSlice, Option<&'w core::ObjectReference>)>;

/// The addresses of the slices whose endpoint is chosen, with the port's number there.
fn addresses<'w>(
    slices: &[&'w Arc<EndpointSlice>],
    port: &core::ServicePort,
    chosen: impl Fn(&Conditions) -> bool,
) -> Found<'w> {
    let mut found = Found::new();
    for slice in slices {
        let Some(number) = target_port(slice, port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            // All addresses of an endpoint are the same pod: the first is used (API reference).
            let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
            if let Some(address) = address.filter(|_| chosen(&conditions(endpoint))) {
                found.insert(SocketAddr::new(address, number), (slice, endpoint.target_ref.as_ref()));
            }
        }
    }
    found
}

fn conditions(endpoint: &discovery::Endpoint) -> Conditions {
    let given = endpoint.conditions.clone().unwrap_or_default();
    let ready = given.ready.unwrap_or(true);
    Conditions {
        ready,
        serving: given.serving.unwrap_or(ready),
        terminating: given.terminating.unwrap_or(false),
    }
}

/// The number that this port of the Service has in the slice; there, `targetPort` is resolved already.
fn target_port(slice: &EndpointSlice, port: &core::ServicePort) -> Option<u16> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut ports = slice.ports.iter().flatten().filter(|port| ports::is_tcp(port.protocol.as_deref()));
    let found = ports.find(|port| port.name.as_deref().unwrap_or_default() == wanted)?;
    ports::number(found.port?)
}

/// An endpoint that refers to a pod is that pod or nothing: what is not known yet is never taken for plain.
fn endpoint(
    world: &World,
    address: SocketAddr,
    (slice, reference): (&EndpointSlice, Option<&core::ObjectReference>),
    problems: &mut Vec<Problem>,
) -> Option<Endpoint> {
    if let Some(reference) = reference.filter(|reference| reference.kind.as_deref() == Some("Pod")) {
        let namespace = reference.namespace.as_deref().unwrap_or(namespace_of(&slice.metadata));
        let name = reference.name.as_deref().unwrap_or_default();
        let pod = world.pod(namespace, name).filter(|pod| pods::is_at(pod, address.ip()));
        if pod.is_none() {
            let message = format!("{address} refers to Pod `{name}`, which is not there, so it is not used");
            let origin = origin(ObjectKind::EndpointSlice, &slice.metadata);
            problems.push(Problem::new(Code::ENDPOINT_WITHOUT_POD, origin, message));
        }
        return pod.and_then(|pod| endpoint_of_pod(world, pod, address, problems));
    }
    match pods::at(world, address.ip()) {
        Some(pod) => endpoint_of_pod(world, pod, address, problems),
        // Not a pod: a node, or something outside.
        None => {
            Some(Endpoint { address, weight: 1, transport: Transport::Plain, workload: Workload::default() })
        }
    }
}

/// Of a strict workload, what is not meshed is not used: it would be dialled in plaintext.
fn endpoint_of_pod(
    world: &World,
    pod: &Pod,
    address: SocketAddr,
    problems: &mut Vec<Problem>,
) -> Option<Endpoint> {
    let transport = pods::transport(world, pod, address.port());
    let strictness = pods::strictness(world, pod, problems);
    if transport == Transport::Plain && strictness.of(address.port()) == Mtls::Strict {
        problems.push(plain_endpoint(pod, address));
        return None;
    }
    Some(Endpoint { address, weight: 1, transport, workload: pods::workload(pod) })
}

fn plain_endpoint(pod: &Pod, address: SocketAddr) -> Problem {
    let port = address.port();
    let message = match pods::is_meshed(pod) {
        true => format!(
            "{address} is strict, but its sidecar leaves port {port} alone, so it is not used; except the port with `gauze.dev/mtls: strict;{port}=permissive`"
        ),
        false => format!(
            "{address} is strict, but the pod has no sidecar, so it is not used; restart it with `gauze.dev/inject: enabled`, or make it permissive with `gauze.dev/mtls: permissive`"
        ),
    };
    Problem::new(Code::STRICT_ENDPOINT_PLAIN, origin(ObjectKind::Pod, &pod.metadata), message)
}

/// The Services, and their ports, whose slices hold this address and port.
fn services_of_endpoint(world: &World, address: SocketAddr) -> Vec<(&Arc<Service>, &core::ServicePort)> {
    let mut found = BTreeMap::new();
    for slice in world.slices_at(address.ip()) {
        let Some(service) = service_of_slice(world, slice) else { continue };
        let ports = tcp_ports(service).filter(|(_, port)| target_port(slice, port) == Some(address.port()));
        for (index, port) in ports {
            let key = (namespace_of(&service.metadata), name_of(&service.metadata), index);
            found.insert(key, (service, port));
        }
    }
    found.into_values().collect()
}

/// The ports of Services behind which this address stands, as they are numbered there.
pub(super) fn ports_of_address(world: &World, address: IpAddr) -> BTreeSet<u16> {
    let mut numbers = BTreeSet::new();
    for slice in world.slices_at(address) {
        let Some(service) = service_of_slice(world, slice) else { continue };
        numbers.extend(tcp_ports(service).filter_map(|(_, port)| target_port(slice, port)));
    }
    numbers
}

/// The ports, as they are numbered there, at which a Service's slices hold one of these addresses.
pub(super) fn ports_in_slices(world: &World, service: &Service, addresses: &[IpAddr]) -> BTreeSet<u16> {
    let (namespace, name) = (namespace_of(&service.metadata), name_of(&service.metadata));
    let holds = |slice: &EndpointSlice| {
        let texts = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
        texts.filter_map(|text| text.parse().ok()).any(|address: IpAddr| addresses.contains(&address))
    };
    let slices = world.slices_of(namespace, name).filter(|slice| holds(slice));
    slices.flat_map(|slice| tcp_ports(service).filter_map(|(_, port)| target_port(slice, port))).collect()
}

fn service_of_slice<'w>(world: &'w World, slice: &EndpointSlice) -> Option<&'w Arc<Service>> {
    let (namespace, name) = world::service_of(slice)?;
    world.service(&namespace, &name)
}
