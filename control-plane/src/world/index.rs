//! Three indexes: which objects hold an address, which mention a Service, and which splits mention a group of routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use gauze_crds::gateway::{BackendRef, ParentReference};

use crate::world::{Object, ObjectKey, ObjectKind};

/// A Service, by namespace and name.
pub(crate) type ServiceKey = (String, String);

/// An HTTPRouteGroup, by namespace and name.
pub(super) type GroupKey = (String, String);

/// What an object is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    /// A Service's cluster addresses, a slice's endpoints, a pod's addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// What is attached to these Services, or belongs to them: slices, routes by parent, splits by root, policies.
    pub parents: BTreeSet<ServiceKey>,
    /// Services that a route or split sends to.
    pub backends: BTreeSet<ServiceKey>,
    /// HTTPRouteGroups that a split names, by namespace and name.
    pub groups: BTreeSet<GroupKey>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    by_service: BTreeMap<ServiceKey, BTreeSet<ObjectKey>>,
    by_group: BTreeMap<GroupKey, BTreeSet<ObjectKey>>,
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
        for group in mentions.groups {
            self.by_group.entry(group).or_default().insert(key.clone());
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
        for group in mentions.groups {
            forget(&mut self.by_group, &group, key);
        }
    }

    /// The objects of a kind that hold this address.
    pub(super) fn holding(&self, address: IpAddr, kind: ObjectKind) -> impl Iterator<Item = &ObjectKey> {
        of_kind(self.by_address.get(&address), kind)
    }

    /// The splits that name this group.
    pub(super) fn naming<'i>(&'i self, group: &GroupKey) -> impl Iterator<Item = &'i ObjectKey> + use<'i> {
        self.by_group.get(group).into_iter().flatten()
    }

    /// The objects of a kind that mention this Service.
    pub(super) fn mentioning<'i>(
        &'i self,
        service: &ServiceKey,
        kind: ObjectKind,
    ) -> impl Iterator<Item = &'i ObjectKey> + use<'i> {
        of_kind(self.by_service.get(service), kind)
    }
}

/// Keys sort by kind first: those of another are not even looked at.
fn of_kind(keys: Option<&BTreeSet<ObjectKey>>, kind: ObjectKind) -> impl Iterator<Item = &ObjectKey> {
    let from = keys.map(|keys| keys.range(ObjectKey::new(kind, "", "")..));
    from.into_iter().flatten().take_while(move |key| key.kind == kind)
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
    let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
    let own = |name: &str| (namespace.to_owned(), name.to_owned());
    match object {
        Object::Namespace(_) | Object::ServiceAccount(_) | Object::HttpRouteGroup(_) => Mentions::default(),
        Object::Pod(pod) => {
            let status = pod.status.iter();
            let texts = status
                .flat_map(|status| status.pod_ips.iter().flatten().map(|at| &at.ip).chain(&status.pod_ip));
            Mentions { addresses: parsed(texts), ..Mentions::default() }
        }
        Object::Service(service) => {
            let spec = service.spec.iter();
            let texts = spec.flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
            Mentions { addresses: parsed(texts), ..Mentions::default() }
        }
        Object::EndpointSlice(slice) => {
            let texts = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            let parents = service_of(slice).into_iter().collect();
            Mentions { addresses: parsed(texts), parents, ..Mentions::default() }
        }
        Object::HttpRoute(route) => {
            let rules = route.spec.rules.iter().flatten();
            let backends = rules.flat_map(|rule| rule.backend_refs.iter().flatten());
            route_mentions(namespace, &route.spec.parent_refs, backends)
        }
        Object::GrpcRoute(route) => {
            let rules = route.spec.rules.iter().flatten();
            let backends = rules.flat_map(|rule| rule.backend_refs.iter().flatten());
            route_mentions(namespace, &route.spec.parent_refs, backends)
        }
        Object::TlsRoute(route) => {
            let rules = route.spec.rules.iter().flatten();
            let backends = rules.flat_map(|rule| rule.backend_refs.iter().flatten());
            route_mentions(namespace, &route.spec.parent_refs, backends)
        }
        Object::TrafficSplit(split) => Mentions {
            parents: [own(first_label(&split.spec.service))].into(),
            backends: split.spec.backends.iter().map(|backend| own(first_label(&backend.service))).collect(),
            groups: split.spec.matches.iter().flatten().map(|named| own(&named.name)).collect(),
            ..Mentions::default()
        },
        Object::AuthorizationPolicy(policy) => {
            let targets = policy.spec.target_refs.iter().flatten();
            let parents = targets.filter_map(|target| target.name.as_deref()).map(own).collect();
            Mentions { parents, ..Mentions::default() }
        }
        Object::TrafficPolicy(policy) => {
            let parents = policy.spec.target_refs.iter().map(|target| own(&target.name)).collect();
            Mentions { parents, ..Mentions::default() }
        }
    }
}

fn parsed<'a>(addresses: impl Iterator<Item = &'a String>) -> BTreeSet<IpAddr> {
    addresses.filter_map(|address| address.parse().ok()).collect()
}

fn route_mentions<'a, F: 'a>(
    namespace: &str,
    parents: &Option<Vec<ParentReference>>,
    backends: impl Iterator<Item = &'a BackendRef<F>>,
) -> Mentions {
    let key =
        |of: &Option<String>, name: &str| (of.as_deref().unwrap_or(namespace).to_owned(), name.to_owned());
    Mentions {
        addresses: BTreeSet::new(),
        parents: parents.iter().flatten().map(|parent| key(&parent.namespace, &parent.name)).collect(),
        backends: backends.map(|backend| key(&backend.namespace, &backend.name)).collect(),
        groups: BTreeSet::new(),
    }
}

/// The Service that an EndpointSlice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

/// Names that Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// `cart` of `cart.shop.svc.cluster.local`.
fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}
