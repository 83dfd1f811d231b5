//! Where a dialled address leads: a filter chain for HTTP, those for TLS by server name, and the default one for bytes
//! that are neither.
//!
//! A port that is declared as HTTP never reaches the default chain. On an undeclared one Envoy looks at the first
//! bytes as gauze does, and after 100 ms of silence takes the connection as opaque.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, ListenerFilter};
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use gauze_model::listener::{Outbound, PortProtocol};
use gauze_model::{Name, Origin};

use super::filters::{http_target, listener_filter, read_http_target, read_tcp_shares, tcp_shares};
use super::{Parts, read_direction, same_chain, server_names};
use crate::metadata::{Facts, string, string_of};
use crate::path::{At as _, Fault, Read, same};
use crate::values::{address, boolean, duration, protocol_word, read_address, read_protocol};

/// How long a silent client is waited for (as `gauze-proxy --detect-timeout`).
const DETECT: Duration = Duration::from_millis(100);

pub(super) fn write(name: &Name, outbound: &Outbound) -> listener::Listener {
    let Outbound { origin, protocol, http, tls, tcp } = outbound;
    let tls = if protocol.may_be_tls() { tls.as_slice() } else { &[] };
    let facts = Facts::origin(origin).with("protocol", string(protocol_word(*protocol)));
    let http = FilterChain { filters: vec![http_target(http)], ..http_chain(*protocol, !tls.is_empty()) };
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
        listener_filters: listener_filters(*protocol, !tls.is_empty()),
        listener_filters_timeout: Some(duration(DETECT)),
        continue_on_listener_filters_timeout: true,
        filter_chains: std::iter::once(http).chain(server_names::write(tls)).collect(),
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
    same(&listener_filters_timeout, &Some(duration(DETECT))).at("listener_filters_timeout")?;
    same(&continue_on_timeout, &true).at("continue_on_listener_filters_timeout")?;
    let Some((http, tls)) = filter_chains.split_first() else {
        return Err(Fault::new("no filter chain").at("filter_chains"));
    };
    let looks_at_tls = !tls.is_empty();
    if looks_at_tls && !protocol.may_be_tls() {
        return Err(Fault::new("not exactly one filter chain").at("filter_chains"));
    }
    same(&filters, &listener_filters(protocol, looks_at_tls)).at("listener_filters")?;
    let target = read_http_target(&http.filters).at("filters").item(0).at("filter_chains")?;
    let wanted = FilterChain { filters: http.filters.clone(), ..http_chain(protocol, looks_at_tls) };
    same_chain(http, &wanted).item(0).at("filter_chains")?;
    let tls = server_names::read(tls, 1).at("filter_chains")?;
    let tcp = match &default_filter_chain {
        None => Vec::new(),
        Some(tcp) => read_tcp_chain(tcp).at("default_filter_chain")?,
    };
    Ok(Outbound { origin: origin.clone(), protocol, http: target, tls, tcp })
}

fn read_tcp_chain(tcp: &FilterChain) -> Read<Vec<gauze_model::listener::WeightedCluster>> {
    let shares = read_tcp_shares(&tcp.filters).at("filters")?;
    same_chain(tcp, &FilterChain { filters: tcp.filters.clone(), ..tcp_chain() })?;
    Ok(shares)
}

/// Everything on a port that is declared as HTTP, nothing on an opaque one (nobody looks there), and what looks
/// like HTTP on all others: by the first bytes, not by what a TLS client offers to speak inside.
fn http_chain(protocol: PortProtocol, looks_at_tls: bool) -> FilterChain {
    let looks_like_http = FilterChainMatch {
        application_protocols: ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec(),
        transport_protocol: if looks_at_tls { "raw_buffer".to_owned() } else { String::new() },
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

fn listener_filters(protocol: PortProtocol, looks_at_tls: bool) -> Vec<ListenerFilter> {
    let tls = looks_at_tls
        .then(|| listener_filter("envoy.filters.listener.tls_inspector", TlsInspector::default()));
    let http = (protocol == PortProtocol::Detect)
        .then(|| listener_filter("envoy.filters.listener.http_inspector", HttpInspector {}));
    tls.into_iter().chain(http).collect()
}
