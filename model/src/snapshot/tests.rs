use std::net::SocketAddr;
use std::time::Duration;

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::cluster::{Endpoint, Transport, Workload};
use crate::listener::{Outbound, PortProtocol, WeightedCluster};
use crate::name::ServicePort;
use crate::origin::Origin;
use crate::route::{Action, Backend, HostPattern, RouteRule, VirtualHost};

fn cluster_name(service: &str) -> Name {
    Name::Cluster(ServicePort::new("shop", service, 80))
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, last], 80))
}

fn outbound(http: HttpTarget, tcp: &[&str]) -> Listener {
    let share = |service: &&str| WeightedCluster { cluster: cluster_name(service), weight: 1 };
    let tcp = tcp.iter().map(share).collect();
    let (origin, protocol, tls) = (Origin::default(), PortProtocol::Detect, Vec::new());
    Listener::Outbound(Outbound { origin, protocol, http, tls, tcp })
}

fn routes_to(services: &[&str]) -> RouteTable {
    let backend = |service: &&str| Backend {
        cluster: cluster_name(service),
        weight: 1,
        request_headers: Default::default(),
        response_headers: Default::default(),
    };
    let rule = RouteRule {
        origin: Origin::default(),
        matches: Default::default(),
        filters: Default::default(),
        action: Action::Forward(services.iter().map(backend).collect()),
        retry: Default::default(),
        timeouts: Default::default(),
    };
    let host = VirtualHost { domains: vec![HostPattern::Any], rules: vec![rule] };
    RouteTable::from_hosts(Origin::default(), vec![host])
}

fn endpoints(weights: &[u32]) -> EndpointSet {
    let endpoint = |(last, weight): (usize, &u32)| Endpoint {
        address: address(last as u8),
        weight: *weight,
        transport: Transport::Plain,
        workload: Workload::default(),
    };
    EndpointSet { endpoints: weights.iter().enumerate().map(endpoint).collect() }
}

fn cluster(connect_timeout: u64) -> Cluster {
    Cluster {
        protocol: PortProtocol::Http,
        connect_timeout: Duration::from_secs(connect_timeout),
        ..Cluster::default()
    }
}

#[test]
fn a_resource_refers_to_what_a_connection_needs_next() {
    let routes = Name::Routes { service: ServicePort::new("shop", "cart", 80), viewer: None };
    let [v1, v2] = [cluster_name("v1"), cluster_name("v2")];
    let both = |name: &Name| [(Kind::Cluster, name.clone()), (Kind::Endpoints, name.clone())];
    let dialled_service = outbound(HttpTarget::Routes(routes.clone()), &["v1"]);
    let dialled_pod = outbound(HttpTarget::Cluster(v2.clone()), &["v2"]);

    for (what, resource, wanted) in [
        (
            "a dialled Service: its table, and the clusters of its opaque connections",
            Resource::Listener(Arc::new(dialled_service)),
            BTreeSet::from_iter(both(&v1).into_iter().chain([(Kind::Routes, routes)])),
        ),
        ("a dialled pod: itself", Resource::Listener(Arc::new(dialled_pod)), BTreeSet::from(both(&v2))),
        (
            "a table: every backend with its endpoints",
            Resource::Routes(Arc::new(routes_to(&["v1", "v2", "v1"]))),
            BTreeSet::from_iter(both(&v1).into_iter().chain(both(&v2))),
        ),
        ("a cluster: nothing", Resource::Cluster(Arc::new(cluster(1))), BTreeSet::new()),
        ("endpoints: nothing", Resource::Endpoints(Arc::new(endpoints(&[1]))), BTreeSet::new()),
    ] {
        assert_eq!(resource.refers_to(), wanted, "{what}");
    }
}

#[test]
fn where_a_change_contradicts_itself_what_upserts_wins() {
    let key = (Kind::Endpoints, cluster_name("cart"));
    let resource = Resource::Endpoints(Arc::new(endpoints(&[1])));
    let change = Change {
        upsert: BTreeMap::from([(key.clone(), resource.clone())]),
        absent: BTreeSet::from([key.clone()]),
        forget: BTreeSet::from([key.clone()]),
    };
    let next = Snapshot::default().apply(change);
    assert_eq!((next.get(key.0, &key.1), next.absent), (Some(resource), BTreeSet::new()));
}

#[test]
fn equal_snapshots_differ_in_nothing() {
    let held = BTreeMap::from([(cluster_name("cart"), Arc::new(cluster(1)))]);
    let one = Snapshot { clusters: held, ..Snapshot::default() };
    assert_eq!(one.diff(&one.clone()), Change::default());
}

/// What is known of one name: a resource, or that there is none.
fn knowledge(kind: Kind) -> impl Strategy<Value = Option<Resource>> {
    (any::<bool>(), 0..3_u32).prop_map(move |(held, flavour)| held.then(|| resource(kind, flavour)))
}

fn resource(kind: Kind, flavour: u32) -> Resource {
    let service = ["v1", "v2", "v3"][flavour as usize];
    match kind {
        Kind::Listener => {
            Resource::Listener(Arc::new(outbound(HttpTarget::Cluster(cluster_name(service)), &[])))
        }
        Kind::Routes => Resource::Routes(Arc::new(routes_to(&[service]))),
        Kind::Cluster => Resource::Cluster(Arc::new(cluster(u64::from(flavour)))),
        Kind::Endpoints => Resource::Endpoints(Arc::new(endpoints(&[flavour]))),
    }
}

fn name(kind: Kind, number: u8) -> Name {
    match kind {
        Kind::Listener => Name::Outbound { viewer: "shop".into(), address: address(number) },
        Kind::Routes => {
            Name::Routes { service: ServicePort::new("shop", number.to_string(), 80), viewer: None }
        }
        Kind::Cluster | Kind::Endpoints => cluster_name(&number.to_string()),
    }
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let kinds = [Kind::Listener, Kind::Routes, Kind::Cluster, Kind::Endpoints];
    kinds.map(|kind| btree_map(0..5_u8, knowledge(kind), 0..5)).prop_map(move |known| {
        let mut snapshot = Snapshot::default();
        for (kind, numbers) in kinds.into_iter().zip(known) {
            for (number, knowledge) in numbers {
                match knowledge {
                    Some(resource) => snapshot.insert(name(kind, number), resource),
                    None => drop(snapshot.absent.insert((kind, name(kind, number)))),
                }
            }
        }
        snapshot
    })
}

proptest! {
    #[test]
    fn a_difference_leads_from_the_older_to_the_newer(older in snapshots(), newer in snapshots()) {
        prop_assert_eq!(older.apply(newer.diff(&older)), newer);
    }

    #[test]
    fn a_difference_names_only_what_differs(older in snapshots(), newer in snapshots()) {
        for (key, resource) in newer.diff(&older).upsert {
            prop_assert_ne!(older.get(key.0, &key.1), Some(resource));
        }
    }
}
