//! What the data path reads: a snapshot with every name followed to what it stands for, and with the
//! live state attached. Built whole on the control thread, read without a lock, replaced by one pointer swap.
//!
//! Live state (what is open, in flight, measured) is no configuration: it is keyed by what an endpoint
//! *is* and carried over from view to view, so that pushing equal or reordered endpoints changes none of it.
//! It ends by itself: the register here holds it weakly, views and requests in flight hold it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use gauze_model::balance::Shares;
use gauze_model::budget::RetryBudget;
use gauze_model::cluster::{
    Balance, CONNECT_TIMEOUT, Cluster, Endpoint, EndpointSet, Limits, Transport, Workload,
};
use gauze_model::listener::{HttpTarget, Inbound, Listener, Outbound, PortProtocol, WeightedCluster};
use gauze_model::outlier::OutlierDetection;
use gauze_model::route::{Action, Backend, Filters, HeaderChange, RequestHead, RouteMatch, route};
use gauze_model::server_name::TlsRule;
use gauze_model::timeouts::Timeouts;
use gauze_model::{Name, Origin, RouteTable, Snapshot, SpiffeId};

use crate::authorize::InboundTarget;
use crate::metrics::{Direction, EdgeLabels, EdgeMetrics, Metrics};

mod live;
mod outliers; // who of a cluster is ejected

pub use live::{ClusterLive, EndpointLive, Limited, OutboundLive, Permit, Terms};
pub use outliers::{Outliers, Shown};

/// A rule whose backends are the clusters themselves.
pub type RouteRule = gauze_model::RouteRule<Arc<ClusterTarget>>;

/// All that the data path knows at one moment.
#[derive(Debug, Default)]
pub struct View {
    /// How this pod accepts; `None`: nobody has said yet, so nothing is let in.
    pub inbound: Option<Arc<InboundTarget>>,
    /// Where dialled addresses lead.
    pub outbound: HashMap<SocketAddr, Arc<OutboundTarget>>,
}

/// Where one dialled address leads.
#[derive(Debug)]
pub struct OutboundTarget {
    pub address: SocketAddr,
    pub origin: Origin,
    pub protocol: PortProtocol,
    pub http: HttpRoute,
    /// Where TLS connections go by their server names; empty: as all opaque ones.
    pub tls: Vec<TlsRule<TcpShare>>,
    /// The shares of opaque connections.
    pub tcp: Vec<TcpShare>,
    pub live: Arc<OutboundLive>,
}

/// Where requests of a dialled address go.
#[derive(Debug)]
pub enum HttpRoute {
    /// A Service: through its rules.
    Table(RouteTable<Arc<ClusterTarget>>),
    /// A pod address: straight to it, by this one rule.
    Pod(Box<RouteRule>),
    /// The route table is known not to exist.
    Absent,
}

/// One share of opaque connections.
#[derive(Debug)]
pub struct TcpShare {
    pub cluster: Arc<ClusterTarget>,
    pub weight: u32,
}

/// A backend with its endpoints.
#[derive(Debug)]
pub struct ClusterTarget {
    pub name: Name,
    /// Whether it exists; if it does not, every request to it is refused.
    pub known: bool,
    pub balance: Balance,
    pub shares: Shares,
    /// When an endpoint is ejected; `None`: never.
    pub outlier: Option<OutlierDetection>,
    pub terms: Arc<Terms>,
    /// In the order of `shares`.
    pub endpoints: Vec<Arc<EndpointTarget>>,
}

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct EndpointTarget {
    /// Relative share; the cluster's `shares` are made of it.
    pub weight: u32,
    pub workload: Workload,
    /// How it is dialled, and the key of the pools.
    pub peer: Arc<Peer>,
    pub terms: Arc<Terms>,
    pub live: Arc<EndpointLive>,
    pub metrics: Arc<EdgeMetrics>,
}

/// An address as it is dialled, shared by all clusters that hold it.
#[derive(Debug)]
pub struct Peer {
    /// Tells peers apart cheaply; never used twice by one process.
    pub id: u64,
    pub address: SocketAddr,
    pub transport: Transport,
}

/// What one endpoint is, whatever set or order it arrives in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EndpointKey {
    cluster: Name,
    address: SocketAddr,
    identity: Option<SpiffeId>,
    uid: String,
}

/// Builds views, one after the other, and carries the live state over.
#[derive(Debug, Default)]
pub struct Targets {
    own: OwnAddresses,
    inbound: Option<(Arc<Listener>, Arc<InboundTarget>)>,
    built: HashMap<Name, BuiltCluster>,
    outbounds: HashMap<SocketAddr, Weak<OutboundLive>>,
    clusters: HashMap<Name, Weak<ClusterLive>>,
    endpoints: HashMap<EndpointKey, Weak<EndpointLive>>,
    peers: HashMap<(SocketAddr, Transport), Weak<Peer>>,
}

/// What a cluster was built from; equal pointers yield the same target again.
#[derive(Debug)]
struct BuiltCluster {
    cluster: Option<Arc<Cluster>>,
    endpoints: Option<Arc<EndpointSet>>,
    target: Weak<ClusterTarget>,
}

/// The own pod's addresses: its endpoints are dialled in plaintext over `lo`, not through two sidecars.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    pub addresses: Vec<IpAddr>,
    /// Where the app listens in mode none, by the pod's address and port.
    pub mapped: BTreeMap<SocketAddr, SocketAddr>,
}

impl Targets {
    pub fn new(own: OwnAddresses) -> Targets {
        Targets { own, ..Targets::default() }
    }

    /// The view of a snapshot. What the snapshot refers to and does not hold counts as known not to
    /// exist: whoever hands snapshots over warms them first.
    pub fn build(&mut self, snapshot: &Snapshot, metrics: &Metrics) -> View {
        let mut view = View::default();
        for (name, listener) in &snapshot.listeners {
            match (name, &**listener) {
                (_, Listener::Inbound(inbound)) => {
                    view.inbound = Some(self.inbound(listener, inbound, metrics))
                }
                (Name::Outbound { address, .. }, Listener::Outbound(outbound)) => {
                    let target = self.outbound(*address, outbound, snapshot, metrics);
                    view.outbound.insert(*address, Arc::new(target));
                }
                (_, Listener::Outbound(_)) => {}
            }
        }
        self.forget();
        view
    }

    /// The same target as long as it is the same resource.
    fn inbound(
        &mut self,
        listener: &Arc<Listener>,
        inbound: &Inbound,
        metrics: &Metrics,
    ) -> Arc<InboundTarget> {
        if let Some((built_from, target)) = &self.inbound
            && Arc::ptr_eq(built_from, listener)
        {
            return Arc::clone(target);
        }
        let target = Arc::new(InboundTarget::new(inbound.clone(), metrics));
        self.inbound = Some((Arc::clone(listener), Arc::clone(&target)));
        target
    }

    fn outbound(
        &mut self,
        address: SocketAddr,
        outbound: &Outbound,
        snapshot: &Snapshot,
        metrics: &Metrics,
    ) -> OutboundTarget {
        let mut cluster = |name: &Name| self.cluster(name, snapshot, metrics);
        let http = match &outbound.http {
            HttpTarget::Cluster(name) => {
                HttpRoute::Pod(Box::new(straight_to(cluster(name), &outbound.origin)))
            }
            HttpTarget::Routes(name) => match snapshot.routes.get(name) {
                Some(table) => HttpRoute::Table(table.resolve(&mut cluster)),
                None => HttpRoute::Absent,
            },
        };
        let mut shares = |shares: &[WeightedCluster]| -> Vec<TcpShare> {
            let shares = shares.iter();
            shares.map(|share| TcpShare { cluster: cluster(&share.cluster), weight: share.weight }).collect()
        };
        let tls = outbound.tls.iter().map(|rule| TlsRule {
            origin: rule.origin.clone(),
            server_names: rule.server_names.clone(),
            shares: shares(&rule.shares),
        });
        let (tls, tcp) = (tls.collect(), shares(&outbound.tcp));
        OutboundTarget {
            address,
            origin: outbound.origin.clone(),
            protocol: outbound.protocol,
            http,
            tls,
            tcp,
            live: carried_over(&mut self.outbounds, address, OutboundLive::default),
        }
    }

    fn cluster(&mut self, name: &Name, snapshot: &Snapshot, metrics: &Metrics) -> Arc<ClusterTarget> {
        let cluster = snapshot.clusters.get(name);
        let endpoints = snapshot.endpoints.get(name);
        if let Some(built) = self.built.get(name)
            && same(built.cluster.as_ref(), cluster)
            && same(built.endpoints.as_ref(), endpoints)
            && let Some(target) = built.target.upgrade()
        {
            return target;
        }
        let terms = Arc::new(Terms {
            connect_timeout: cluster.map_or(CONNECT_TIMEOUT, |cluster| cluster.connect_timeout),
            limits: cluster.map_or_else(Limits::default, |cluster| cluster.limits),
            retry_budget: cluster.map(|cluster| cluster.retry_budget).unwrap_or_default(),
            live: carried_over(&mut self.clusters, name.clone(), ClusterLive::default),
        });
        let set = endpoints.map(|set| set.endpoints.as_slice()).unwrap_or_default();
        let target = Arc::new(ClusterTarget {
            name: name.clone(),
            known: cluster.is_some(),
            balance: cluster.map(|cluster| cluster.balance).unwrap_or_default(),
            shares: Shares::new(set.iter().map(|endpoint| endpoint.weight)),
            outlier: cluster.and_then(|cluster| cluster.outlier),
            endpoints: set.iter().map(|endpoint| self.endpoint(name, endpoint, &terms, metrics)).collect(),
            terms,
        });
        target.terms.live.outliers.set_members(target.outlier.as_ref(), &target.endpoints);
        let built = BuiltCluster {
            cluster: cluster.cloned(),
            endpoints: endpoints.cloned(),
            target: Arc::downgrade(&target),
        };
        self.built.insert(name.clone(), built);
        target
    }

    fn endpoint(
        &mut self,
        cluster: &Name,
        endpoint: &Endpoint,
        terms: &Arc<Terms>,
        metrics: &Metrics,
    ) -> Arc<EndpointTarget> {
        let (address, transport) = match self.own.app_behind(endpoint.address) {
            Some(app) => (app, Transport::Plain),
            None => (endpoint.address, endpoint.transport.clone()),
        };
        let identity = match &transport {
            Transport::Mesh(identity) => Some(identity),
            Transport::Plain => None,
        };
        let key = EndpointKey {
            cluster: cluster.clone(),
            address,
            identity: identity.cloned(),
            uid: endpoint.workload.uid.clone(),
        };
        let live = carried_over(&mut self.endpoints, key, EndpointLive::new);
        let labels = EdgeLabels::of(Direction::Outbound, &cluster.to_string(), &endpoint.workload, identity);
        let peer_key = (address, transport.clone());
        Arc::new(EndpointTarget {
            weight: endpoint.weight,
            workload: endpoint.workload.clone(),
            peer: carried_over(&mut self.peers, peer_key, || Peer::new(address, transport)),
            terms: Arc::clone(terms),
            live,
            metrics: metrics.edge(labels),
        })
    }

    /// Drops what nothing refers to any more.
    fn forget(&mut self) {
        self.built.retain(|_, built| built.target.strong_count() > 0);
        self.outbounds.retain(|_, live| live.strong_count() > 0);
        self.clusters.retain(|_, live| live.strong_count() > 0);
        self.endpoints.retain(|_, live| live.strong_count() > 0);
        self.peers.retain(|_, peer| peer.strong_count() > 0);
    }
}

impl EndpointTarget {
    /// Our own app: in plaintext, and without limits, which are its callers' matter.
    pub fn app(address: SocketAddr, metrics: Arc<EdgeMetrics>) -> EndpointTarget {
        let terms = Terms {
            connect_timeout: CONNECT_TIMEOUT,
            limits: Limits { connections: u32::MAX, pending: u32::MAX, requests: u32::MAX },
            retry_budget: RetryBudget::default(),
            live: Arc::default(),
        };
        EndpointTarget {
            weight: 1,
            workload: Workload::default(),
            peer: Arc::new(Peer::new(address, Transport::Plain)),
            terms: Arc::new(terms),
            live: Arc::new(EndpointLive::new()),
            metrics,
        }
    }
}

impl Peer {
    pub fn new(address: SocketAddr, transport: Transport) -> Peer {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Peer { id: NEXT.fetch_add(1, Ordering::Relaxed), address, transport }
    }

    /// Who must answer there; `None`: outside the mesh.
    pub fn identity(&self) -> Option<&SpiffeId> {
        match &self.transport {
            Transport::Mesh(identity) => Some(identity),
            Transport::Plain => None,
        }
    }
}

/// The live state of `key` if anything still holds it, else a new one.
fn carried_over<K: std::hash::Hash + Eq, V>(
    register: &mut HashMap<K, Weak<V>>,
    key: K,
    new: impl FnOnce() -> V,
) -> Arc<V> {
    let slot = register.entry(key).or_default();
    slot.upgrade().unwrap_or_else(|| {
        let live = Arc::new(new());
        *slot = Arc::downgrade(&live);
        live
    })
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

impl OwnAddresses {
    /// The app's address, if `address` is the own pod's.
    pub fn app_behind(&self, address: SocketAddr) -> Option<SocketAddr> {
        if let Some(app) = self.mapped.get(&address) {
            return Some(*app);
        }
        self.addresses.contains(&address.ip()).then_some(address)
    }
}

/// The one rule of a dialled pod address.
fn straight_to(cluster: Arc<ClusterTarget>, origin: &Origin) -> RouteRule {
    let backend = Backend {
        cluster,
        weight: 1,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    };
    RouteRule {
        origin: origin.clone(),
        matches: RouteMatch::default(),
        filters: Filters::default(),
        action: Action::Forward(vec![backend]),
        retry: Arc::default(),
        timeouts: Timeouts::default(),
    }
}

impl OutboundTarget {
    /// Whether any endpoint behind it is in the mesh.
    pub fn is_meshed(&self) -> bool {
        let endpoints = self.opaque_shares().flat_map(|share| &share.cluster.endpoints);
        endpoints.into_iter().any(|endpoint| endpoint.peer.identity().is_some())
    }

    /// The shares of all connections that are no HTTP.
    pub fn opaque_shares(&self) -> impl Iterator<Item = &TcpShare> {
        self.tcp.iter().chain(self.tls.iter().flat_map(|rule| &rule.shares))
    }

    /// The rule that carries a request; `None`: none matches.
    pub fn rule(&self, head: &RequestHead<'_>) -> Option<&RouteRule> {
        match &self.http {
            HttpRoute::Table(table) => route(table, head, &mut ()),
            HttpRoute::Pod(rule) => Some(rule),
            HttpRoute::Absent => None,
        }
    }
}

#[cfg(test)]
impl EndpointTarget {
    /// A plain endpoint of a cluster with these limits.
    pub(crate) fn for_tests(address: SocketAddr, limits: Limits) -> Arc<EndpointTarget> {
        let app = EndpointTarget::app(address, Metrics::new().nowhere(Direction::Outbound));
        let terms = Terms {
            connect_timeout: CONNECT_TIMEOUT,
            limits,
            retry_budget: RetryBudget::default(),
            live: Arc::default(),
        };
        Arc::new(EndpointTarget { terms: Arc::new(terms), ..app })
    }
}

#[cfg(test)]
pub(crate) mod tests;
