//! Where a dialled address leads: `outbound/<viewer ns>/<ip>:<port>`.

use std::net::SocketAddr;
use std::sync::Arc;

use gauze_model::Name;
use gauze_model::listener::{HttpTarget, Listener, Outbound, WeightedCluster};
use gauze_model::name::ServicePort;
use k8s_openapi::api::core::v1::Service;

use super::routes::{self, Side};
use super::{age, name_of, namespace_of, pods, ports, services, splits};
use crate::problem::Problem;
use crate::world::{ObjectKind, World, origin};

pub(super) fn outbound(
    world: &World,
    viewer: &str,
    address: SocketAddr,
    problems: &mut Vec<Problem>,
) -> Option<Listener> {
    let service = world.services_at(address.ip()).min_by_key(|service| age(&service.metadata));
    match service {
        Some(service) => to_service(world, viewer, service, address.port(), problems),
        None => to_pod(world, address),
    }
}

fn to_service(
    world: &World,
    viewer: &str,
    service: &Arc<Service>,
    port: u16,
    problems: &mut Vec<Problem>,
) -> Option<Listener> {
    let name = ServicePort::new(namespace_of(&service.metadata), name_of(&service.metadata), port);
    let (service, index, declared) = services::find(world, &name)?;
    let consumer = routes::attached(world, &name, declared, Side::Consumer(viewer));
    // A route decides alone: without one for opaque connections they go to the Service itself.
    let routed = !consumer.is_empty() || !routes::attached(world, &name, declared, Side::Producer).is_empty();
    let split = if routed { None } else { splits::shares(world, service, declared, problems) };
    // A split of some requests is none of bytes that are no requests.
    let split = split.filter(|split| split.requests.is_none());
    let own = || vec![WeightedCluster { cluster: Name::Cluster(name.clone()), weight: 1 }];
    let tcp = split.map_or_else(own, |split| split.shares);
    let viewer_of_routes = consumer.sees_requests().then(|| viewer.to_owned());
    let tls = routes::tls::seen_by(world, viewer, &name, declared, problems);
    Some(Listener::Outbound(Outbound {
        origin: services::port_origin(service, index),
        protocol: ports::of_service(world, service, declared),
        http: HttpTarget::Routes(Name::Routes { service: name, viewer: viewer_of_routes }),
        tls,
        tcp,
    }))
}

fn to_pod(world: &World, address: SocketAddr) -> Option<Listener> {
    let pod = pods::at(world, address.ip())?;
    Some(Listener::Outbound(Outbound {
        origin: origin(ObjectKind::Pod, &pod.metadata),
        protocol: services::pod_protocol(world, address),
        http: HttpTarget::Cluster(Name::Pod(address)),
        tls: Vec::new(),
        tcp: vec![WeightedCluster { cluster: Name::Pod(address), weight: 1 }],
    }))
}
