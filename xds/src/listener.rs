//! Listeners: Envoy's `Listener`. An inbound one is where a pod accepts, an outbound one where a dialled address
//! leads; gauze opens no socket for either by what stands here.

mod filters; // network and listener filters
mod inbound; // how a pod accepts
mod outbound; // where a dialled address leads
mod policies; // who may call
mod rbac; // the same for Envoy
mod server_names; // where TLS connections of a dialled address lead

use envoy_types::pb::envoy::config::core::v3::{Address, Metadata, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::google::protobuf::{BoolValue, Duration};
use gauze_model::{Listener, Name};

use crate::path::{At as _, Fault, Read, refuse, same};

pub(crate) fn write(name: &Name, of: &Listener) -> listener::Listener {
    match of {
        Listener::Inbound(inbound) => inbound::write(name, inbound),
        Listener::Outbound(outbound) => outbound::write(name, outbound),
    }
}

/// Faults of authorization policies that are closed for them join `closed`.
pub(crate) fn read(name: &Name, of: listener::Listener, closed: &mut Vec<Fault>) -> Read<Listener> {
    let parts = read_parts(of)?;
    match name {
        Name::Inbound { .. } => inbound::read(parts, closed).map(Listener::Inbound),
        Name::Outbound { address, .. } => outbound::read(*address, parts).map(Listener::Outbound),
        Name::Routes { .. } | Name::Cluster(_) | Name::Pod(_) => {
            Err(Fault::new("not the name of a listener"))
        }
    }
}

/// The fields that both directions use.
struct Parts {
    address: Option<Address>,
    direction: i32,
    bind_to_port: Option<BoolValue>,
    listener_filters: Vec<listener::ListenerFilter>,
    listener_filters_timeout: Option<Duration>,
    continue_on_timeout: bool,
    filter_chains: Vec<listener::FilterChain>,
    default_filter_chain: Option<listener::FilterChain>,
    metadata: Option<Metadata>,
}

fn read_parts(of: listener::Listener) -> Read<Parts> {
    let listener::Listener {
        name: _, // compared with the resource's by the caller
        address,
        additional_addresses,
        stat_prefix: _, // a label of statistics
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout: continue_on_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction: direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = of;
    refuse!(additional_addresses, stats_matcher, fcds_config, filter_chain_matcher, use_original_dst);
    refuse!(per_connection_buffer_limit_bytes, per_connection_buffer_high_watermark_timeout);
    refuse!(deprecated_v1, drain_type, transparent, freebind, socket_options);
    refuse!(tcp_fast_open_queue_length, udp_listener_config, api_listener, connection_balance_config);
    refuse!(reuse_port, enable_reuse_port, access_log, tcp_backlog_size);
    refuse!(max_connections_to_accept_per_socket_event, enable_mptcp, ignore_global_conn_limit);
    refuse!(bypass_overload_manager, tcp_keepalive, listener_specifier);
    Ok(Parts {
        address,
        direction,
        bind_to_port,
        listener_filters,
        listener_filters_timeout,
        continue_on_timeout,
        filter_chains,
        default_filter_chain,
        metadata,
    })
}

fn read_direction(given: i32, wanted: TrafficDirection) -> Read<()> {
    if given == wanted as i32 { Ok(()) } else { Err(Fault::unsupported("traffic_direction")) }
}

/// Compares a filter chain, field by field, with the one that this version would write.
fn same_chain(given: &listener::FilterChain, wanted: &listener::FilterChain) -> Read<()> {
    let listener::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name: _, // a label
    } = given;
    same(filter_chain_match, &wanted.filter_chain_match).at("filter_chain_match")?;
    same(filters, &wanted.filters).at("filters")?;
    same(use_proxy_proto, &wanted.use_proxy_proto).at("use_proxy_proto")?;
    same(metadata, &wanted.metadata).at("metadata")?;
    same(transport_socket, &wanted.transport_socket).at("transport_socket")?;
    same(transport_socket_connect_timeout, &wanted.transport_socket_connect_timeout)
        .at("transport_socket_connect_timeout")
}
