//! All configuration that one proxy holds; immutable, replaced whole. It holds no live state:
//! connections, loads and counters are the proxy's, keyed by what stands here, and survive every push.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::{Cluster, EndpointSet};
use crate::listener::Listener;
use crate::name::{Kind, Name};
use crate::route::RouteTable;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    pub routes: BTreeMap<Name, Arc<RouteTable>>,
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    pub endpoints: BTreeMap<Name, Arc<EndpointSet>>,
    /// What was asked for and is known not to exist.
    pub absent: BTreeSet<(Kind, Name)>,
}

/// Any resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Listener(Arc<Listener>),
    Routes(Arc<RouteTable>),
    Cluster(Arc<Cluster>),
    Endpoints(Arc<EndpointSet>),
}

/// What leads from one snapshot to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub upsert: BTreeMap<(Kind, Name), Resource>,
    /// Known not to exist from now on.
    pub absent: BTreeSet<(Kind, Name)>,
    /// No longer asked for: neither held nor known.
    pub forget: BTreeSet<(Kind, Name)>,
}

impl Resource {
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
        let _ = self;
        unimplemented!("model helper")
    }
}

impl Snapshot {
    /// `next = current.apply(change)`.
    #[must_use]
    pub fn apply(&self, change: Change) -> Snapshot {
        let _ = change;
        unimplemented!("model helper")
    }

    /// What leads from `older` to this: `older.apply(new.diff(&older)) == new`.
    pub fn diff(&self, older: &Snapshot) -> Change {
        let _ = older;
        unimplemented!("model helper")
    }

    pub fn get(&self, kind: Kind, name: &Name) -> Option<Resource> {
        let _ = (kind, name);
        unimplemented!("model helper")
    }
}
