//! The small values that all kinds share, both ways: durations, numbers, addresses, patterns, packed messages.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use envoy_types::pb::google::protobuf;
use gauze_model::Name;
use gauze_model::listener::PortProtocol;
use gauze_model::route::Pattern;
use prost::Message;

use crate::path::{At as _, Fault, Read, refuse, required};

pub(crate) fn uint(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(crate) fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

/// Ten thousand years: no `google.protobuf.Duration` is longer.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// Exact, up to protobuf's longest.
pub(crate) fn duration(duration: Duration) -> protobuf::Duration {
    let nanos = duration.subsec_nanos().cast_signed();
    protobuf::Duration { seconds: duration.as_secs().min(DURATION_SECONDS_MAX).cast_signed(), nanos }
}

pub(crate) fn read_duration(duration: protobuf::Duration) -> Read<Duration> {
    let protobuf::Duration { seconds, nanos } = duration;
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds @ 0..=DURATION_SECONDS_MAX), Ok(nanos @ 0..1_000_000_000)) => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Fault::new("not a duration")),
    }
}

/// From the stream that this came by.
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..core::ConfigSource::default()
    }
}

pub(crate) fn read_ads(source: Option<core::ConfigSource>) -> Read<()> {
    let core::ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = required(source)?;
    refuse!(authorities, initial_fetch_timeout);
    if ![core::ApiVersion::Auto as i32, core::ApiVersion::V3 as i32].contains(&resource_api_version) {
        return Err(Fault::unsupported("resource_api_version"));
    }
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => Ok(()),
        _ => Err(Fault::new("is not `ads`")),
    }
}

pub(crate) fn address(address: SocketAddr) -> core::Address {
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(AddressKind::SocketAddress(socket)) }
}

pub(crate) fn read_address(address: Option<core::Address>) -> Read<SocketAddr> {
    let core::Address { address } = required(address)?;
    match address {
        Some(AddressKind::SocketAddress(socket)) => read_socket_address(socket).at("socket_address"),
        _ => Err(Fault::new("is not a `socket_address`")),
    }
}

fn read_socket_address(socket: core::SocketAddress) -> Read<SocketAddr> {
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = socket;
    refuse!(protocol, resolver_name, ipv4_compat, network_namespace_filepath);
    let ip: IpAddr = address.parse().map_err(|_| Fault::new("not an IP address").at("address"))?;
    match port_specifier {
        Some(PortSpecifier::PortValue(port)) => Ok(SocketAddr::new(ip, read_port(port).at("port_value")?)),
        _ => Err(Fault::new("missing").at("port_value")),
    }
}

pub(crate) fn read_port(port: u32) -> Read<u16> {
    u16::try_from(port).map_err(|_| Fault::new("not a port"))
}

/// The name of a resource of one's own.
pub(crate) fn read_name(text: &str) -> Read<Name> {
    text.parse().map_err(|problem: gauze_model::name::NotAName| Fault::new(problem.to_string()))
}

/// The name of a backend.
pub(crate) fn read_cluster_name(text: &str) -> Read<Name> {
    match read_name(text)? {
        name @ (Name::Cluster(_) | Name::Pod(_)) => Ok(name),
        other => Err(Fault::new(format!("`{other}` is not the name of a cluster"))),
    }
}

pub(crate) fn pattern(pattern: &Pattern) -> RegexMatcher {
    RegexMatcher { regex: pattern.text().to_owned(), engine_type: None }
}

pub(crate) fn read_pattern(matcher: RegexMatcher) -> Read<Pattern> {
    let RegexMatcher { regex, engine_type: _ } = matcher; // RE2, the only engine, said or not
    Pattern::new(&regex).map_err(|problem| Fault::new(problem.to_string()).at("regex"))
}

pub(crate) fn protocol_word(protocol: PortProtocol) -> String {
    let word = match protocol {
        PortProtocol::Detect => "detect",
        PortProtocol::Http => "http",
        PortProtocol::Http2 => "http2",
        PortProtocol::Grpc => "grpc",
        PortProtocol::Tls => "tls",
        PortProtocol::Opaque => "opaque",
    };
    word.to_owned()
}

pub(crate) fn read_protocol(word: &str) -> Read<PortProtocol> {
    match word {
        "detect" => Ok(PortProtocol::Detect),
        "http" => Ok(PortProtocol::Http),
        "http2" => Ok(PortProtocol::Http2),
        "grpc" => Ok(PortProtocol::Grpc),
        "tls" => Ok(PortProtocol::Tls),
        "opaque" => Ok(PortProtocol::Opaque),
        _ => Err(Fault::new(format!("`{word}` is not a protocol"))),
    }
}

/// Opens a packed message of the one type that can stand here.
pub(crate) fn unpack<M: Message + prost::Name + Default>(any: &protobuf::Any) -> Read<M> {
    if any.type_url != M::type_url() {
        return Err(Fault::beyond(format!("`{}` is not supported", any.type_url)));
    }
    M::decode(any.value.as_slice()).map_err(|problem| Fault::new(problem.to_string()))
}
