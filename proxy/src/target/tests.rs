//! What is carried over from view to view, and what is not.

use std::collections::BTreeSet;

use proptest::prelude::*;

use gauze_model::limits::{Exceeded, InUse};
use gauze_model::outlier::Fault;

use super::*;

const CART: &str = "10.96.0.2:80";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn endpoint(pod: u8, identity: Option<&str>, uid: &str, weight: u32) -> Endpoint {
    let transport = match identity {
        Some(account) => Transport::Mesh(SpiffeId::new("cluster.local", "shop", account)),
        None => Transport::Plain,
    };
    let workload = Workload { uid: uid.to_owned(), ..Workload::default() };
    Endpoint { address: SocketAddr::from(([10, 1, 0, pod], 8080)), weight, transport, workload }
}

/// A snapshot in which [`CART`] leads to these endpoints.
fn snapshot(endpoints: Vec<Endpoint>) -> Snapshot {
    let cluster = Cluster { outlier: Some(OutlierDetection::default()), ..Cluster::default() };
    snapshot_of(cluster, endpoints)
}

fn snapshot_of(cluster: Cluster, endpoints: Vec<Endpoint>) -> Snapshot {
    let name: Name = "cluster/shop/cart/80".parse().unwrap();
    let outbound = Outbound {
        origin: Origin::default(),
        protocol: PortProtocol::Detect,
        http: HttpTarget::Cluster(name.clone()),
        tls: Vec::new(),
        tcp: vec![gauze_model::listener::WeightedCluster { cluster: name.clone(), weight: 1 }],
    };
    let listener = Name::Outbound { viewer: "shop".to_owned(), address: address(CART) };
    Snapshot {
        listeners: [(listener, Arc::new(Listener::Outbound(outbound)))].into(),
        clusters: [(name.clone(), Arc::new(cluster))].into(),
        endpoints: [(name, Arc::new(EndpointSet { endpoints }))].into(),
        ..Snapshot::default()
    }
}

/// Where an address leads whose cluster has these plain endpoints.
pub(crate) fn target_of(cluster: Cluster, endpoints: &[SocketAddr]) -> Arc<OutboundTarget> {
    let plain = |address: &SocketAddr| Endpoint { address: *address, ..endpoint(0, None, "", 1) };
    let snapshot = snapshot_of(cluster, endpoints.iter().map(plain).collect());
    let view = Targets::default().build(&snapshot, &Metrics::new());
    Arc::clone(&view.outbound[&address(CART)])
}

fn cart(view: &View) -> &ClusterTarget {
    &view.outbound[&address(CART)].tcp[0].cluster
}

/// Ejects as many of these endpoints as may be.
fn eject(view: &View, which: &[prop::sample::Index]) {
    let cluster = cart(view);
    for index in which.iter().filter(|_| !cluster.endpoints.is_empty()) {
        let endpoint = index.get(&cluster.endpoints);
        let (settings, now) = (cluster.outlier.unwrap(), std::time::Instant::now());
        for _ in 0..5 {
            cluster.terms.live.outliers.observe(&settings, endpoint, Some(Fault::Gateway), [now; 2], 0);
        }
    }
}

/// The endpoints of a view that are ejected.
fn ejected(view: &View) -> BTreeSet<u64> {
    let endpoints = cart(view).endpoints.iter().map(|endpoint| &endpoint.live);
    endpoints.filter(|live| live.is_out.load(Ordering::Relaxed)).map(|live| live.id).collect()
}

/// Everything live in a view, by what it belongs to.
fn live(view: &View) -> BTreeSet<(SocketAddr, Option<String>, String, u64, u64)> {
    let endpoints = cart(view).endpoints.iter();
    let live = endpoints.map(|target| {
        let identity = target.peer.identity().map(ToString::to_string);
        (target.peer.address, identity, target.workload.uid.clone(), target.live.id, target.peer.id)
    });
    live.collect()
}

fn build(targets: &mut Targets, endpoints: Vec<Endpoint>) -> View {
    targets.build(&snapshot(endpoints), &Metrics::new())
}

fn some_endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = (0..6_u8, prop_oneof![Just(None), Just(Some("cart")), Just(Some("other"))], "[ab]", 0..3_u32);
    let one = one.prop_map(|(pod, identity, uid, weight)| endpoint(pod, identity, &uid, weight));
    proptest::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn what_is_pushed_again_in_any_order_keeps_its_live_state(
        (endpoints, reordered) in some_endpoints()
            .prop_flat_map(|endpoints| (Just(endpoints.clone()), Just(endpoints).prop_shuffle())),
        failing: [prop::sample::Index; 4],
    ) {
        let mut targets = Targets::default();
        let before = build(&mut targets, endpoints.clone());
        eject(&before, &failing);
        let (wanted, out) = (live(&before), ejected(&before));
        let terms = Arc::clone(&cart(&before).terms.live);
        let after = build(&mut targets, reordered);
        drop(before);
        prop_assert_eq!(live(&after), wanted);
        prop_assert_eq!(ejected(&after), out);
        prop_assert!(Arc::ptr_eq(&cart(&after).terms.live, &terms));
    }

    #[test]
    fn a_change_leaves_the_others_alone(
        endpoints in some_endpoints(), others in some_endpoints(), failing: [prop::sample::Index; 4],
    ) {
        let mut targets = Targets::default();
        let before = build(&mut targets, endpoints.clone());
        eject(&before, &failing);
        let out = ejected(&before);
        let after = build(&mut targets, others);
        prop_assert!(ejected(&after).is_subset(&out));
        let count = cart(&after).endpoints.len();
        prop_assert!(count == 0 || ejected(&after).len() < count, "never the last one");
        let key = |(address, identity, uid, ..): &(SocketAddr, Option<String>, String, u64, u64)| {
            (*address, identity.clone(), uid.clone())
        };
        for one in live(&after) {
            let same = live(&before).into_iter().find(|other| key(other) == key(&one));
            prop_assert!(same.is_none_or(|same| same == one), "{one:?}");
        }
    }
}

#[test]
fn an_unchanged_cluster_is_not_built_again() {
    let mut targets = Targets::default();
    let snapshot = snapshot(vec![endpoint(1, Some("cart"), "a", 1)]);
    let before = targets.build(&snapshot, &Metrics::new());
    let after = targets.build(&snapshot.clone(), &Metrics::new());
    assert!(std::ptr::eq(cart(&before), cart(&after)));
}

#[test]
fn an_endpoint_that_is_gone_lives_on_while_something_is_in_flight_to_it() {
    let mut targets = Targets::default();
    let view = build(&mut targets, vec![endpoint(1, None, "a", 1)]);
    let in_flight = Arc::clone(&cart(&view).endpoints[0].live);
    let slot = in_flight.slot;
    drop((view, build(&mut targets, vec![])));
    let back = build(&mut targets, vec![endpoint(1, None, "a", 1)]);
    assert!(Arc::ptr_eq(&cart(&back).endpoints[0].live, &in_flight), "it came back before it had drained");

    let id = in_flight.id;
    drop((in_flight, back, build(&mut targets, vec![])));
    let anew = build(&mut targets, vec![endpoint(1, None, "a", 1)]);
    assert_ne!(cart(&anew).endpoints[0].live.id, id, "what has drained ended (its slot was {slot})");
}

#[test]
fn clusters_share_a_peer_and_not_their_load() {
    let mut targets = Targets::default();
    let mut snapshot = snapshot(vec![endpoint(1, Some("cart"), "a", 1)]);
    let first: Name = "cluster/shop/cart/80".parse().unwrap();
    let second: Name = "cluster/shop/cart-v1/80".parse().unwrap();
    snapshot.clusters.insert(second.clone(), Arc::clone(&snapshot.clusters[&first]));
    snapshot.endpoints.insert(second.clone(), Arc::clone(&snapshot.endpoints[&first]));
    let metrics = Metrics::new();
    let [one, other] = [first, second].map(|name| targets.cluster(&name, &snapshot, &metrics));
    assert!(Arc::ptr_eq(&one.endpoints[0].peer, &other.endpoints[0].peer));
    assert!(!Arc::ptr_eq(&one.endpoints[0].live, &other.endpoints[0].live));
}

#[test]
fn the_own_pod_is_dialled_in_plaintext_where_its_app_listens() {
    let mapped = [(address("10.1.0.1:8080"), address("127.0.0.1:9001"))].into();
    let own = OwnAddresses { addresses: vec!["10.1.0.2".parse().unwrap()], mapped };
    let mut targets = Targets::new(own);
    let pods = [1, 2, 3].map(|pod| endpoint(pod, Some("cart"), "a", 1));
    let view = build(&mut targets, pods.to_vec());
    let dialled = cart(&view).endpoints.iter();
    let dialled: Vec<_> =
        dialled.map(|to| (to.peer.address.to_string(), to.peer.identity().is_some())).collect();
    let wanted = [("127.0.0.1:9001", false), ("10.1.0.2:8080", false), ("10.1.0.3:8080", true)];
    assert_eq!(dialled, wanted.map(|(address, is_mesh)| (address.to_owned(), is_mesh)));
}

#[test]
fn what_is_known_not_to_exist_is_told_from_what_is_empty() {
    let mut targets = Targets::default();
    let empty = build(&mut targets, vec![]);
    assert!(cart(&empty).known && cart(&empty).endpoints.is_empty());
    let absent = targets.build(&Snapshot { clusters: BTreeMap::new(), ..snapshot(vec![]) }, &Metrics::new());
    assert!(!cart(&absent).known);
}

#[test]
fn a_limit_is_taken_and_given_back() {
    let limits = Limits { connections: 0, pending: 1, requests: 2 };
    let retry_budget = RetryBudget::default();
    let terms = Terms { connect_timeout: CONNECT_TIMEOUT, limits, retry_budget, live: Arc::default() };
    let taken = [terms.take(Limited::Requests).unwrap(), terms.take(Limited::Requests).unwrap()];
    assert_eq!(terms.take(Limited::Requests).err(), Some(Exceeded::Requests(2)));
    assert_eq!(terms.take(Limited::Connections).err(), Some(Exceeded::Connections(0)));
    drop(taken);
    assert_eq!(terms.live.in_use(), InUse::default());
}
