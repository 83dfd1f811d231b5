//! Where a dialled address leads: a filter chain for HTTP, and the default one for bytes that are not.
//!
//! A port that is declared as HTTP never reaches the default chain. On an undeclared one Envoy looks at the first
//! bytes as gauze does, and after 100 ms of silence takes the connection as opaque.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, ListenerFilter};
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use gauze_model::listener::{Outbound, PortProtocol};
use gauze_model::{Name, Origin};

use super::filters::{http_target, listener_filter, read_http_target, read_tcp_shares, tcp_shares};
use super::{Parts, read_direction, same_chain};
use crate::metadata::{Facts, string, string_of};
use crate::path::{At as _, Fault, Read, same};
use crate::values::{address, boolean, duration, protocol_word, read_address, read_protocol};

/// How long a silent client is waited for (as `gauze-proxy --detect-timeout`).
const DETECT: Duration = Duration::from_millis(100);

pub(super) fn write(name: &Name, outbound: &Outbound) -> listener::Listener {
    let Outbound { origin, protocol, http, tcp } = outbound;
    let facts = Facts::origin(origin).with("protocol", string(protocol_word(*protocol)));
    let http = FilterChain { filters: vec![http_target(http)], ..http_chain(*protocol) };
    let tcp = tcp_shares(tcp).map(|filter| FilterChain { filters: vec![filter], ..tcp_chain() });
    let dialled = match name {
        Name::Outbound { address: dialled, .. } => Some(address(*dialled)),
        Name::Inbound { .. } | Name::Routes { .. } | Name::Cluster(_) | Name::Pod(_) => None,
    };
    listener::Listener {
        name: name.to_string(),
        address: dialled,
        traffic_direction: TrafficDirection::Outbound as i32,
        bind_to_port: boolean(false),
        listener_filters: listener_filters(*protocol),
        listener_filters_timeout: Some(duration(DETECT)),
        continue_on_listener_filters_timeout: true,
        filter_chains: vec![http],
        default_filter_chain: tcp,
        metadata: Some(facts.into_metadata()),
        ..listener::Listener::default()
    }
}

pub(super) fn read(dialled: SocketAddr, mut parts: Parts) -> Read<Outbound> {
    let mut facts = Facts::read(parts.metadata.take()).at("metadata")?;
    let origin = facts.take_origin().at("metadata")?;
    let protocol = facts.take("protocol", |value| string_of(value).and_then(|word| read_protocol(&word)));
    let protocol = protocol.at("metadata")?.unwrap_or_default();
    facts.end().at("metadata")?;
    read_rest(dialled, parts, protocol, &origin).by(&origin)
}

fn read_rest(dialled: SocketAddr, parts: Parts, protocol: PortProtocol, origin: &Origin) -> Read<Outbound> {
    let Parts {
        address,
        direction,
        bind_to_port,
        listener_filters: filters,
        listener_filters_timeout,
        continue_on_timeout,
        filter_chains,
        default_filter_chain,
        metadata: _, // read by the caller
    } = parts;
    read_direction(direction, TrafficDirection::Outbound)?;
    same(&bind_to_port, &boolean(false)).at("bind_to_port")?;
    if read_address(address).at("address")? != dialled {
        return Err(Fault::new("not the address that the name says").at("address"));
    }
    same(&filters, &listener_filters(protocol)).at("listener_filters")?;
    same(&listener_filters_timeout, &Some(duration(DETECT))).at("listener_filters_timeout")?;
    same(&continue_on_timeout, &true).at("continue_on_listener_filters_timeout")?;
    let [http] = &filter_chains[..] else {
        return Err(Fault::new("not exactly one filter chain").at("filter_chains"));
    };
    let target = read_http_target(&http.filters).at("filters").item(0).at("filter_chains")?;
    let wanted = FilterChain { filters: http.filters.clone(), ..http_chain(protocol) };
    same_chain(http, &wanted).item(0).at("filter_chains")?;
    let tcp = match &default_filter_chain {
        None => Vec::new(),
        Some(tcp) => read_tcp_chain(tcp).at("default_filter_chain")?,
    };
    Ok(Outbound { origin: origin.clone(), protocol, http: target, tcp })
}

fn read_tcp_chain(tcp: &FilterChain) -> Read<Vec<gauze_model::listener::WeightedCluster>> {
    let shares = read_tcp_shares(&tcp.filters).at("filters")?;
    same_chain(tcp, &FilterChain { filters: tcp.filters.clone(), ..tcp_chain() })?;
    Ok(shares)
}

/// Everything on a port that is declared as HTTP, nothing on an opaque one (nobody looks there), and what looks
/// like HTTP on all others.
fn http_chain(protocol: PortProtocol) -> FilterChain {
    let looks_like_http = FilterChainMatch {
        application_protocols: ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    FilterChain {
        name: "http".to_owned(),
        filter_chain_match: (!protocol.is_http()).then_some(looks_like_http),
        ..FilterChain::default()
    }
}

fn tcp_chain() -> FilterChain {
    FilterChain { name: "tcp".to_owned(), ..FilterChain::default() }
}

fn listener_filters(protocol: PortProtocol) -> Vec<ListenerFilter> {
    if protocol != PortProtocol::Detect {
        return Vec::new();
    }
    vec![listener_filter("envoy.filters.listener.http_inspector", HttpInspector {})]
}
