//! Nothing is dropped in silence: every field of every message that is read is set, one after another, and each time
//! the resource must be refused, or mean something else, unless the field is a mere label.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint as Host, LbEndpoint};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener as EnvoyListener};
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action as ActionKind;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use gauze_model::cluster::{Balance, CONNECT_TIMEOUT, Limits, Transport, Workload};
use gauze_model::listener::{
    HttpTarget, Inbound, InboundPort, Mtls, Outbound, PortProtocol, WeightedCluster,
};
use gauze_model::route::{
    Action, Backend, Filters, HeaderChange, HeaderMatch, HostPattern, PathChange, PathMatch, Pattern,
    QueryMatch, Redirect, Rewrite, RouteMatch, ValueMatch, VirtualHost,
};
use gauze_model::snapshot::Resource;
use gauze_model::{
    Cluster as ModelCluster, Endpoint, EndpointSet, Listener, Name, Origin, RouteRule, RouteTable, SpiffeId,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
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
    assert_eq!(from_xds(resource.kind(), &written).as_ref().map(|read| &read.1), Ok(resource), "{what}");
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
            let dropped = read.is_ok_and(|read| read.1 == *resource);
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

// Routes.

/// A forwarding, a redirecting and an answering rule, each with all that a rule can have.
fn routes() -> (Name, Resource) {
    let change = HeaderChange {
        set: vec![(HeaderName::from_static("x-set"), HeaderValue::from_static("50%"))],
        add: vec![(HeaderName::from_static("x-add"), HeaderValue::from_static("b"))],
        remove: vec![HeaderName::from_static("x-remove")],
    };
    let backend = Backend {
        cluster: name("cluster/shop/v1/80"),
        weight: 3,
        request_headers: change.clone(),
        response_headers: change.clone(),
    };
    let matches = RouteMatch {
        path: PathMatch::Prefix("/cart".into()),
        method: Some(Method::GET),
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x"),
            value: ValueMatch::Exact("y".into()),
        }],
        query: vec![QueryMatch { name: "q".into(), value: ValueMatch::Regex(Pattern::new("a+").unwrap()) }],
    };
    let rewrite = Rewrite { host: Some("cart".into()), path: Some(PathChange::ReplacePrefix("/".into())) };
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: Some("cart".into()),
        port: Some(8443),
        path: Some(PathChange::ReplaceFull("/".into())),
        status: StatusCode::FOUND,
    };
    let rule = |action, rewrite| RouteRule {
        origin: origin("spec.rules[0]"),
        matches: matches.clone(),
        filters: Filters { request_headers: change.clone(), response_headers: change.clone(), rewrite },
        action,
    };
    let rules = vec![
        rule(Action::Forward(vec![backend]), rewrite),
        rule(Action::Redirect(redirect), Rewrite::default()),
        rule(Action::Respond(StatusCode::IM_A_TEAPOT), Rewrite::default()),
    ];
    let host = VirtualHost { domains: vec![HostPattern::Any], rules };
    let table = RouteTable::from_hosts(origin("spec"), vec![host]);
    (name("routes/shop/cart/80"), Resource::Routes(Arc::new(table)))
}

type Routes = route::RouteConfiguration;

fn rule(routes: &mut Routes, index: usize) -> &mut route::Route {
    &mut routes.virtual_hosts[0].routes[index]
}

fn matches(routes: &mut Routes) -> &mut route::RouteMatch {
    rule(routes, 0).r#match.as_mut().unwrap()
}

fn header_value(routes: &mut Routes) -> &mut StringMatcher {
    match &mut matches(routes).headers[1].header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn query_value(routes: &mut Routes) -> &mut StringMatcher {
    match &mut matches(routes).query_parameters[0].query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn forward(routes: &mut Routes) -> &mut route::RouteAction {
    match &mut rule(routes, 0).action {
        Some(ActionKind::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn shares(routes: &mut Routes) -> &mut route::WeightedCluster {
    match &mut forward(routes).cluster_specifier {
        Some(ClusterSpecifier::WeightedClusters(shares)) => shares,
        other => panic!("{other:?}"),
    }
}

fn redirect(routes: &mut Routes) -> &mut route::RedirectAction {
    match &mut rule(routes, 1).action {
        Some(ActionKind::Redirect(redirect)) => redirect,
        other => panic!("{other:?}"),
    }
}

fn answer(routes: &mut Routes) -> &mut route::DirectResponseAction {
    match &mut rule(routes, 2).action {
        Some(ActionKind::DirectResponse(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_field_of_a_route_table_is_dropped() {
    let check = |what, labels: &[u32], add_to: &dyn Fn(&mut Routes, &[u8]) -> Result<(), DecodeError>| {
        every_field_counts(what, &routes(), labels, add_to);
    };
    // name, virtual_clusters and metadata of a host; name, decorator and stat_prefix of a route; engine of a pattern
    check("RouteConfiguration", &[], &|routes, field| add(routes, field));
    check("VirtualHost", &[1, 5, 24], &|routes, field| add(&mut routes.virtual_hosts[0], field));
    check("Route", &[14, 5, 19], &|routes, field| add(rule(routes, 0), field));
    check("RouteMatch", &[], &|routes, field| add(matches(routes), field));
    check("HeaderMatcher", &[], &|routes, field| add(&mut matches(routes).headers[1], field));
    check("HeaderMatcher of a method", &[], &|routes, field| add(&mut matches(routes).headers[0], field));
    check("StringMatcher of a header", &[], &|routes, field| add(header_value(routes), field));
    check("QueryParameterMatcher", &[], &|routes, field| {
        add(&mut matches(routes).query_parameters[0], field)
    });
    check("StringMatcher of a query", &[], &|routes, field| add(query_value(routes), field));
    check("RouteAction", &[], &|routes, field| add(forward(routes), field));
    check("WeightedCluster", &[], &|routes, field| add(shares(routes), field));
    check("ClusterWeight", &[], &|routes, field| add(&mut shares(routes).clusters[0], field));
    // keep_empty_value of a value that is not empty
    check("HeaderValueOption", &[4], &|routes, field| {
        add(&mut rule(routes, 0).request_headers_to_add[0], field)
    });
    check("HeaderValue", &[], &|routes, field| {
        add(rule(routes, 0).request_headers_to_add[0].header.as_mut().unwrap(), field)
    });
    check("RegexMatchAndSubstitute", &[], &|routes, field| {
        add(forward(routes).regex_rewrite.as_mut().unwrap(), field)
    });
    check("RedirectAction", &[], &|routes, field| add(redirect(routes), field));
    check("DirectResponseAction", &[], &|routes, field| add(answer(routes), field));
}

// Clusters and endpoints.

fn cluster() -> (Name, Resource) {
    let cluster = ModelCluster {
        origin: origin(""),
        protocol: PortProtocol::Grpc,
        balance: Balance::RoundRobin,
        limits: Limits { connections: 7, pending: 7, requests: 7 },
        connect_timeout: CONNECT_TIMEOUT,
    };
    (name("cluster/shop/cart/80"), Resource::Cluster(Arc::new(cluster)))
}

#[test]
fn no_field_of_a_cluster_is_dropped() {
    let check = |what, labels: &[u32], add_to: &dyn Fn(&mut Cluster, &[u8]) -> Result<(), DecodeError>| {
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
    let check = |what, labels: &[u32], add_to: &dyn Fn(&mut Assignment, &[u8]) -> Result<(), DecodeError>| {
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
    let outbound = Outbound {
        origin: origin(""),
        protocol: PortProtocol::Detect,
        http: HttpTarget::Routes(name("routes/shop/cart/80")),
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

type Add<'a> = &'a dyn Fn(&mut EnvoyListener, &[u8]) -> Result<(), DecodeError>;

#[test]
fn no_field_of_an_outbound_listener_is_dropped() {
    let check = |what, labels: &[u32], add_to: Add| every_field_counts(what, &outbound(), labels, add_to);
    check("Listener", LISTENER_LABELS, &|listener, field| add(listener, field));
    check("FilterChain", CHAIN_LABELS, &|listener, field| add(&mut listener.filter_chains[0], field));
    check("HttpConnectionManager", &[], &|listener, field| {
        add_packed::<HttpConnectionManager>(filter(&mut listener.filter_chains[0]), field)
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
    let check = |what, labels: &[u32], add_to: Add| every_field_counts(what, &inbound(), labels, add_to);
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

// What a refusal says.

type Break = fn(&mut Routes);

#[test]
fn a_refusal_names_the_field_and_what_the_user_wrote() {
    let cases: [(Break, &str, &str); 8] = [
        (
            |routes| forward(routes).timeout = Some(crate::values::duration(CONNECT_TIMEOUT)),
            "virtual_hosts[0].routes[0].route.timeout: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| forward(routes).request_mirror_policies.push(Default::default()),
            "virtual_hosts[0].routes[0].route.request_mirror_policies: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| rule(routes, 1).r#match.as_mut().unwrap().headers[1].invert_match = true,
            "virtual_hosts[0].routes[1].match.headers[1].invert_match: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| shares(routes).clusters[0].name = "routes/a/b/80".into(),
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0].name: `routes/a/b/80` is not the name of a cluster",
            "spec.rules[0]",
        ),
        (
            |routes| header_value(routes).match_pattern = None,
            "virtual_hosts[0].routes[0].match.headers[1].string_match: only `exact` and `safe_regex` are supported",
            "spec.rules[0]",
        ),
        (
            |routes| {
                rule(routes, 2).request_headers_to_add[1].header.as_mut().unwrap().value =
                    "%PROTOCOL%".into();
            },
            "virtual_hosts[0].routes[2].request_headers_to_add[1].header.value: commands (`%…%`) are not supported",
            "spec.rules[0]",
        ),
        (
            |routes| routes.virtual_hosts[0].domains.push("*-cart".into()),
            "virtual_hosts[0].domains[1]: `*-cart`: only `*.` and a host is supported",
            "spec",
        ),
        (
            |routes| routes.ignore_port_in_host_matching = false,
            "ignore_port_in_host_matching: anything but `true` is not supported",
            "spec",
        ),
    ];
    let (name, resource) = routes();
    for (break_it, refusal, path) in cases {
        let mut message = to_xds(&name, &resource);
        let packed = &mut message.resource.as_mut().unwrap().value;
        let mut changed = Routes::decode(packed.as_slice()).unwrap();
        break_it(&mut changed);
        *packed = changed.encode_to_vec();
        let refused = from_xds(resource.kind(), &message).unwrap_err();
        assert_eq!(refused.to_string(), format!("{name}: {refusal}"));
        assert_eq!(refused.origin, Some(origin(path)));
    }
}
