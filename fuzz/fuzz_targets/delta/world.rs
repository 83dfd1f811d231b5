//! What there is to say: some listeners that lead to routes, some routes that split over clusters. A byte says what
//! stands under a name: nothing yet, nothing at all, something that cannot be read, or one of many sound versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use gauze_model::cluster::{Transport, Workload};
use gauze_model::listener::{HttpTarget, Inbound, Mtls, Outbound, PortProtocol, WeightedCluster};
use gauze_model::name::ServicePort;
use gauze_model::route::{Action, Backend, Filters, HeaderChange, HostPattern, RouteMatch, VirtualHost};
use gauze_model::snapshot::Resource;
use gauze_model::{
    Cluster, Endpoint, EndpointSet, Kind, Listener, Name, Origin, RouteRule, RouteTable, SpiffeId,
};
use gauze_xds::EncodedResource;
use gauze_xds::delta::Answer;
use http::StatusCode;

pub type Key = (Kind, Name);

/// What stands under each name; a name that is not here is not decided yet.
#[derive(Default)]
pub struct World(BTreeMap<Key, u8>);

const ABSENT: u8 = 1;
const UNREADABLE: u8 = 2;

impl World {
    pub fn set(&mut self, key: &Key, how: u8) {
        self.0.insert(key.clone(), how);
    }

    pub fn answer(&self, kind: Kind, name: &Name) -> Answer {
        let key = (kind, name.clone());
        match self.0.get(&key).copied().unwrap_or(0) {
            0 => Answer::Undecided,
            ABSENT => Answer::Absent,
            how => Answer::Known(Arc::new(resource(&key, how))),
        }
    }

    /// What is undecided does not exist, and what is broken is mended.
    pub fn settle(&mut self) {
        for which in 0..=u8::MAX {
            let how = self.0.entry(key(which)).or_insert(ABSENT);
            match *how {
                0 => *how = ABSENT,
                UNREADABLE => *how = 3,
                _ => {}
            }
        }
    }

    /// What a proxy that wants these holds in the end.
    pub fn read(&self, key: &Key) -> Option<Resource> {
        match self.0.get(key).copied().unwrap_or(ABSENT) {
            ABSENT => None,
            how => Some(value(key, how)),
        }
    }
}

/// Three listeners; the last is how the pod itself accepts.
pub fn listener(which: u8) -> Name {
    match which % 3 {
        2 => Name::Inbound { namespace: "shop".to_owned(), pod: "web-0".to_owned() },
        number => Name::Outbound { viewer: "shop".to_owned(), address: ([10, 0, 0, number], 80).into() },
    }
}

/// All that has a name.
pub fn key(which: u8) -> Key {
    match which % 4 {
        0 => (Kind::Listener, listener(which / 4)),
        1 => (Kind::Routes, routes(which / 4)),
        2 => (Kind::Cluster, cluster(which / 4)),
        _ => (Kind::Endpoints, cluster(which / 4)),
    }
}

fn routes(which: u8) -> Name {
    Name::Routes { service: ServicePort::new("shop", ["a", "b"][usize::from(which % 2)], 80), viewer: None }
}

fn cluster(which: u8) -> Name {
    Name::Cluster(ServicePort::new("shop", ["a", "b", "c"][usize::from(which % 3)], 80))
}

/// On the wire.
pub fn resource(key: &Key, how: u8) -> EncodedResource {
    let mut encoded = EncodedResource::new(key.1.clone(), &value(key, how));
    if how == UNREADABLE {
        encoded.version = "unreadable".to_owned();
        encoded.resource.version = encoded.version.clone();
        encoded.resource.aliases = vec!["of which we know nothing".to_owned()];
    }
    encoded
}

fn value((kind, name): &Key, how: u8) -> Resource {
    let origin = Origin { generation: i64::from(how), ..Origin::default() };
    match (kind, name) {
        (Kind::Listener, Name::Inbound { .. }) => {
            Resource::Listener(Arc::new(Listener::Inbound(inbound(origin))))
        }
        (Kind::Listener, _) => Resource::Listener(Arc::new(Listener::Outbound(outbound(origin, how)))),
        (Kind::Routes, _) => Resource::Routes(Arc::new(table(origin, how))),
        (Kind::Cluster, _) => Resource::Cluster(Arc::new(Cluster { origin, ..Cluster::default() })),
        (Kind::Endpoints, _) => Resource::Endpoints(Arc::new(endpoints(how))),
    }
}

fn inbound(origin: Origin) -> Inbound {
    Inbound {
        origin,
        identity: SpiffeId::new("cluster.local", "shop", "web"),
        addresses: vec![[10, 1, 0, 1].into()],
        mtls: Mtls::Strict,
        ports: BTreeMap::default(),
        mesh_networks: Vec::new(),
        policies: Vec::new(),
    }
}

fn outbound(origin: Origin, how: u8) -> Outbound {
    let http = match how & 4 {
        0 => HttpTarget::Routes(routes(how / 8)),
        _ => HttpTarget::Cluster(cluster(how / 8)),
    };
    let share = |which: u8| WeightedCluster { cluster: cluster(which), weight: 1 };
    let tcp = if how & 64 == 0 { Vec::new() } else { vec![share(how / 16), share(how / 16 + 1)] };
    Outbound { origin, protocol: PortProtocol::Http, http, tls: Vec::new(), tcp }
}

fn table(origin: Origin, how: u8) -> RouteTable {
    let chosen = (0..3).filter(|bit| how & (4 << bit) != 0).map(cluster);
    let backend = |cluster| Backend {
        cluster,
        weight: 1,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    };
    let backends: Vec<_> = chosen.map(backend).collect();
    let action = if backends.is_empty() {
        Action::Respond(StatusCode::INTERNAL_SERVER_ERROR)
    } else {
        Action::Forward(backends)
    };
    let rule = RouteRule {
        origin: origin.clone(),
        matches: RouteMatch::default(),
        filters: Filters::default(),
        action,
        retry: Default::default(),
        timeouts: Default::default(),
    };
    RouteTable::from_hosts(origin, vec![VirtualHost { domains: vec![HostPattern::Any], rules: vec![rule] }])
}

fn endpoints(how: u8) -> EndpointSet {
    let endpoint = Endpoint {
        address: ([10, 1, 1, how], 8080).into(),
        weight: 1,
        transport: Transport::Plain,
        workload: Workload::default(),
    };
    EndpointSet { endpoints: vec![endpoint] }
}
