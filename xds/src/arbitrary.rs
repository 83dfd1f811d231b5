//! Arbitrary values of the model, for property tests.
//!
//! Left out is what means the same as something else, which is then what is read back: opaque shares of 0, a header
//! that is both changed and removed, or changed by a rule and its backend, a rewrite of what is not forwarded, the
//! prefix of what did not match by one. And what has no meaning: a split whose weights come to 0.

mod authorization;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gauze_model::budget::{INTERVAL_LIMIT, RetryBudget};
use gauze_model::cluster::{Balance, Limits, Transport, Workload};
use gauze_model::listener::{
    HttpTarget, Inbound, InboundPort, Mtls, Outbound, PortProtocol, WeightedCluster,
};
use gauze_model::name::ServicePort;
use gauze_model::outlier::OutlierDetection;
use gauze_model::retry::{BackOff, Conditions, GrpcStatuses, RetryPolicy, Unanswered};
use gauze_model::route::{
    Action, Backend, Filters, HeaderChange, HeaderMatch, HostPattern, PathChange, PathMatch, Pattern,
    QueryMatch, Redirect, Rewrite, RouteMatch, ValueMatch, VirtualHost,
};
use gauze_model::server_name::TlsRule;
use gauze_model::snapshot::Resource;
use gauze_model::timeouts::Timeouts;
use gauze_model::{Cluster, Endpoint, EndpointSet, Listener, Name, Origin, RouteRule, RouteTable, SpiffeId};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use proptest::collection::{btree_map, hash_set, vec};
use proptest::option;
use proptest::prelude::*;

/// Any resource with a name that fits it.
pub(crate) fn named_resource() -> impl Strategy<Value = (Name, Resource)> {
    prop_oneof![named_inbound(), named_outbound(), named_routes(), named_cluster(), named_endpoints()]
}

pub(crate) fn named_inbound() -> impl Strategy<Value = (Name, Resource)> {
    (word(), word(), inbound()).prop_map(|(namespace, pod, inbound)| {
        (Name::Inbound { namespace, pod }, Resource::Listener(Arc::new(Listener::Inbound(inbound))))
    })
}

pub(crate) fn named_outbound() -> impl Strategy<Value = (Name, Resource)> {
    (word(), address(), outbound()).prop_map(|(viewer, address, outbound)| {
        (Name::Outbound { viewer, address }, Resource::Listener(Arc::new(Listener::Outbound(outbound))))
    })
}

pub(crate) fn named_routes() -> impl Strategy<Value = (Name, Resource)> {
    (routes_name(), table()).prop_map(|(name, table)| (name, Resource::Routes(Arc::new(table))))
}

pub(crate) fn named_cluster() -> impl Strategy<Value = (Name, Resource)> {
    (cluster_name(), cluster()).prop_map(|(name, cluster)| (name, Resource::Cluster(Arc::new(cluster))))
}

pub(crate) fn named_endpoints() -> impl Strategy<Value = (Name, Resource)> {
    let set = vec(endpoint(), 0..6).prop_map(|endpoints| EndpointSet { endpoints });
    (cluster_name(), set).prop_map(|(name, set)| (name, Resource::Endpoints(Arc::new(set))))
}

// Names and origins.

fn word() -> impl Strategy<Value = String> {
    "[a-z]([-a-z0-9]{0,6}[a-z0-9])?"
}

fn text() -> impl Strategy<Value = String> {
    ".{0,8}"
}

fn service() -> impl Strategy<Value = ServicePort> {
    (word(), word(), any::<u16>()).prop_map(|(namespace, name, port)| ServicePort::new(namespace, name, port))
}

fn routes_name() -> impl Strategy<Value = Name> {
    (service(), option::of(word())).prop_map(|(service, viewer)| Name::Routes { service, viewer })
}

fn cluster_name() -> impl Strategy<Value = Name> {
    prop_oneof![service().prop_map(Name::Cluster), address().prop_map(Name::Pod)]
}

/// Without an IPv6 scope, which no name and no pod has.
fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn origin() -> impl Strategy<Value = Origin> {
    (text(), text(), text(), text(), any::<i64>(), text()).prop_map(
        |(kind, namespace, name, uid, generation, path)| Origin {
            kind,
            namespace,
            name,
            uid,
            generation,
            path,
        },
    )
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    (word(), word(), word())
        .prop_map(|(domain, namespace, account)| SpiffeId::new(domain, namespace, account))
}

/// Above 0 and below what Envoy can count in nanoseconds.
fn duration() -> impl Strategy<Value = Duration> {
    (0..9_000_000_000_u64, 1_000_000..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

// Listeners.

fn protocol() -> impl Strategy<Value = PortProtocol> {
    prop_oneof![
        Just(PortProtocol::Detect),
        Just(PortProtocol::Http),
        Just(PortProtocol::Http2),
        Just(PortProtocol::Grpc),
        Just(PortProtocol::Tls),
        Just(PortProtocol::Opaque),
    ]
}

fn mtls() -> impl Strategy<Value = Mtls> {
    prop_oneof![Just(Mtls::Permissive), Just(Mtls::Strict)]
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=32_u8).prop_map(|(ip, length)| {
        let network = IpNet::new(ip, length).unwrap();
        network.trunc()
    })
}

fn inbound() -> impl Strategy<Value = Inbound> {
    let port = (protocol(), mtls()).prop_map(|(protocol, mtls)| InboundPort { protocol, mtls });
    let ports = btree_map(any::<u16>(), port, 0..4);
    let addresses = hash_set(any::<IpAddr>(), 1..3).prop_map(|addresses| addresses.into_iter().collect());
    let policies = vec(authorization::policy(), 0..4);
    (origin(), identity(), addresses, mtls(), ports, vec(network(), 0..4), policies).prop_map(
        |(origin, identity, addresses, mtls, ports, mesh_networks, policies)| Inbound {
            origin,
            identity,
            addresses,
            mtls,
            ports,
            mesh_networks,
            policies,
        },
    )
}

fn outbound() -> impl Strategy<Value = Outbound> {
    let http = prop_oneof![
        routes_name().prop_map(HttpTarget::Routes),
        cluster_name().prop_map(HttpTarget::Cluster),
    ];
    let shares = || {
        let share = (cluster_name(), 1..=u32::MAX);
        vec(share.prop_map(|(cluster, weight)| WeightedCluster { cluster, weight }), 0..3)
    };
    (origin(), protocol(), http, tls_rules(shares()), shares()).prop_map(
        |(origin, protocol, http, tls, tcp)| Outbound {
            origin,
            protocol,
            http,
            tls: if protocol.may_be_tls() { tls } else { Vec::new() },
            tcp,
        },
    )
}

/// No name twice, and `Any` alone.
fn tls_rules(shares: impl Strategy<Value = Vec<WeightedCluster>>) -> impl Strategy<Value = Vec<TlsRule>> {
    (vec((origin(), shares), 0..4), hash_set(host_pattern(), 0..8)).prop_map(|(rules, names)| {
        let (any, mut names): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| *name == HostPattern::Any);
        let share = names.len().div_ceil(rules.len().max(1));
        let mut left = [any].into_iter().filter(|any| !any.is_empty());
        let rules = rules.into_iter().filter_map(|(origin, shares)| {
            let server_names = left.next().unwrap_or_else(|| names.drain(..share.min(names.len())).collect());
            (!server_names.is_empty()).then_some(TlsRule { origin, server_names, shares })
        });
        rules.collect()
    })
}

// Clusters and endpoints.

fn cluster() -> impl Strategy<Value = Cluster> {
    let balance = prop_oneof![
        (duration(), duration()).prop_map(|(start, decay)| Balance::PeakEwma { start, decay }),
        Just(Balance::RoundRobin),
        Just(Balance::LeastRequest),
        Just(Balance::Random),
    ];
    let limits = (any::<u32>(), any::<u32>(), any::<u32>());
    let limits =
        limits.prop_map(|(connections, pending, requests)| Limits { connections, pending, requests });
    let owners = (origin(), option::of(origin()));
    let outlier = option::of(outlier());
    (owners, protocol(), balance, limits, retry_budget(), outlier, duration()).prop_map(
        |((origin, policy), protocol, balance, limits, retry_budget, outlier, connect_timeout)| Cluster {
            origin,
            policy,
            protocol,
            balance,
            limits,
            outlier,
            retry_budget,
            connect_timeout,
        },
    )
}

fn outlier() -> impl Strategy<Value = OutlierDetection> {
    let count = || any::<u32>().prop_map(NonZeroU32::new);
    let times = (duration(), duration(), duration(), duration());
    let counts = (count(), count(), count());
    (counts, any::<bool>(), times, 0..=100_u32).prop_map(
        |((errors, gateway, local), split_external_local_origin_errors, times, max_ejection_percent)| {
            OutlierDetection {
                consecutive_5xx: errors,
                consecutive_gateway_failure: gateway,
                consecutive_local_origin_failure: local,
                split_external_local_origin_errors,
                interval: times.0,
                base_ejection_time: times.1,
                max_ejection_time: times.1.max(times.2),
                max_ejection_time_jitter: times.3,
                max_ejection_percent,
            }
        },
    )
}

fn retry_budget() -> impl Strategy<Value = RetryBudget> {
    (0..=100_u32, any::<u32>(), 1..=INTERVAL_LIMIT.as_secs()).prop_map(
        |(percent, min_per_second, interval)| RetryBudget {
            percent,
            min_per_second,
            interval: Duration::from_secs(interval),
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let one = SpiffeId::new("cluster.local", "shop", "cart");
    let transport = prop_oneof![
        Just(Transport::Plain),
        Just(Transport::Mesh(one)), // often the same, so that there are groups
        identity().prop_map(Transport::Mesh),
    ];
    let workload = (text(), text(), text(), text(), text());
    let workload = workload.prop_map(|(namespace, pod, uid, app, version)| Workload {
        namespace,
        pod,
        uid,
        app,
        version,
    });
    let weight = prop_oneof![0..3_u32, any::<u32>()];
    (address(), weight, transport, workload).prop_map(|(address, weight, transport, workload)| Endpoint {
        address,
        weight,
        transport,
        workload,
    })
}

// Routes.

fn table() -> impl Strategy<Value = RouteTable> {
    (origin(), hash_set(host_pattern(), 0..6), vec(vec(rule(), 0..4), 1..4)).prop_map(
        |(origin, domains, rules)| {
            let mut domains = domains.into_iter();
            let share = domains.len() / rules.len();
            let hosts = rules.into_iter().filter_map(|rules| {
                let domains: Vec<HostPattern> = domains.by_ref().take(share).collect();
                (!domains.is_empty()).then_some(VirtualHost { domains, rules })
            });
            RouteTable::from_hosts(origin, hosts.collect())
        },
    )
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    let host = "[a-z0-9]{1,3}(\\.[a-z0-9]{1,3}){0,2}";
    prop_oneof![
        Just(HostPattern::Any),
        host.prop_map(HostPattern::Exact),
        host.prop_map(HostPattern::Wildcard),
    ]
}

pub(crate) fn rule() -> impl Strategy<Value = RouteRule> {
    let filters = (header_change("r"), header_change("r"), rewrite());
    let patience = (retry(), timeouts());
    (origin(), route_match(), filters, action(), patience).prop_map(
        |(origin, matches, filters, action, patience)| {
            let (mut retry, mut timeouts) = patience;
            let (request_headers, response_headers, rewrite) = filters;
            let (mut rewrite, mut action) = (rewrite, action);
            match &mut action {
                Action::Forward(_) => drop_idle_change(&mut rewrite.path, &matches.path),
                Action::Redirect(redirect) => drop_idle_change(&mut redirect.path, &matches.path),
                Action::Respond(_) => {}
            }
            if !matches!(action, Action::Forward(_)) {
                (rewrite, retry, timeouts) = Default::default();
            }
            RouteRule {
                origin,
                matches,
                filters: Filters { request_headers, response_headers, rewrite },
                action,
                retry,
                timeouts,
            }
        },
    )
}

fn retry() -> impl Strategy<Value = Arc<RetryPolicy>> {
    let unanswered =
        prop_oneof![Just(Unanswered::Never), Just(Unanswered::Idempotent), Just(Unanswered::Always),];
    let word = prop_oneof![Just("cancelled"), Just("unavailable"), Just("internal")];
    let on =
        (unanswered, vec(100..600_u16, 0..4), vec(word, 0..3)).prop_map(|(unanswered, statuses, words)| {
            let grpc = words.into_iter().filter_map(GrpcStatuses::of_word);
            let grpc = grpc.fold(GrpcStatuses::default(), GrpcStatuses::with);
            Conditions { unanswered, statuses: statuses.into_iter().collect(), grpc }
        });
    let back_off = (0..1_000_000_u64, duration(), duration()).prop_map(|(least, one, other)| BackOff {
        least: Duration::from_micros(least),
        base: one.min(other),
        max: one.max(other),
    });
    (option::of(origin()), any::<u32>(), on, back_off, any::<u32>()).prop_map(
        |(origin, retries, on, back_off, replay_limit)| {
            Arc::new(RetryPolicy { origin, retries, on, back_off, replay_limit })
        },
    )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let some = || option::of(duration());
    (option::of(origin()), some(), some()).prop_map(|(origin, request, per_try)| Timeouts {
        origin,
        request,
        per_try,
    })
}

/// Only what matched by prefix has a prefix to replace.
fn drop_idle_change(change: &mut Option<PathChange>, matched: &PathMatch) {
    if matches!(change, Some(PathChange::ReplacePrefix(_))) && !matches!(matched, PathMatch::Prefix(_)) {
        *change = None;
    }
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof!["[a-z]{1,4}", "[a-z]\\.\\*", "\\([a-z]\\|[a-z]\\)"]
        .prop_map(|text| Pattern::new(&text).unwrap())
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![text().prop_map(ValueMatch::Exact), pattern().prop_map(ValueMatch::Regex)]
}

fn prefix() -> impl Strategy<Value = String> {
    prop_oneof![Just("/".to_owned()), "(/[a-z.*%]{1,3}){1,3}"]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        "/[a-z/]{0,6}".prop_map(PathMatch::Exact),
        prefix().prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Regex),
    ]
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let method = prop_oneof![Just(Method::GET), Just(Method::POST), Just("PURGE".parse().unwrap())];
    let header = (header_name("x"), value_match())
        .prop_map(|(name, value): (HeaderName, _)| HeaderMatch { name, value });
    let query = ("[ -~]{1,6}", value_match()).prop_map(|(name, value)| QueryMatch { name, value });
    (path_match(), option::of(method), vec(header, 0..3), vec(query, 0..3))
        .prop_map(|(path, method, headers, query)| RouteMatch { path, method, headers, query })
}

fn header_name(prefix: &'static str) -> impl Strategy<Value = HeaderName> {
    "[a-z]{1,6}".prop_map(move |name| format!("{prefix}-{name}").parse().unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let bytes = prop_oneof![
        Just(b"100%".to_vec()),
        vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..6),
        "[ -~ä]{0,6}".prop_map(String::into_bytes),
    ];
    bytes.prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

/// Of headers that nobody else changes.
fn header_change(prefix: &'static str) -> impl Strategy<Value = HeaderChange> {
    let changed = move || vec((header_name(prefix), header_value()), 0..3);
    let removed = header_name(prefix).prop_map(|name| format!("y-{name}").parse().unwrap());
    (changed(), changed(), vec(removed, 0..3)).prop_map(|(set, add, remove)| HeaderChange {
        set,
        add,
        remove,
    })
}

fn path_change() -> impl Strategy<Value = PathChange> {
    prop_oneof![
        "/[a-z\\\\$]{0,6}".prop_map(PathChange::ReplaceFull),
        prefix().prop_map(PathChange::ReplacePrefix),
    ]
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    (option::of(word()), option::of(path_change())).prop_map(|(host, path)| Rewrite { host, path })
}

fn backend() -> impl Strategy<Value = Backend> {
    let weight = prop_oneof![Just(0), 1..1_000_000_u32];
    (cluster_name(), weight, header_change("b"), header_change("b")).prop_map(
        |(cluster, weight, request_headers, response_headers)| Backend {
            cluster,
            weight,
            request_headers,
            response_headers,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let backends = vec(backend(), 1..4).prop_filter("the weights come to something", |backends| {
        backends.iter().any(|backend| backend.weight > 0)
    });
    let respond = (200..600_u16).prop_map(|status| Action::Respond(StatusCode::from_u16(status).unwrap()));
    prop_oneof![backends.prop_map(Action::Forward), redirect().prop_map(Action::Redirect), respond]
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = prop_oneof![Just(301), Just(302), Just(303), Just(307), Just(308)];
    let scheme = prop_oneof![Just("http".to_owned()), Just("https".to_owned())];
    (option::of(scheme), option::of(word()), option::of(1..=u16::MAX), option::of(path_change()), status)
        .prop_map(|(scheme, host, port, path, status)| Redirect {
            scheme,
            host,
            port,
            path,
            status: StatusCode::from_u16(status).unwrap(),
        })
}

// Tables of few words, to which requests of few words are sent.

/// The one cluster of such tables.
pub(crate) const BACKEND: &str = "cluster/shop/cart/80";

pub(crate) fn small_table() -> impl Strategy<Value = RouteTable> {
    let hosts = prop_oneof![
        Just(vec![HostPattern::Any]),
        Just(vec![HostPattern::Exact("a".into()), HostPattern::Wildcard("b.a".into())]),
        Just(vec![HostPattern::Wildcard("a".into())]),
    ];
    vec((hosts, vec(small_rule(), 1..5)), 1..3).prop_map(|hosts| {
        let mut hosts: Vec<VirtualHost> =
            hosts.into_iter().map(|(domains, rules)| VirtualHost { domains, rules }).collect();
        hosts.dedup_by(|one, next| one.domains == next.domains);
        RouteTable::from_hosts(Origin::default(), hosts)
    })
}

fn small_rule() -> impl Strategy<Value = RouteRule> {
    let filters = (small_header_change(), small_rewrite());
    (small_match(), filters, small_action()).prop_map(
        |(matches, (request_headers, mut rewrite), mut action)| {
            if let Action::Redirect(redirect) = &mut action {
                drop_idle_change(&mut redirect.path, &matches.path);
            }
            drop_idle_change(&mut rewrite.path, &matches.path);
            let filters = Filters { request_headers, response_headers: HeaderChange::default(), rewrite };
            RouteRule {
                origin: Origin::default(),
                matches,
                filters,
                action,
                retry: Default::default(),
                timeouts: Default::default(),
            }
        },
    )
}

fn small_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        small_path().prop_map(PathMatch::Exact),
        small_path().prop_map(PathMatch::Prefix),
        Just(PathMatch::Prefix("/".into())),
        Just(PathMatch::Regex(Pattern::new("/a(/b)?").unwrap())),
    ];
    let value = || {
        let patterns = prop_oneof![Just("1"), Just("[12]")];
        let regex = patterns.prop_map(|text| ValueMatch::Regex(Pattern::new(text).unwrap()));
        prop_oneof![Just(ValueMatch::Exact("1".into())), regex]
    };
    let header = value().prop_map(|value| HeaderMatch { name: HeaderName::from_static("x-a"), value });
    let query = value().prop_map(|value| QueryMatch { name: "q".into(), value });
    let method = prop_oneof![3 => Just(None), 1 => Just(Some(Method::GET))];
    (path, method, vec(header, 0..2), vec(query, 0..2))
        .prop_map(|(path, method, headers, query)| RouteMatch { path, method, headers, query })
}

fn small_path() -> impl Strategy<Value = String> {
    "(/[ab]{1,2}){1,2}"
}

fn small_header_change() -> impl Strategy<Value = HeaderChange> {
    let header = prop_oneof![
        Just((HeaderName::from_static("x-a"), HeaderValue::from_static("5%"))),
        Just((HeaderName::from_static("x-b"), HeaderValue::from_static("6"))),
    ];
    let change = (vec(header.clone(), 0..2), vec(header.clone(), 0..2), option::of(header));
    change.prop_map(|(set, add, remove)| HeaderChange {
        set,
        add,
        remove: remove.map(|(name, _)| name).into_iter().collect(),
    })
}

fn small_path_change() -> impl Strategy<Value = PathChange> {
    let to =
        prop_oneof![small_path(), Just("/".to_owned()), Just("/c/".to_owned()), Just("/c\\1".to_owned())];
    prop_oneof![to.clone().prop_map(PathChange::ReplacePrefix), to.prop_map(PathChange::ReplaceFull)]
}

fn small_rewrite() -> impl Strategy<Value = Rewrite> {
    let host = prop_oneof![3 => Just(None), 1 => Just(Some("d".to_owned()))];
    (host, option::of(small_path_change())).prop_map(|(host, path)| Rewrite { host, path })
}

fn small_action() -> impl Strategy<Value = Action> {
    let backend = small_header_change().prop_map(|request_headers| Backend {
        cluster: BACKEND.parse().unwrap(),
        weight: 1,
        request_headers,
        response_headers: HeaderChange::default(),
    });
    let redirect = (option::of(Just("https".to_owned())), option::of(Just("d".to_owned())));
    let redirect = (redirect, option::of(Just(81)), option::of(small_path_change()));
    let redirect = redirect.prop_map(|((scheme, host), port, path)| Redirect {
        scheme,
        host,
        port,
        path,
        status: StatusCode::FOUND,
    });
    prop_oneof![
        3 => backend.prop_map(|backend| Action::Forward(vec![backend])),
        1 => redirect.prop_map(Action::Redirect),
        1 => Just(Action::Respond(StatusCode::IM_A_TEAPOT)),
    ]
}
