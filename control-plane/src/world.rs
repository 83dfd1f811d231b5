//! All that the control plane knows: the objects, and indexes of who mentions what.
//! What an object means is decided in [`translate`](crate::translate), never here.

#[cfg(test)]
mod incremental;
mod index;
mod object;
mod touched;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gauze_crds::{
    AuthorizationPolicy, GrpcRoute, HttpRoute, HttpRouteGroup, TlsRoute, TrafficPolicy, TrafficSplit,
};
use gauze_model::listener::Mtls;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use index::Index;
pub(crate) use index::service_of;
pub(crate) use object::origin;
pub use object::{Object, ObjectKey, ObjectKind};
pub use touched::Touched;

/// A change of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is new or has changed.
    Apply(Object),
    Delete(ObjectKey),
    /// These networks belong to the mesh beside those of the settings; they replace the previous ones.
    MeshNetworks(Vec<IpNet>),
    /// Everything that exists was told: from now on, what is not known does not exist.
    Synced,
}

/// What holds for the whole mesh (chart values, flags).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    pub trust_domain: String,
    /// Where neither pod nor namespace says anything.
    pub mtls: Mtls,
    /// Addresses inside these are the mesh's; all others pass at once.
    pub mesh_networks: Vec<IpNet>,
}

impl Default for MeshSettings {
    fn default() -> MeshSettings {
        MeshSettings {
            trust_domain: "cluster.local".to_owned(),
            mtls: Mtls::Permissive,
            mesh_networks: ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
                .map(|network| network.parse().expect("a constant"))
                .to_vec(),
        }
    }
}

/// All objects, indexed. A clone shares the objects.
#[derive(Clone, Debug, Default)]
pub struct World {
    settings: MeshSettings,
    /// The mesh networks that were set, where a source names more.
    given_networks: Option<Vec<IpNet>>,
    synced: bool,
    objects: BTreeMap<ObjectKey, Object>,
    index: Index,
}

impl World {
    /// An empty world that is not synced: nothing is decided yet.
    pub fn new(settings: MeshSettings) -> World {
        World { settings, ..World::default() }
    }

    /// A world that holds just these objects and knows that there are no others.
    pub fn of(settings: MeshSettings, objects: impl IntoIterator<Item = Object>) -> World {
        let mut world = World::new(settings);
        for object in objects {
            world.apply(Event::Apply(object));
        }
        world.apply(Event::Synced);
        world
    }

    /// Takes up a change, and says which names may now have another answer.
    pub fn apply(&mut self, event: Event) -> Touched {
        match event {
            Event::Apply(object) => self.replace(object.key(), Some(object)),
            Event::Delete(key) => self.replace(key, None),
            Event::MeshNetworks(networks) => self.set_networks(networks),
            Event::Synced => {
                self.synced = true;
                Touched::everything()
            }
        }
    }

    /// An object touches what it reaches in the old world and in the new one. Before everything was
    /// told, no answer is decided, so none can change.
    fn replace(&mut self, key: ObjectKey, new: Option<Object>) -> Touched {
        let old = self.objects.get(&key).cloned();
        let mut touched = Touched::default();
        if old == new {
            return touched;
        }
        if let Some(old) = &old {
            if self.synced {
                touched::reach(self, old, &mut touched);
            }
            self.index.remove(&key, old);
            self.objects.remove(&key);
        }
        if let Some(new) = new {
            self.index.insert(&key, &new);
            self.objects.insert(key, new.clone());
            if self.synced {
                touched::reach(self, &new, &mut touched);
            }
        }
        touched
    }

    /// Every pod is told which networks are the mesh's.
    fn set_networks(&mut self, named: Vec<IpNet>) -> Touched {
        let given = self.given_networks.get_or_insert_with(|| self.settings.mesh_networks.clone());
        // In the order in which they were set; one that lies inside another says nothing more.
        let mut networks = given.clone();
        let beside = named.into_iter().filter(|one| !given.iter().any(|all| all.contains(one)));
        networks.extend(beside);
        if networks == self.settings.mesh_networks {
            return Touched::default();
        }
        self.settings.mesh_networks = networks;
        if self.synced { Touched::all_inbound() } else { Touched::default() }
    }

    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// Whether what is not known does not exist.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// All objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.object(&ObjectKey::new(ObjectKind::Namespace, "", name))?.as_namespace()
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.object(&ObjectKey::new(ObjectKind::Pod, namespace, name))?.as_pod()
    }

    pub fn route_group(&self, namespace: &str, name: &str) -> Option<&Arc<HttpRouteGroup>> {
        self.object(&ObjectKey::new(ObjectKind::HttpRouteGroup, namespace, name))?.as_route_group()
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.object(&ObjectKey::new(ObjectKind::Service, namespace, name))?.as_service()
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.objects_of(ObjectKind::Pod).filter_map(Object::as_pod)
    }

    /// The pods that have, or had, this address.
    pub fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        self.holding(address, ObjectKind::Pod).filter_map(Object::as_pod)
    }

    /// The Services that have this cluster address.
    pub fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Service>> {
        self.holding(address, ObjectKind::Service).filter_map(Object::as_service)
    }

    /// The slices that list this address as an endpoint.
    pub fn slices_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.holding(address, ObjectKind::EndpointSlice).filter_map(Object::as_slice)
    }

    /// The slices of a Service.
    pub fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.mentioning(namespace, service, ObjectKind::EndpointSlice).filter_map(Object::as_slice)
    }

    /// The HTTPRoutes that name a Service, as parent or as backend.
    pub fn http_routes_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<HttpRoute>> {
        self.mentioning(namespace, service, ObjectKind::HttpRoute).filter_map(Object::as_http_route)
    }

    /// The GRPCRoutes that name a Service, as parent or as backend.
    pub fn grpc_routes_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<GrpcRoute>> {
        self.mentioning(namespace, service, ObjectKind::GrpcRoute).filter_map(Object::as_grpc_route)
    }

    /// The TLSRoutes that name a Service, as parent or as backend.
    pub fn tls_routes_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<TlsRoute>> {
        self.mentioning(namespace, service, ObjectKind::TlsRoute).filter_map(Object::as_tls_route)
    }

    /// The TrafficSplits that name a Service, as root or as backend.
    pub fn splits_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<TrafficSplit>> {
        self.mentioning(namespace, service, ObjectKind::TrafficSplit).filter_map(Object::as_split)
    }

    /// The TrafficSplits that name an HTTPRouteGroup.
    fn splits_naming(&self, namespace: &str, group: &str) -> impl Iterator<Item = &Object> {
        let group = (namespace.to_owned(), group.to_owned());
        self.index.naming(&group).filter_map(|key| self.objects.get(key))
    }

    /// The TrafficPolicies that target a Service.
    pub fn policies_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<TrafficPolicy>> {
        self.mentioning(namespace, service, ObjectKind::TrafficPolicy).filter_map(Object::as_policy)
    }

    /// The AuthorizationPolicies of a namespace, by name.
    pub fn authorization_policies_in(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        let policies = self.objects_in(ObjectKind::AuthorizationPolicy, namespace);
        policies.filter_map(Object::as_authorization_policy)
    }

    fn objects_in<'w>(
        &'w self,
        kind: ObjectKind,
        namespace: &str,
    ) -> impl Iterator<Item = &'w Object> + use<'w> {
        let first = ObjectKey::new(kind, namespace, "");
        let is_in = {
            let first = first.clone();
            move |key: &ObjectKey| key.kind == first.kind && key.namespace == first.namespace
        };
        self.objects.range(first..).take_while(move |(key, _)| is_in(key)).map(|(_, object)| object)
    }

    fn objects_of(&self, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        self.objects
            .range(ObjectKey::new(kind, "", "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, object)| object)
    }

    fn holding(&self, address: IpAddr, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        self.index.holding(address, kind).filter_map(|key| self.objects.get(key))
    }

    fn mentioning(&self, namespace: &str, service: &str, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        let service = (namespace.to_owned(), service.to_owned());
        self.index.mentioning(&service, kind).filter_map(|key| self.objects.get(key))
    }
}
