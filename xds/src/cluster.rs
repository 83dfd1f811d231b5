//! Clusters: Envoy's `Cluster`, whose endpoints come by EDS under the same name.
//!
//! Endpoints are dialled with mesh TLS unless their group is marked as plain. Envoy has no peak-EWMA among its own
//! policies, so it is offered a list, takes the first one that it knows, and balances by least requests. A port whose
//! protocol is not declared is opaque to Envoy.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget as EnvoyBudget;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
};
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf;
use envoy_types::util::pack_any;
use gauze_model::budget::{INTERVAL_LIMIT, RetryBudget};
use gauze_model::cluster::{Balance, CONNECT_TIMEOUT, Limits};
use gauze_model::listener::PortProtocol;
use gauze_model::{Cluster, Name};

use crate::endpoint::plain_match;
use crate::metadata::{Facts, origin_of, origin_value, string, string_of};
use crate::outlier;
use crate::path::{At as _, Fault, Read, refuse, required, same};
use crate::tls;
use crate::values::{ads, duration, protocol_word, read_ads, read_duration, read_protocol, uint, unpack};

pub(crate) fn write(name: &Name, of: &Cluster) -> cluster::Cluster {
    let Cluster { origin, policy, protocol, balance, limits, retry_budget, outlier, connect_timeout } = of;
    let (lb_policy, load_balancing_policy) = write_balance(*balance);
    let facts = Facts::origin(origin).with("protocol", string(protocol_word(*protocol)));
    let facts = match policy {
        Some(policy) => facts.with("policy", origin_value(policy)),
        None => facts,
    };
    cluster::Cluster {
        name: name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() }),
        connect_timeout: Some(duration(*connect_timeout)),
        lb_policy,
        load_balancing_policy,
        common_lb_config: Some(no_panic()),
        circuit_breakers: Some(write_limits(*limits, *retry_budget)),
        outlier_detection: outlier.as_ref().map(outlier::write),
        typed_extension_protocol_options: http_options(*protocol),
        transport_socket_matches: vec![plain_socket()],
        transport_socket: Some(mesh_socket(*protocol)),
        metadata: Some(facts.into_metadata()),
        ..cluster::Cluster::default()
    }
}

pub(crate) fn read(of: cluster::Cluster) -> Read<Cluster> {
    let mut facts = Facts::read(of.metadata.clone()).at("metadata")?;
    let origin = facts.take_origin().at("metadata")?;
    let protocol = facts.take("protocol", |value| string_of(value).and_then(|word| read_protocol(&word)));
    let protocol = protocol.at("metadata")?.unwrap_or_default();
    let policy = facts.take("policy", origin_of).at("metadata")?;
    facts.end().at("metadata")?;
    let outlier = of.outlier_detection.clone().map(outlier::read).transpose();
    let outlier = outlier.at("outlier_detection").by(&origin)?;
    let (balance, (limits, retry_budget), connect_timeout) = read_settings(of, protocol).by(&origin)?;
    Ok(Cluster { origin, policy, protocol, balance, limits, retry_budget, outlier, connect_timeout })
}

/// How it is balanced, how much may be in use and retried, how long a connect may take.
type Settings = (Balance, (Limits, RetryBudget), Duration);

fn read_settings(of: cluster::Cluster, protocol: PortProtocol) -> Read<Settings> {
    let cluster::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name: _,          // compared with the resource's by the caller
        alt_stat_name: _, // a label of statistics
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection: _, // read by the caller
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata: _, // read by the caller
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = of;
    refuse!(transport_socket_matcher, stats_matcher, per_connection_buffer_limit_bytes);
    refuse!(per_connection_buffer_high_watermark_timeout, load_assignment, health_checks);
    refuse!(max_requests_per_connection, upstream_http_protocol_options, common_http_protocol_options);
    refuse!(http_protocol_options, http2_protocol_options, dns_refresh_rate, dns_jitter);
    refuse!(dns_failure_refresh_rate, respect_dns_ttl, dns_lookup_family, dns_resolvers);
    refuse!(use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config);
    refuse!(wait_for_warm_on_init, cleanup_interval, upstream_bind_config);
    refuse!(lb_subset_config, protocol_selection, upstream_connection_options);
    refuse!(close_connections_on_host_health_failure, ignore_health_on_host_removal, filters);
    refuse!(lrs_server, lrs_report_endpoint_metrics, track_timeout_budgets, upstream_config);
    refuse!(track_cluster_stats, preconnect_policy, connection_pool_per_downstream_connection);
    refuse!(queuing_policies, lb_config);
    let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
    same(&cluster_discovery_type, &eds).at("cluster_discovery_type")?;
    read_eds(eds_cluster_config).at("eds_cluster_config")?;
    same(&common_lb_config, &Some(no_panic())).at("common_lb_config")?;
    same(&typed_extension_protocol_options, &http_options(protocol))
        .at("typed_extension_protocol_options")?;
    same(&transport_socket_matches, &vec![plain_socket()]).at("transport_socket_matches")?;
    same(&transport_socket, &Some(mesh_socket(protocol))).at("transport_socket")?;
    let connect_timeout = connect_timeout.map(|timeout| read_duration(timeout).at("connect_timeout"));
    Ok((
        read_balance(lb_policy, load_balancing_policy)?,
        read_limits(circuit_breakers).at("circuit_breakers")?,
        connect_timeout.transpose()?.unwrap_or(CONNECT_TIMEOUT),
    ))
}

fn read_eds(config: Option<EdsClusterConfig>) -> Read<()> {
    let EdsClusterConfig { eds_config, service_name } = required(config)?;
    refuse!(service_name);
    read_ads(eds_config).at("eds_config")
}

/// Endpoints that are not chosen first are chosen only while no other can be; Envoy would by default use all of them
/// once less than half can be.
fn no_panic() -> CommonLbConfig {
    CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 0.0 }), ..CommonLbConfig::default() }
}

// Balancing.

/// Our peak-EWMA, as an extension of Envoy's list of policies.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PeakEwma {
    #[prost(message, optional, tag = "1")]
    start: Option<protobuf::Duration>,
    #[prost(message, optional, tag = "2")]
    decay: Option<protobuf::Duration>,
}

impl prost::Name for PeakEwma {
    const NAME: &'static str = "PeakEwma";
    const PACKAGE: &'static str = "gauze.v1alpha1";

    fn type_url() -> String {
        "type.googleapis.com/gauze.v1alpha1.PeakEwma".to_owned()
    }
}

fn write_balance(balance: Balance) -> (i32, Option<cluster::LoadBalancingPolicy>) {
    let policy = match balance {
        Balance::PeakEwma { start, decay } => {
            let ours = PeakEwma { start: Some(duration(start)), decay: Some(duration(decay)) };
            let policies = vec![
                extension("gauze.peak_ewma", pack_any(ours)),
                extension("envoy.load_balancing_policies.least_request", pack_any(LeastRequest::default())),
            ];
            let policy = LbPolicy::LoadBalancingPolicyConfig;
            return (policy as i32, Some(cluster::LoadBalancingPolicy { policies }));
        }
        Balance::RoundRobin => LbPolicy::RoundRobin,
        Balance::LeastRequest => LbPolicy::LeastRequest,
        Balance::Random => LbPolicy::Random,
    };
    (policy as i32, None)
}

fn extension(name: &str, config: protobuf::Any) -> Policy {
    let config = core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) };
    Policy { typed_extension_config: Some(config) }
}

fn read_balance(policy: i32, list: Option<cluster::LoadBalancingPolicy>) -> Read<Balance> {
    if let Some(cluster::LoadBalancingPolicy { policies }) = list {
        return read_policies(policies).at("policies").at("load_balancing_policy");
    }
    match LbPolicy::try_from(policy) {
        Ok(LbPolicy::RoundRobin) => Ok(Balance::RoundRobin),
        Ok(LbPolicy::LeastRequest) => Ok(Balance::LeastRequest),
        Ok(LbPolicy::Random) => Ok(Balance::Random),
        _ => Err(Fault::unsupported("lb_policy")),
    }
}

/// The first policy of a list that is known counts (so Envoy); what follows is for others.
fn read_policies(policies: Vec<Policy>) -> Read<Balance> {
    let configs = policies.into_iter().filter_map(|policy| policy.typed_extension_config?.typed_config);
    for (index, config) in configs.enumerate() {
        if config.type_url == <PeakEwma as prost::Name>::type_url() {
            return read_peak_ewma(&config).at("typed_extension_config.typed_config").item(index);
        }
    }
    Err(Fault::beyond("none of them is supported"))
}

fn read_peak_ewma(config: &protobuf::Any) -> Read<Balance> {
    let PeakEwma { start, decay } = unpack(config)?;
    let start = required(start).and_then(read_duration).at("start")?;
    let decay = required(decay).and_then(read_duration).at("decay")?;
    Ok(Balance::PeakEwma { start, decay })
}

// Limits.

fn write_limits(limits: Limits, budget: RetryBudget) -> cluster::CircuitBreakers {
    let Limits { connections, pending, requests } = limits;
    let thresholds = Thresholds {
        max_connections: uint(connections),
        max_pending_requests: uint(pending),
        max_requests: uint(requests),
        retry_budget: Some(write_budget(budget)),
        ..Thresholds::default()
    };
    cluster::CircuitBreakers { thresholds: vec![thresholds], ..cluster::CircuitBreakers::default() }
}

fn read_limits(breakers: Option<cluster::CircuitBreakers>) -> Read<(Limits, RetryBudget)> {
    let cluster::CircuitBreakers { thresholds, per_host_thresholds } = breakers.unwrap_or_default();
    refuse!(per_host_thresholds);
    let mut thresholds = thresholds.into_iter();
    let limits = thresholds.next().map(read_threshold).transpose().item(0).at("thresholds")?;
    match thresholds.next() {
        Some(_) => Err(Fault::unsupported("thresholds[1]")),
        None => Ok(limits.unwrap_or_default()),
    }
}

fn read_threshold(thresholds: Thresholds) -> Read<(Limits, RetryBudget)> {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining: _, // for statistics
        max_connection_pools,
    } = thresholds;
    refuse!(priority, max_connection_pools);
    if max_retries.is_some() {
        return Err(Fault::beyond("not supported: `retry_budget` bounds retries").at("max_retries"));
    }
    let budget = retry_budget.map(read_budget).transpose().at("retry_budget")?.unwrap_or_default();
    let Limits { connections, pending, requests } = Limits::default();
    let limits = Limits {
        connections: max_connections.map_or(connections, |limit| limit.value),
        pending: max_pending_requests.map_or(pending, |limit| limit.value),
        requests: max_requests.map_or(requests, |limit| limit.value),
    };
    Ok((limits, budget))
}

// What may be retried. Envoy's minimum bounds the retries at once; ours, those of a second.

/// Envoy's `min_retry_concurrency` where none is given.
const ENVOY_RETRIES_AT_ONCE: u32 = 3;

fn write_budget(budget: RetryBudget) -> EnvoyBudget {
    let RetryBudget { percent, min_per_second, interval } = budget;
    EnvoyBudget {
        budget_percent: Some(Percent { value: percent.into() }),
        budget_interval: Some(duration(interval)),
        min_retry_concurrency: uint(min_per_second),
    }
}

fn read_budget(budget: EnvoyBudget) -> Read<RetryBudget> {
    let EnvoyBudget { budget_percent, budget_interval, min_retry_concurrency } = budget;
    let default = RetryBudget::default();
    let percent = budget_percent.map(read_percent).transpose().at("budget_percent")?;
    let interval = budget_interval.map(read_duration).transpose().at("budget_interval")?.unwrap_or_default();
    if interval.subsec_nanos() != 0 || interval.is_zero() || interval > INTERVAL_LIMIT {
        let problem = format!("only whole seconds from 1 to {} are supported", INTERVAL_LIMIT.as_secs());
        return Err(Fault::beyond(problem).at("budget_interval"));
    }
    Ok(RetryBudget {
        percent: percent.unwrap_or(default.percent),
        min_per_second: min_retry_concurrency.map_or(ENVOY_RETRIES_AT_ONCE, |minimum| minimum.value),
        interval,
    })
}

fn read_percent(percent: Percent) -> Read<u32> {
    let Percent { value } = percent;
    let whole = (0_u32..=100).find(|whole| f64::from(*whole) == value);
    whole.ok_or_else(|| Fault::beyond("only whole numbers from 0 to 100 are supported"))
}

// How endpoints are dialled.

/// Envoy speaks HTTP/1.1 unless it is told otherwise.
fn http_options(protocol: PortProtocol) -> HashMap<String, protobuf::Any> {
    if !speaks_http2(protocol) {
        return HashMap::new();
    }
    let http2 = ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default());
    let explicit = ExplicitHttpConfig { protocol_config: Some(http2) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack_any(options))])
}

/// What is marked as plain is dialled as it is. Everything else is dialled with mesh TLS, the cluster's own socket,
/// so that a mistake in a mark costs a connection, never its secrecy. (A match of everything would not do: Envoy would
/// find it for the endpoint before it looks at the group, where the mark is.)
fn plain_socket() -> TransportSocketMatch {
    let raw = core::TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(RawBuffer {}))),
    };
    TransportSocketMatch {
        name: "plain".to_owned(),
        r#match: Some(plain_match()),
        transport_socket: Some(raw),
    }
}

fn mesh_socket(protocol: PortProtocol) -> core::TransportSocket {
    tls::upstream(match protocol {
        PortProtocol::Http => tls::HTTP1,
        PortProtocol::Http2 | PortProtocol::Grpc => tls::HTTP2,
        PortProtocol::Detect | PortProtocol::Tls | PortProtocol::Opaque => tls::TCP,
    })
}

fn speaks_http2(protocol: PortProtocol) -> bool {
    matches!(protocol, PortProtocol::Http2 | PortProtocol::Grpc)
}
