//! Which names may have another answer after a change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gauze_model::Name;

use super::index::{Mentions, ServiceKey, mentions, service_of};
use crate::world::{Object, ObjectKind, World};

/// The names whose answer may have changed. It may say too much, never too little: what is recomputed
/// in vain comes out as the same bytes and goes nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    everything: bool,
    /// `inbound/…` of every pod.
    all_inbound: bool,
    /// `inbound/<ns>/<pod>`.
    pods: BTreeSet<(String, String)>,
    /// `routes/<ns>/<service>/…` and `cluster/<ns>/<service>/…`, every port, for every viewer.
    services: BTreeSet<ServiceKey>,
    /// `outbound/…/<ip>:…` and `cluster/pod/<ip>:…`, every port, for every viewer.
    addresses: BTreeSet<IpAddr>,
}

impl Touched {
    pub fn everything() -> Touched {
        Touched { everything: true, ..Touched::default() }
    }

    pub fn all_inbound() -> Touched {
        Touched { all_inbound: true, ..Touched::default() }
    }

    pub fn is_empty(&self) -> bool {
        !self.everything
            && !self.all_inbound
            && self.pods.is_empty()
            && self.services.is_empty()
            && self.addresses.is_empty()
    }

    pub fn contains(&self, name: &Name) -> bool {
        if self.everything {
            return true;
        }
        match name {
            Name::Inbound { namespace, pod } => {
                self.all_inbound || self.pods.contains(&(namespace.clone(), pod.clone()))
            }
            Name::Outbound { address, .. } | Name::Pod(address) => self.addresses.contains(&address.ip()),
            Name::Routes { service, .. } | Name::Cluster(service) => {
                self.services.contains(&(service.namespace.clone(), service.service.clone()))
            }
        }
    }

    /// Adds what another change touched.
    pub fn extend(&mut self, other: Touched) {
        self.everything |= other.everything;
        self.all_inbound |= other.all_inbound;
        self.pods.extend(other.pods);
        self.services.extend(other.services);
        self.addresses.extend(other.addresses);
    }
}

/// Adds the names that `object` has a part in, in this world. This follows [`translate`](crate::translate):
/// whatever that looks at must be reached from here, which a property test watches.
pub(super) fn reach(world: &World, object: &Object, touched: &mut Touched) {
    let Mentions { addresses, parents, .. } = mentions(object);
    match object {
        // Identity is the pod's word, not the ServiceAccount's.
        Object::ServiceAccount(_) => {}
        Object::Namespace(namespace) => {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            let pods = world.objects_of(ObjectKind::Pod);
            for pod in pods.filter(|pod| pod.metadata().namespace.as_deref() == Some(name)) {
                reach(world, pod, touched);
            }
            let services = world.objects_of(ObjectKind::Service);
            for service in services.filter(|service| service.metadata().namespace.as_deref() == Some(name)) {
                reach(world, service, touched);
            }
        }
        Object::Pod(_) => {
            let key = object.key();
            touched.pods.insert((key.namespace, key.name));
            reach_pods(world, &addresses, touched);
            // Gathered first: many slices are of one Service.
            let slices = addresses.iter().flat_map(|address| world.slices_at(*address));
            let services: BTreeSet<_> = slices.filter_map(|slice| service_of(slice)).collect();
            services.iter().for_each(|service| reach_backend(world, service, touched));
        }
        Object::Service(_) => {
            let key = object.key();
            touched.addresses.extend(addresses);
            let service = (key.namespace, key.name);
            reach_service(world, &service, touched);
            // Which pods it selects decides which of them its policies are for.
            let policies = world.mentioning(&service.0, &service.1, ObjectKind::AuthorizationPolicy);
            for policy in policies {
                reach(world, policy, touched);
            }
        }
        Object::AuthorizationPolicy(policy) => {
            let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
            let pods = world.objects_in(ObjectKind::Pod, namespace).map(Object::key);
            touched.pods.extend(pods.map(|key| (key.namespace, key.name)));
        }
        Object::EndpointSlice(_) => {
            reach_pods(world, &addresses, touched);
            parents.iter().for_each(|service| reach_service(world, service, touched));
        }
        Object::HttpRouteGroup(_) => {
            let key = object.key();
            for split in world.splits_naming(&key.namespace, &key.name) {
                mentions(split).parents.iter().for_each(|root| reach_dialled(world, root, touched));
            }
        }
        Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TrafficSplit(_)
        | Object::TrafficPolicy(_) => {
            parents.iter().for_each(|service| reach_service(world, service, touched));
        }
    }
}

/// Pods' addresses: as they are dialled, and the pods that accept there.
fn reach_pods(world: &World, addresses: &BTreeSet<IpAddr>, touched: &mut Touched) {
    touched.addresses.extend(addresses);
    for pod in addresses.iter().flat_map(|address| world.pods_at(*address)) {
        let metadata = &pod.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        touched.pods.insert((metadata.namespace.clone().unwrap_or_default(), name));
    }
}

/// A Service: its endpoints too, whose protocol and policy come from it.
fn reach_service(world: &World, service: &ServiceKey, touched: &mut Touched) {
    reach_backend(world, service, touched);
    for slice in world.slices_of(&service.0, &service.1) {
        reach_pods(world, &mentions(&Object::EndpointSlice(slice.clone())).addresses, touched);
    }
}

/// A Service, and every Service whose routes or split send to it.
fn reach_backend(world: &World, service: &ServiceKey, touched: &mut Touched) {
    reach_dialled(world, service, touched);
    let senders =
        [ObjectKind::HttpRoute, ObjectKind::GrpcRoute, ObjectKind::TlsRoute, ObjectKind::TrafficSplit];
    for kind in senders {
        for object in world.mentioning(&service.0, &service.1, kind) {
            mentions(object).parents.iter().for_each(|parent| reach_dialled(world, parent, touched));
        }
    }
}

/// A Service by its name and by the addresses at which it is dialled.
fn reach_dialled(world: &World, service: &ServiceKey, touched: &mut Touched) {
    touched.services.insert(service.clone());
    if let Some(object) = world.service(&service.0, &service.1) {
        touched.addresses.extend(mentions(&Object::Service(object.clone())).addresses);
    }
}
