//! The filters that carry a connection: the HTTP connection manager, the TCP proxy, and what looks at first bytes.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType as ListenerConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, ListenerFilter};
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as http;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as tcp_parts;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use gauze_model::listener::{HttpTarget, WeightedCluster};

use crate::path::{At as _, Fault, Read, each, refuse, required, same};
use crate::values::{ads, boolean, duration, read_ads, read_cluster_name, read_name, unpack};

/// A listener filter without settings.
pub(super) fn listener_filter(name: &str, config: impl prost::Name) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(ListenerConfigType::TypedConfig(pack_any(config))),
    }
}

fn network_filter(name: &str, config: impl prost::Name) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(pack_any(config))) }
}

fn read_only_filter<M: prost::Message + prost::Name + Default>(filters: &[Filter]) -> Read<M> {
    let [Filter { name: _, config_type: Some(ConfigType::TypedConfig(config)) }] = filters else {
        return Err(Fault::new("not exactly one filter with a `typed_config`"));
    };
    unpack(config).at("typed_config").item(0)
}

// HTTP.

/// Carries HTTP by a route table of its own, or straight to one cluster.
pub(super) fn http_target(target: &HttpTarget) -> Filter {
    let specifier = match target {
        HttpTarget::Routes(name) => {
            RouteSpecifier::Rds(http::Rds { config_source: Some(ads()), route_config_name: name.to_string() })
        }
        HttpTarget::Cluster(name) => RouteSpecifier::RouteConfig(straight_to(&name.to_string())),
    };
    network_filter(HTTP_CONNECTION_MANAGER, manager("outbound", specifier))
}

pub(super) fn read_http_target(filters: &[Filter]) -> Read<HttpTarget> {
    let manager: http::HttpConnectionManager = read_only_filter(filters)?;
    let target = read_manager(&manager).at("typed_config").item(0)?;
    same(filters, &[http_target(&target)][..]).map(|()| target)
}

/// Carries HTTP straight to a cluster of the bootstrap, past `guards`. For those that look at paths, Envoy brings them into one form.
pub(super) fn http_to(stat_prefix: &str, cluster: &str, guards: &[(&str, Any)], one_form: bool) -> Filter {
    let mut manager = manager(stat_prefix, RouteSpecifier::RouteConfig(straight_to(cluster)));
    let guards = guards.iter().map(|(name, config)| http::HttpFilter {
        name: (*name).to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config.clone())),
        ..http::HttpFilter::default()
    });
    manager.http_filters.splice(0..0, guards);
    if one_form {
        manager.normalize_path = boolean(true);
        manager.merge_slashes = true;
        manager.path_with_escaped_slashes_action =
            http::http_connection_manager::PathWithEscapedSlashesAction::KeepUnchanged as i32;
    }
    network_filter(HTTP_CONNECTION_MANAGER, manager)
}

/// A network filter before the last.
pub(super) fn guard((name, config): &(&str, Any)) -> Filter {
    Filter { name: (*name).to_owned(), config_type: Some(ConfigType::TypedConfig(config.clone())) }
}

const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

fn manager(stat_prefix: &str, specifier: RouteSpecifier) -> http::HttpConnectionManager {
    let router = http::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
        ..http::HttpFilter::default()
    };
    http::HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        http_filters: vec![router],
        route_specifier: Some(specifier),
        ..http::HttpConnectionManager::default()
    }
}

/// All requests, whatever they ask for.
fn straight_to(cluster: &str) -> route::RouteConfiguration {
    let action = route::RouteAction {
        timeout: Some(duration(Duration::ZERO)),
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..route::RouteAction::default()
    };
    let everything = route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..route::RouteMatch::default()
    };
    let rule = route::Route {
        r#match: Some(everything),
        action: Some(route::route::Action::Route(action)),
        ..route::Route::default()
    };
    let host = route::VirtualHost {
        name: "*".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![rule],
        ..route::VirtualHost::default()
    };
    route::RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![host],
        validate_clusters: boolean(false),
        ..route::RouteConfiguration::default()
    }
}

/// Finds the target; that all else is as we write it is the caller's to see.
fn read_manager(manager: &http::HttpConnectionManager) -> Read<HttpTarget> {
    match &manager.route_specifier {
        Some(RouteSpecifier::Rds(http::Rds { config_source, route_config_name })) => {
            let name = read_ads(config_source.clone()).at("config_source");
            let name = name.and_then(|()| read_name(route_config_name).at("route_config_name"));
            name.map(HttpTarget::Routes).at("rds")
        }
        Some(RouteSpecifier::RouteConfig(routes)) => {
            let name = read_cluster_name(&routes.name).at("name");
            name.map(HttpTarget::Cluster).at("route_config")
        }
        _ => Err(Fault::new("neither `rds` nor `route_config`").at("route_specifier")),
    }
}

// TCP.

/// Carries bytes to clusters by weight. Envoy takes no share of 0, which would never be chosen anyway.
pub(super) fn tcp_shares(shares: &[WeightedCluster]) -> Option<Filter> {
    let shares = shares.iter().filter(|share| share.weight > 0);
    let clusters: Vec<_> = shares
        .map(|share| tcp_parts::weighted_cluster::ClusterWeight {
            name: share.cluster.to_string(),
            weight: share.weight,
            metadata_match: None,
        })
        .collect();
    let specifier = tcp_parts::ClusterSpecifier::WeightedClusters(tcp_parts::WeightedCluster { clusters });
    let tcp_parts::ClusterSpecifier::WeightedClusters(shares) = &specifier else { return None };
    (!shares.clusters.is_empty()).then(|| tcp_filter("outbound", specifier))
}

pub(super) fn read_tcp_shares(filters: &[Filter]) -> Read<Vec<WeightedCluster>> {
    let proxy: tcp::TcpProxy = read_only_filter(filters)?;
    read_tcp_proxy(proxy).at("typed_config").item(0)
}

/// Carries bytes straight to a cluster of the bootstrap.
pub(super) fn tcp_to(stat_prefix: &str, cluster: &str) -> Filter {
    tcp_filter(stat_prefix, tcp_parts::ClusterSpecifier::Cluster(cluster.to_owned()))
}

fn tcp_filter(stat_prefix: &str, specifier: tcp_parts::ClusterSpecifier) -> Filter {
    let proxy = tcp::TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(specifier),
        ..tcp::TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", proxy)
}

fn read_tcp_proxy(proxy: tcp::TcpProxy) -> Read<Vec<WeightedCluster>> {
    let tcp::TcpProxy {
        stat_prefix: _, // a label of statistics
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = proxy;
    refuse!(on_demand, metadata_match, idle_timeout, downstream_idle_timeout, upstream_idle_timeout);
    refuse!(access_log, max_connect_attempts, backoff_options, hash_policy, tunneling_config);
    refuse!(max_downstream_connection_duration, max_downstream_connection_duration_jitter_percentage);
    refuse!(access_log_flush_interval, flush_access_log_on_connected, access_log_options);
    refuse!(proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy, upstream_connect_mode);
    refuse!(max_early_data_bytes, check_drain_close);
    match required(cluster_specifier).at("cluster_specifier")? {
        tcp_parts::ClusterSpecifier::Cluster(name) => {
            let cluster = read_cluster_name(&name).at("cluster")?;
            Ok(vec![WeightedCluster { cluster, weight: 1 }])
        }
        tcp_parts::ClusterSpecifier::WeightedClusters(tcp_parts::WeightedCluster { clusters }) => {
            each(clusters, read_tcp_share).at("clusters").at("weighted_clusters")
        }
    }
}

fn read_tcp_share(share: tcp_parts::weighted_cluster::ClusterWeight) -> Read<WeightedCluster> {
    let tcp_parts::weighted_cluster::ClusterWeight { name, weight, metadata_match } = share;
    refuse!(metadata_match);
    if weight == 0 {
        return Err(Fault::new("must be at least 1").at("weight"));
    }
    Ok(WeightedCluster { cluster: read_cluster_name(&name).at("name")?, weight })
}
