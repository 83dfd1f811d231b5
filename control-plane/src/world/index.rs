//! Two indexes: which objects hold an address, and which objects mention a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::world::{Object, ObjectKey};

/// A Service, by namespace and name.
pub(super) type ServiceKey = (String, String);

/// What an object is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    /// A Service's cluster addresses, a slice's endpoints, a pod's addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// What is attached to these Services, or belongs to them: slices, routes by parent, splits by root, policies.
    pub parents: BTreeSet<ServiceKey>,
    /// Services that a route or split sends to.
    pub backends: BTreeSet<ServiceKey>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    by_service: BTreeMap<ServiceKey, BTreeSet<ObjectKey>>,
}

impl Index {
    pub(super) fn insert(&mut self, key: &ObjectKey, object: &Object) {
        let mentions = mentions(object);
        for address in mentions.addresses {
            self.by_address.entry(address).or_default().insert(key.clone());
        }
        for service in mentions.parents.into_iter().chain(mentions.backends) {
            self.by_service.entry(service).or_default().insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, object: &Object) {
        let mentions = mentions(object);
        for address in mentions.addresses {
            forget(&mut self.by_address, &address, key);
        }
        for service in mentions.parents.into_iter().chain(mentions.backends) {
            forget(&mut self.by_service, &service, key);
        }
    }

    pub(super) fn holding(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.by_address.get(&address).into_iter().flatten()
    }

    pub(super) fn mentioning(&self, namespace: &str, service: &str) -> impl Iterator<Item = &ObjectKey> {
        self.by_service.get(&(namespace.to_owned(), service.to_owned())).into_iter().flatten()
    }
}

fn forget<K: Ord>(map: &mut BTreeMap<K, BTreeSet<ObjectKey>>, at: &K, key: &ObjectKey) {
    let Some(keys) = map.get_mut(at) else { return };
    keys.remove(key);
    if keys.is_empty() {
        map.remove(at);
    }
}

/// What an object mentions. It is lenient: whether a reference is a good one is for translation to say.
pub(super) fn mentions(object: &Object) -> Mentions {
    let namespace = object.metadata().namespace.clone().unwrap_or_default();
    let mut mentions = Mentions::default();
    match object {
        Object::Namespace(_) | Object::ServiceAccount(_) => {}
        Object::Pod(pod) => {
            let status = pod.status.as_ref();
            let addresses = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
            mentions.addresses.extend(addresses.filter_map(|address| address.ip.parse::<IpAddr>().ok()));
            let address = status.and_then(|status| status.pod_ip.as_ref());
            mentions.addresses.extend(address.and_then(|address| address.parse::<IpAddr>().ok()));
        }
        Object::Service(service) => {
            let spec = service.spec.as_ref();
            let addresses = spec.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
            mentions.addresses.extend(addresses.filter_map(|address| address.parse::<IpAddr>().ok()));
            let address = spec.and_then(|spec| spec.cluster_ip.as_ref());
            mentions.addresses.extend(address.and_then(|address| address.parse::<IpAddr>().ok()));
        }
        Object::EndpointSlice(slice) => {
            let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            mentions.addresses.extend(addresses.filter_map(|address| address.parse::<IpAddr>().ok()));
            mentions.parents.extend(service_of(slice));
        }
        Object::HttpRoute(route) => {
            let rules = route.spec.rules.iter().flatten();
            let backends = rules.flat_map(|rule| rule.backend_refs.iter().flatten());
            for backend in backends {
                mentions.backends.insert(service_key(&namespace, &backend.namespace, &backend.name));
            }
            for parent in route.spec.parent_refs.iter().flatten() {
                mentions.parents.insert(service_key(&namespace, &parent.namespace, &parent.name));
            }
        }
        Object::GrpcRoute(route) => {
            let rules = route.spec.rules.iter().flatten();
            let backends = rules.flat_map(|rule| rule.backend_refs.iter().flatten());
            for backend in backends {
                mentions.backends.insert(service_key(&namespace, &backend.namespace, &backend.name));
            }
            for parent in route.spec.parent_refs.iter().flatten() {
                mentions.parents.insert(service_key(&namespace, &parent.namespace, &parent.name));
            }
        }
        Object::TrafficSplit(split) => {
            mentions.parents.insert((namespace.clone(), first_label(&split.spec.service)));
            let backends = split.spec.backends.iter();
            mentions
                .backends
                .extend(backends.map(|backend| (namespace.clone(), first_label(&backend.service))));
        }
        Object::TrafficPolicy(policy) => {
            let targets = policy.spec.target_refs.iter();
            mentions.parents.extend(targets.map(|target| (namespace.clone(), target.name.clone())));
        }
    }
    mentions
}

/// The Service that an EndpointSlice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

/// Names the Service that an EndpointSlice belongs to.
pub(super) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

fn service_key(own: &str, namespace: &Option<String>, name: &str) -> ServiceKey {
    (namespace.clone().unwrap_or_else(|| own.to_owned()), name.to_owned())
}

/// `cart` of `cart.shop.svc.cluster.local`.
fn first_label(host: &str) -> String {
    host.split('.').next().unwrap_or_default().to_owned()
}
