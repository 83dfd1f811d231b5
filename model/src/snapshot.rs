//! All configuration that one proxy holds; immutable, replaced whole. It holds no live state:
//! connections, loads and counters are the proxy's, keyed by what stands here, and survive every push.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::{Cluster, EndpointSet};
use crate::listener::{HttpTarget, Listener};
use crate::name::{Kind, Name};
use crate::route::RouteTable;

/// What a proxy holds, and what it knows not to exist; no name is both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By `inbound/…` and `outbound/…`.
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    /// By `routes/…`.
    pub routes: BTreeMap<Name, Arc<RouteTable>>,
    /// By `cluster/…`.
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    /// By `cluster/…`, the names of the clusters.
    pub endpoints: BTreeMap<Name, Arc<EndpointSet>>,
    /// What was asked for and is known not to exist.
    pub absent: BTreeSet<(Kind, Name)>,
}

/// Any resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Where a connection goes.
    Listener(Arc<Listener>),
    /// Which rule carries a request.
    Routes(Arc<RouteTable>),
    /// How a backend is used.
    Cluster(Arc<Cluster>),
    /// Who serves for a backend.
    Endpoints(Arc<EndpointSet>),
}

/// What leads from one snapshot to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New, or other than before.
    pub upsert: BTreeMap<(Kind, Name), Resource>,
    /// Known not to exist from now on.
    pub absent: BTreeSet<(Kind, Name)>,
    /// No longer asked for: neither held nor known.
    pub forget: BTreeSet<(Kind, Name)>,
}

impl Resource {
    /// The kind that its name is asked for with.
    pub fn kind(&self) -> Kind {
        match self {
            Resource::Listener(_) => Kind::Listener,
            Resource::Routes(_) => Kind::Routes,
            Resource::Cluster(_) => Kind::Cluster,
            Resource::Endpoints(_) => Kind::Endpoints,
        }
    }

    /// The resources that must be held, or known not to exist, before this one becomes current.
    pub fn refers_to(&self) -> BTreeSet<(Kind, Name)> {
        match self {
            Resource::Listener(listener) => listener_refers_to(listener),
            Resource::Routes(table) => table.clusters().flat_map(with_endpoints).collect(),
            Resource::Cluster(_) | Resource::Endpoints(_) => BTreeSet::new(),
        }
    }
}

fn listener_refers_to(listener: &Listener) -> BTreeSet<(Kind, Name)> {
    let Listener::Outbound(outbound) = listener else {
        return BTreeSet::new();
    };
    let by_name = outbound.tls.iter().flat_map(|rule| &rule.shares);
    let shares = outbound.tcp.iter().chain(by_name).map(|share| &share.cluster);
    let (table, straight) = match &outbound.http {
        HttpTarget::Routes(name) => (Some((Kind::Routes, name.clone())), None),
        HttpTarget::Cluster(name) => (None, Some(name)),
    };
    shares.chain(straight).flat_map(with_endpoints).chain(table).collect()
}

/// A cluster is of no use without its endpoints, which bear its name.
fn with_endpoints(cluster: &Name) -> [(Kind, Name); 2] {
    [(Kind::Cluster, cluster.clone()), (Kind::Endpoints, cluster.clone())]
}

impl Snapshot {
    /// `next = current.apply(change)`. Where a change contradicts itself, what upserts wins over
    /// what is absent, and that over what is forgotten.
    #[must_use]
    pub fn apply(&self, change: Change) -> Snapshot {
        let mut next = self.clone();
        for (kind, name) in change.forget {
            next.remove(kind, &name);
            next.absent.remove(&(kind, name));
        }
        for (kind, name) in change.absent {
            next.remove(kind, &name);
            next.absent.insert((kind, name));
        }
        for ((_, name), resource) in change.upsert {
            next.absent.remove(&(resource.kind(), name.clone()));
            next.insert(name, resource);
        }
        next
    }

    /// What leads from `older` to this: `older.apply(new.diff(&older)) == new`.
    #[must_use]
    pub fn diff(&self, older: &Snapshot) -> Change {
        let mut change = Change::default();
        for (key, resource) in self.resources() {
            if older.get(key.0, &key.1).as_ref() != Some(&resource) {
                change.upsert.insert(key, resource);
            }
        }
        change.absent = self.absent.difference(&older.absent).cloned().collect();
        let known_before = older.resources().map(|(key, _)| key).chain(older.absent.iter().cloned());
        change.forget = known_before.filter(|key| !self.knows(key)).collect();
        change
    }

    /// The resource of this kind and name, if it is held.
    pub fn get(&self, kind: Kind, name: &Name) -> Option<Resource> {
        match kind {
            Kind::Listener => self.listeners.get(name).cloned().map(Resource::Listener),
            Kind::Routes => self.routes.get(name).cloned().map(Resource::Routes),
            Kind::Cluster => self.clusters.get(name).cloned().map(Resource::Cluster),
            Kind::Endpoints => self.endpoints.get(name).cloned().map(Resource::Endpoints),
        }
    }

    /// Whether the resource is held, or known not to exist.
    pub fn knows(&self, key: &(Kind, Name)) -> bool {
        self.absent.contains(key) || self.get(key.0, &key.1).is_some()
    }

    /// All resources that are held.
    pub fn resources(&self) -> impl Iterator<Item = ((Kind, Name), Resource)> + '_ {
        let listeners = self.listeners.iter().map(|(name, it)| (name, Resource::Listener(it.clone())));
        let routes = self.routes.iter().map(|(name, it)| (name, Resource::Routes(it.clone())));
        let clusters = self.clusters.iter().map(|(name, it)| (name, Resource::Cluster(it.clone())));
        let endpoints = self.endpoints.iter().map(|(name, it)| (name, Resource::Endpoints(it.clone())));
        let all = listeners.chain(routes).chain(clusters).chain(endpoints);
        all.map(|(name, resource)| ((resource.kind(), name.clone()), resource))
    }

    fn insert(&mut self, name: Name, resource: Resource) {
        match resource {
            Resource::Listener(it) => drop(self.listeners.insert(name, it)),
            Resource::Routes(it) => drop(self.routes.insert(name, it)),
            Resource::Cluster(it) => drop(self.clusters.insert(name, it)),
            Resource::Endpoints(it) => drop(self.endpoints.insert(name, it)),
        }
    }

    fn remove(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Listener => drop(self.listeners.remove(name)),
            Kind::Routes => drop(self.routes.remove(name)),
            Kind::Cluster => drop(self.clusters.remove(name)),
            Kind::Endpoints => drop(self.endpoints.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests;
