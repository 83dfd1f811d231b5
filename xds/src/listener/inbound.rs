//! How a pod accepts: filter chains for each port, and for all others, each leading to the original destination.
//!
//! Three a port: mesh TLS that carries HTTP, mesh TLS that carries bytes (ALPN tells which), and, unless the port is
//! strict, whatever else comes. The chains have one form: what they say is found in them, written anew, and compared.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::{Address, CidrRange, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, ListenerFilter};
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use gauze_model::authorization::Policy;
use gauze_model::listener::{Inbound, InboundPort, Mtls, PortProtocol};
use gauze_model::{Name, SpiffeId};
use ipnet::IpNet;

use super::filters::{guard, http_to, listener_filter, tcp_to};
use super::{Parts, policies, rbac, read_direction, same_chain};
use crate::metadata::{Facts, list, string, string_of, strings_of};
use crate::path::{At as _, Fault, Read, each, refuse, required, same};
use crate::tls;
use crate::values::{address, protocol_word, read_port, read_protocol, uint};

/// Where the pod's connections are redirected to.
const INBOUND_PORT: u16 = 15006;

/// The cluster of type `ORIGINAL_DST` that an Envoy finds in its bootstrap.
const ORIGINAL_DESTINATION: &str = "gauze.original_destination";

pub(super) fn write(name: &Name, inbound: &Inbound) -> listener::Listener {
    let networks = list(inbound.mesh_networks.iter().map(ToString::to_string));
    let mut facts = Facts::origin(&inbound.origin).with("mesh_networks", networks);
    if !inbound.policies.is_empty() {
        facts = facts.with("policies", policies::write(&inbound.policies));
    }
    listener::Listener {
        name: name.to_string(),
        address: Some(accepts_at()),
        traffic_direction: TrafficDirection::Inbound as i32,
        listener_filters: listener_filters(),
        filter_chains: chains(inbound),
        metadata: Some(facts.into_metadata()),
        ..listener::Listener::default()
    }
}

/// Faults of authorization policies that are closed for them join `closed`.
pub(super) fn read(mut parts: Parts, closed: &mut Vec<Fault>) -> Read<Inbound> {
    let mut facts = Facts::read(parts.metadata.take()).at("metadata")?;
    let origin = facts.take_origin().at("metadata")?;
    let networks = facts.take("mesh_networks", |value| each(strings_of(value)?, read_network));
    let mesh_networks = networks.at("metadata")?.unwrap_or_default();
    let (policies, faults) =
        facts.take("policies", |value| Ok(policies::read(value))).at("metadata")?.unwrap_or_default();
    let is_one_closed = !faults.is_empty();
    closed.extend(faults);
    facts.end().at("metadata")?;
    let rest = || {
        let Parts {
            address,
            direction,
            bind_to_port,
            listener_filters: filters,
            listener_filters_timeout,
            continue_on_timeout,
            filter_chains,
            default_filter_chain,
            metadata: _, // read above
        } = parts;
        read_direction(direction, TrafficDirection::Inbound)?;
        refuse!(bind_to_port, listener_filters_timeout, default_filter_chain);
        same(&continue_on_timeout, &false).at("continue_on_listener_filters_timeout")?;
        same(&address, &Some(accepts_at())).at("address")?;
        same(&filters, &listener_filters()).at("listener_filters")?;
        read_chains(&filter_chains, &policies, is_one_closed).at("filter_chains")
    };
    let inbound = rest().by(&origin)?;
    Ok(Inbound { origin, mesh_networks, ..inbound })
}

fn read_network(text: String) -> Read<IpNet> {
    text.parse().map_err(|_| Fault::new(format!("`{text}` is not a network")))
}

/// Everywhere, for both families.
fn accepts_at() -> Address {
    let mut everywhere = address(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), INBOUND_PORT));
    if let Some(AddressKind::SocketAddress(socket)) = &mut everywhere.address {
        socket.ipv4_compat = true;
    }
    everywhere
}

fn listener_filters() -> Vec<ListenerFilter> {
    vec![
        listener_filter("envoy.filters.listener.original_dst", OriginalDst {}),
        listener_filter("envoy.filters.listener.tls_inspector", TlsInspector::default()),
    ]
}

// The chains.

fn chains(inbound: &Inbound) -> Vec<FilterChain> {
    let others = InboundPort { protocol: PortProtocol::Detect, mtls: inbound.mtls };
    let ports = inbound.ports.iter().map(|(number, port)| (Some(*number), *port));
    let carriers = Carriers::of(&inbound.policies, &inbound.identity.trust_domain);
    let of_port = |(number, port)| port_chains(inbound, &carriers, number, port);
    ports.chain([(None, others)]).flat_map(of_port).collect()
}

/// The filters that carry a connection to the app, after those that say whether it may.
struct Carriers {
    http: Vec<Filter>,
    tcp: Vec<Filter>,
}

impl Carriers {
    fn of(policies: &[Policy], trust_domain: &str) -> Carriers {
        let guards = rbac::filters(policies, trust_domain);
        let http = http_to("inbound", ORIGINAL_DESTINATION, &guards.http, rbac::is_about_paths(policies));
        let tcp = guards.network.iter().map(guard).chain([tcp_to("inbound", ORIGINAL_DESTINATION)]);
        Carriers { http: vec![http], tcp: tcp.collect() }
    }
}

fn port_chains(
    inbound: &Inbound,
    carriers: &Carriers,
    number: Option<u16>,
    port: InboundPort,
) -> Vec<FilterChain> {
    let chain = |carries: &str, alpn: &[&str], filters: &[Filter]| FilterChain {
        name: format!("{} {carries}", number.map_or("other ports".to_owned(), |number| number.to_string())),
        filter_chain_match: Some(chain_match(&inbound.addresses, number, alpn)),
        transport_socket: (!alpn.is_empty()).then(|| tls::downstream(&inbound.identity, alpn)),
        filters: filters.to_vec(),
        metadata: Some(
            Facts::default().with("protocol", string(protocol_word(port.protocol))).into_metadata(),
        ),
        ..FilterChain::default()
    };
    let Carriers { http, tcp } = carriers;
    let mut chains =
        vec![chain("mesh http", &[tls::HTTP2, tls::HTTP1], http), chain("mesh tcp", &[tls::TCP], tcp)];
    if port.mtls == Mtls::Permissive {
        chains.push(chain("plain", &[], if port.protocol.is_http() { http } else { tcp }));
    }
    chains
}

fn chain_match(addresses: &[IpAddr], port: Option<u16>, alpn: &[&str]) -> FilterChainMatch {
    let only = addresses.iter().map(|address| CidrRange {
        address_prefix: address.to_string(),
        prefix_len: uint(if address.is_ipv4() { 32 } else { 128 }),
    });
    FilterChainMatch {
        destination_port: port.and_then(|port| uint(port.into())),
        prefix_ranges: only.collect(),
        application_protocols: alpn.iter().map(ToString::to_string).collect(),
        ..FilterChainMatch::default()
    }
}

/// Finds what the chains say, and insists that they say no more.
/// Where a policy is closed that could not be read, the filters that say the same to Envoy are not compared.
fn read_chains(given: &[FilterChain], policies: &[Policy], is_one_closed: bool) -> Read<Inbound> {
    let first = given.first().ok_or_else(|| Fault::new("none"))?;
    let mut inbound = Inbound {
        origin: gauze_model::Origin::default(), // it and the networks are the caller's
        mesh_networks: Vec::new(),
        policies: policies.to_vec(),
        identity: read_identity(first).item(0)?,
        addresses: read_addresses(first).item(0)?,
        mtls: Mtls::Strict,
        ports: BTreeMap::new(),
    };
    for (index, chain) in given.iter().enumerate() {
        read_chain(chain, &mut inbound).item(index)?;
    }
    let mut wanted = chains(&inbound);
    if is_one_closed {
        wanted.iter_mut().zip(given).for_each(|(wanted, given)| wanted.filters.clone_from(&given.filters));
    }
    for (index, (given, wanted)) in given.iter().zip(&wanted).enumerate() {
        same_chain(given, wanted).item(index)?;
    }
    match given.len().cmp(&wanted.len()) {
        std::cmp::Ordering::Equal => Ok(inbound),
        std::cmp::Ordering::Less => Err(Fault::new("missing").item(given.len())),
        std::cmp::Ordering::Greater => Err(Fault::beyond("not supported").item(wanted.len())),
    }
}

fn read_identity(chain: &FilterChain) -> Read<SpiffeId> {
    let socket = required(chain.transport_socket.as_ref());
    socket.and_then(tls::read_downstream_identity).at("transport_socket")
}

fn read_addresses(chain: &FilterChain) -> Read<Vec<IpAddr>> {
    let ranges =
        chain.filter_chain_match.as_ref().map(|matches| &matches.prefix_ranges[..]).unwrap_or_default();
    if ranges.is_empty() {
        return Err(Fault::new("none").at("prefix_ranges").at("filter_chain_match"));
    }
    let addresses = each(ranges, |range| {
        range.address_prefix.parse().map_err(|_| Fault::new("not an IP address").at("address_prefix"))
    });
    addresses.at("prefix_ranges").at("filter_chain_match")
}

/// A chain without TLS says that its port is permissive.
fn read_chain(chain: &FilterChain, inbound: &mut Inbound) -> Read<()> {
    let mtls = if chain.transport_socket.is_none() { Mtls::Permissive } else { Mtls::Strict };
    let number = chain.filter_chain_match.as_ref().and_then(|matches| matches.destination_port);
    let Some(number) = number else {
        inbound.mtls = mtls;
        return Ok(());
    };
    let number = read_port(number.value).at("destination_port").at("filter_chain_match")?;
    let mut facts = Facts::read(chain.metadata.clone()).at("metadata")?;
    let protocol = facts.take("protocol", |value| string_of(value).and_then(|word| read_protocol(&word)));
    let protocol = protocol.at("metadata")?.unwrap_or_default();
    inbound.ports.insert(number, InboundPort { protocol, mtls });
    Ok(())
}
