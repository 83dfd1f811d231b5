//! Nothing is dropped in silence: every field of every message that is read is set, one after another, and each time
//! the resource must be refused, or mean something else, unless the field is a mere label.

mod routes;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint as Host, LbEndpoint};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener as EnvoyListener};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use gauze_model::budget::RetryBudget;
use gauze_model::cluster::{Balance, CONNECT_TIMEOUT, Limits, Transport, Workload};
use gauze_model::listener::{
    HttpTarget, Inbound, InboundPort, Mtls, Outbound, PortProtocol, WeightedCluster,
};
use gauze_model::outlier::OutlierDetection;
use gauze_model::route::HostPattern;
use gauze_model::server_name::TlsRule;
use gauze_model::snapshot::Resource;
use gauze_model::{Cluster as ModelCluster, Endpoint, EndpointSet, Listener, Name, Origin, SpiffeId};
use prost::{DecodeError, Message};

use crate::{from_xds, to_xds};

/// No message of Envoy's has a field with a higher number.
const HIGHEST_TAG: u32 = 120;

/// One way to set a field of any type: a number, a flag, or an empty or short string, list or message.
fn settings(tag: u32) -> Vec<Vec<u8>> {
    let field = |wire_type: u32, value: &[u8]| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(u64::from(tag << 3 | wire_type), &mut bytes);
        bytes.extend(value);
        bytes
    };
    vec![
        field(0, &[1]),
        field(0, &[3]),
        field(2, &[0]),
        field(2, &[1, b'x']),
        field(1, &[1; 8]),
        field(5, &[1; 4]),
    ]
}

/// Adds an encoded field to one message inside another.
type Add<'a, M> = &'a dyn Fn(&mut M, &[u8]) -> Result<(), DecodeError>;

/// Adds an encoded field to a message.
fn add<M: Message + Default>(message: &mut M, field: &[u8]) -> Result<(), DecodeError> {
    message.merge(field)
}

/// Adds an encoded field to a packed message.
fn add_packed<M: Message + Default + PartialEq>(
    packed: &mut Vec<u8>,
    field: &[u8],
) -> Result<(), DecodeError> {
    let before = M::decode(packed.as_slice())?;
    let mut message = M::decode(packed.as_slice())?;
    message.merge(field)?;
    if message != before {
        *packed = message.encode_to_vec();
    }
    Ok(())
}

/// Sets every field of one message inside `sample`; `labels` are the numbers of those that may be ignored.
fn every_field_counts<M: Message + Default + Clone + PartialEq>(
    what: &str,
    (name, resource): &(Name, Resource),
    labels: &[u32],
    add_to: impl Fn(&mut M, &[u8]) -> Result<(), DecodeError>,
) {
    let written = to_xds(name, resource);
    let original = M::decode(written.resource.as_ref().unwrap().value.as_slice()).unwrap();
    assert_eq!(
        from_xds(resource.kind(), &written).as_ref().map(|read| &read.resource),
        Ok(resource),
        "{what}"
    );
    let mut counted = 0;
    for tag in (1..=HIGHEST_TAG).filter(|tag| !labels.contains(tag)) {
        for field in settings(tag) {
            let mut changed = original.clone();
            if add_to(&mut changed, &field).is_err() || changed == original {
                continue;
            }
            let mut message = written.clone();
            message.resource.as_mut().unwrap().value = changed.encode_to_vec();
            let read = from_xds(resource.kind(), &message);
            let dropped = read.is_ok_and(|read| read.resource == *resource);
            assert!(!dropped, "{what}: field {tag} is dropped");
            counted += 1;
        }
    }
    assert!(counted > 0, "{what}: nothing was set");
}

fn origin(path: &str) -> Origin {
    Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: "cart".into(), ..Origin::default() }
        .at(path)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

// Clusters and endpoints.

fn cluster() -> (Name, Resource) {
    let cluster = ModelCluster {
        origin: origin(""),
        policy: Some(origin("spec")),
        protocol: PortProtocol::Grpc,
        balance: Balance::RoundRobin,
        limits: Limits { connections: 7, pending: 7, requests: 7 },
        outlier: Some(OutlierDetection {
            consecutive_5xx: NonZeroU32::new(7),
            ..OutlierDetection::default()
        }),
        retry_budget: RetryBudget { percent: 7, min_per_second: 7, interval: Duration::from_secs(7) },
        connect_timeout: CONNECT_TIMEOUT,
    };
    (name("cluster/shop/cart/80"), Resource::Cluster(Arc::new(cluster)))
}

#[test]
fn no_field_of_a_cluster_is_dropped() {
    let check = |what, labels: &[u32], add_to: Add<Cluster>| {
        every_field_counts(what, &cluster(), labels, add_to);
    };
    // alt_stat_name; track_remaining
    check("Cluster", &[28], &|cluster, field| add(cluster, field));
    check("EdsClusterConfig", &[], &|cluster, field| {
        add(cluster.eds_cluster_config.as_mut().unwrap(), field)
    });
    check("ConfigSource", &[], &|cluster, field| {
        add(cluster.eds_cluster_config.as_mut().unwrap().eds_config.as_mut().unwrap(), field)
    });
    check("CircuitBreakers", &[], &|cluster, field| add(cluster.circuit_breakers.as_mut().unwrap(), field));
    check("Thresholds", &[6], &|cluster, field| {
        add(&mut cluster.circuit_breakers.as_mut().unwrap().thresholds[0], field)
    });
    // enforcing_failure_percentage and …_local_origin, which are set to 0 here and are 0 unless they are set
    check("OutlierDetection", &[17, 18], &|cluster, field| {
        add(cluster.outlier_detection.as_mut().unwrap(), field)
    });
    check("TransportSocketMatch", &[], &|cluster, field| {
        add(&mut cluster.transport_socket_matches[0], field)
    });
}

fn endpoints() -> (Name, Resource) {
    let endpoint = Endpoint {
        address: "10.1.0.4:8080".parse().unwrap(),
        weight: 5,
        transport: Transport::Mesh(SpiffeId::new("cluster.local", "shop", "cart")),
        workload: Workload { namespace: "shop".into(), pod: "cart-0".into(), ..Workload::default() },
    };
    let set = EndpointSet { endpoints: vec![endpoint] };
    (name("cluster/shop/cart/80"), Resource::Endpoints(Arc::new(set)))
}

type Assignment = ClusterLoadAssignment;

fn endpoint(assignment: &mut Assignment) -> &mut LbEndpoint {
    &mut assignment.endpoints[0].lb_endpoints[0]
}

fn host(assignment: &mut Assignment) -> &mut Host {
    match &mut endpoint(assignment).host_identifier {
        Some(HostIdentifier::Endpoint(host)) => host,
        other => panic!("{other:?}"),
    }
}

fn socket_address(assignment: &mut Assignment) -> &mut SocketAddress {
    match &mut host(assignment).address {
        Some(Address { address: Some(AddressKind::SocketAddress(socket)) }) => socket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_field_of_endpoints_is_dropped() {
    let check = |what, labels: &[u32], add_to: Add<Assignment>| {
        every_field_counts(what, &endpoints(), labels, add_to);
    };
    check("ClusterLoadAssignment", &[], &|assignment, field| add(assignment, field));
    check("LocalityLbEndpoints", &[], &|assignment, field| add(&mut assignment.endpoints[0], field));
    // health_status HEALTHY is what UNKNOWN means; observability_name
    check("LbEndpoint", &[2], &|assignment, field| add(endpoint(assignment), field));
    check("Endpoint", &[5], &|assignment, field| add(host(assignment), field));
    check("SocketAddress", &[], &|assignment, field| add(socket_address(assignment), field));
}

// Listeners.

fn outbound() -> (Name, Resource) {
    let by_name = TlsRule {
        origin: origin("spec.rules[0]"),
        server_names: vec![HostPattern::Exact("cart.example".into())],
        shares: vec![WeightedCluster { cluster: name("cluster/shop/cart/443"), weight: 7 }],
    };
    let outbound = Outbound {
        origin: origin(""),
        protocol: PortProtocol::Detect,
        http: HttpTarget::Routes(name("routes/shop/cart/80")),
        tls: vec![by_name],
        tcp: vec![WeightedCluster { cluster: name("cluster/shop/cart/80"), weight: 7 }],
    };
    let listener = Listener::Outbound(outbound);
    (name("outbound/shop/10.96.0.12:80"), Resource::Listener(Arc::new(listener)))
}

fn inbound() -> (Name, Resource) {
    let port = InboundPort { protocol: PortProtocol::Http, mtls: Mtls::Permissive };
    let inbound = Inbound {
        origin: origin(""),
        identity: SpiffeId::new("cluster.local", "shop", "cart"),
        addresses: vec!["10.1.0.4".parse().unwrap()],
        mtls: Mtls::Strict,
        ports: BTreeMap::from([(8080, port)]),
        mesh_networks: vec!["10.0.0.0/8".parse().unwrap()],
        policies: Vec::new(),
    };
    (name("inbound/shop/cart-0"), Resource::Listener(Arc::new(Listener::Inbound(inbound))))
}

fn filter(chain: &mut FilterChain) -> &mut Vec<u8> {
    match &mut chain.filters[0].config_type {
        Some(ConfigType::TypedConfig(config)) => &mut config.value,
        other => panic!("{other:?}"),
    }
}

fn tls(chain: &mut FilterChain) -> &mut Vec<u8> {
    match &mut chain.transport_socket.as_mut().unwrap().config_type {
        Some(SocketConfig::TypedConfig(config)) => &mut config.value,
        other => panic!("{other:?}"),
    }
}

/// Of a listener: stat_prefix. Of a filter chain: name.
const LISTENER_LABELS: &[u32] = &[28];
const CHAIN_LABELS: &[u32] = &[7];

#[test]
fn no_field_of_an_outbound_listener_is_dropped() {
    let check = |what, labels: &[u32], add_to: Add<EnvoyListener>| {
        every_field_counts(what, &outbound(), labels, add_to)
    };
    check("Listener", LISTENER_LABELS, &|listener, field| add(listener, field));
    check("FilterChain", CHAIN_LABELS, &|listener, field| add(&mut listener.filter_chains[0], field));
    check("HttpConnectionManager", &[], &|listener, field| {
        add_packed::<HttpConnectionManager>(filter(&mut listener.filter_chains[0]), field)
    });
    check("FilterChain of a server name", CHAIN_LABELS, &|listener, field| {
        add(&mut listener.filter_chains[1], field)
    });
    check("FilterChainMatch", &[], &|listener, field| {
        add(listener.filter_chains[1].filter_chain_match.as_mut().unwrap(), field)
    });
    check("TcpProxy of a server name", &[1], &|listener, field| {
        add_packed::<TcpProxy>(filter(&mut listener.filter_chains[1]), field)
    });
    check("FilterChain of all other TLS", CHAIN_LABELS, &|listener, field| {
        add(&mut listener.filter_chains[2], field)
    });
    check("default FilterChain", CHAIN_LABELS, &|listener, field| {
        add(listener.default_filter_chain.as_mut().unwrap(), field)
    });
    check("TcpProxy", &[1], &|listener, field| {
        add_packed::<TcpProxy>(filter(listener.default_filter_chain.as_mut().unwrap()), field)
    });
}

#[test]
fn no_field_of_an_inbound_listener_is_dropped() {
    let check = |what, labels: &[u32], add_to: Add<EnvoyListener>| {
        every_field_counts(what, &inbound(), labels, add_to)
    };
    check("Listener", LISTENER_LABELS, &|listener, field| add(listener, field));
    for index in 0..5 {
        check("FilterChain", CHAIN_LABELS, &|listener, field| add(&mut listener.filter_chains[index], field));
        check("FilterChainMatch", &[], &|listener, field| {
            add(listener.filter_chains[index].filter_chain_match.as_mut().unwrap(), field)
        });
    }
    check("HttpConnectionManager", &[], &|listener, field| {
        add_packed::<HttpConnectionManager>(filter(&mut listener.filter_chains[0]), field)
    });
    check("TcpProxy", &[], &|listener, field| {
        add_packed::<TcpProxy>(filter(&mut listener.filter_chains[1]), field)
    });
    check("DownstreamTlsContext", &[], &|listener, field| {
        add_packed::<DownstreamTlsContext>(tls(&mut listener.filter_chains[0]), field)
    });
}
