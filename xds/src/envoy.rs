//! Envoy itself, asked with `--mode validate` whether it accepts what is written.
//!
//! It is found by `GAUZE_TEST_ENVOY`, in `PATH` (where `tests/run` puts it), or not at all: then these tests say that
//! they are skipped, except in CI, where they fail. The control plane's tests include this file.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, ApiConfigSource, ApiVersion, GrpcService, Http2ProtocolOptions, Node, SocketAddress,
};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as http;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use prost::Message;

/// The Envoy to ask.
///
/// # Panics
/// There is none, in CI.
pub(crate) fn find() -> Option<PathBuf> {
    let named = env::var_os("GAUZE_TEST_ENVOY").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        named.or_else(|| env::split_paths(&path).map(|dir| dir.join("envoy")).find(|file| file.is_file()));
    if found.is_none() {
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "no `envoy` in PATH or GAUZE_TEST_ENVOY");
        eprintln!("skipped: no `envoy` in PATH or GAUZE_TEST_ENVOY");
    }
    found
}

/// Whether Envoy accepts these resources, all at once.
///
/// # Errors
/// What Envoy says against them.
pub(crate) fn validate(envoy: &Path, directory: &Path, resources: &[Resource]) -> Result<(), String> {
    let file = directory.join("bootstrap.pb");
    std::fs::write(&file, bootstrap(resources).encode_to_vec()).map_err(|problem| problem.to_string())?;
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "warning", "--base-id-path"])
        .arg(directory.join("base-id"))
        .arg("--config-path")
        .arg(&file)
        .output()
        .map_err(|problem| format!("{}: {problem}", envoy.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The resources as static ones: routes in a connection manager of their own, endpoints in a static cluster, and
/// each under a name and at a port of its own, so that resources of several worlds can be asked about at once.
pub(crate) fn bootstrap(resources: &[Resource]) -> Bootstrap {
    let mut fixed = StaticResources::default();
    fixed.clusters.push(http2(Cluster { name: "ads".to_owned(), ..Cluster::default() }));
    fixed.clusters.push(Cluster {
        name: "gauze.original_destination".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..Cluster::default()
    });
    for (index, resource) in resources.iter().enumerate() {
        add(&mut fixed, index, resource.resource.as_ref().unwrap());
    }
    let ads = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: "ads".to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    let ads = ApiConfigSource {
        api_type: ApiType::DeltaGrpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![ads],
        ..ApiConfigSource::default()
    };
    Bootstrap {
        node: Some(Node { id: "web-0".to_owned(), cluster: "shop".to_owned(), ..Node::default() }),
        static_resources: Some(fixed),
        dynamic_resources: Some(DynamicResources { ads_config: Some(ads), ..DynamicResources::default() }),
        ..Bootstrap::default()
    }
}

fn add(fixed: &mut StaticResources, index: usize, message: &Any) {
    let of = |name: &str| message.type_url.ends_with(name);
    let bytes = message.value.as_slice();
    if of(".Listener") {
        let listener = Listener::decode(bytes).unwrap();
        fixed.listeners.push(at_its_own_port(listener, index));
    } else if of(".RouteConfiguration") {
        fixed.listeners.push(carrying(RouteConfiguration::decode(bytes).unwrap(), index));
    } else if of(".Cluster") {
        let cluster = Cluster::decode(bytes).unwrap();
        fixed.clusters.push(Cluster { name: format!("{index} {}", cluster.name), ..cluster });
    } else {
        let endpoints = ClusterLoadAssignment::decode(bytes).unwrap();
        fixed.clusters.push(Cluster {
            name: format!("{index} endpoints of {}", endpoints.cluster_name),
            load_assignment: Some(endpoints),
            ..Cluster::default()
        });
    }
}

/// Envoy takes no two listeners at one address.
fn at_its_own_port(mut listener: Listener, index: usize) -> Listener {
    listener.name = format!("{index} {}", listener.name);
    let port = u32::try_from(index).unwrap() + 1;
    if let Some(AddressKind::SocketAddress(socket)) = listener.address.as_mut().unwrap().address.as_mut() {
        socket.port_specifier = Some(PortSpecifier::PortValue(port));
    }
    listener
}

fn carrying(routes: RouteConfiguration, index: usize) -> Listener {
    let router = http::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http::http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
        ..http::HttpFilter::default()
    };
    let name = routes.name.clone();
    let manager = http::HttpConnectionManager {
        stat_prefix: "routes".to_owned(),
        http_filters: vec![router],
        route_specifier: Some(http::http_connection_manager::RouteSpecifier::RouteConfig(routes)),
        ..http::HttpConnectionManager::default()
    };
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(manager))),
    };
    let address = SocketAddress { address: "127.0.0.1".to_owned(), ..SocketAddress::default() };
    let listener = Listener {
        name,
        address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        ..Listener::default()
    };
    at_its_own_port(listener, index)
}

fn http2(cluster: Cluster) -> Cluster {
    let explicit = ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    Cluster { typed_extension_protocol_options: HashMap::from([(name, pack_any(options))]), ..cluster }
}
