//! Endpoints: Envoy's `ClusterLoadAssignment`.
//!
//! Endpoints that follow each other and are dialled alike stand in one group, whose metadata says how: an identity
//! where mesh TLS is spoken, `envoy.transport_socket_match: {plain: true}` where it is not. So what is not marked as
//! plain is never dialled in plaintext, by Envoy either (see the cluster's `transport_socket`), and an identity
//! crosses the wire once, not five thousand times. Envoy knows no weight of 0: such an endpoint is `DEGRADED`, chosen
//! only while no other can be.

use std::collections::HashMap;
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use gauze_model::cluster::{Transport, Workload};
use gauze_model::{Endpoint, EndpointSet, Name, SpiffeId};

use crate::metadata::{Facts, exactly, list, string, string_of, strings_of};
use crate::path::{At as _, Fault, Read, each, refuse};
use crate::values::{address, read_address, uint};

/// Where Envoy looks for what its `transport_socket_matches` compare.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

pub(crate) fn write(name: &Name, set: &EndpointSet) -> endpoint::ClusterLoadAssignment {
    let alike = set.endpoints.chunk_by(|one, next| one.transport == next.transport);
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints: alike.filter_map(write_group).collect(),
        ..endpoint::ClusterLoadAssignment::default()
    }
}

pub(crate) fn read(assignment: endpoint::ClusterLoadAssignment) -> Read<EndpointSet> {
    let endpoint::ClusterLoadAssignment {
        cluster_name: _, // compared with the resource's by the caller
        endpoints,
        named_endpoints,
        policy,
    } = assignment;
    refuse!(named_endpoints, policy);
    let groups = each(endpoints, read_group).at("endpoints")?;
    Ok(EndpointSet { endpoints: groups.into_iter().flatten().collect() })
}

fn write_group(group: &[Endpoint]) -> Option<endpoint::LocalityLbEndpoints> {
    let metadata = match &group.first()?.transport {
        Transport::Mesh(identity) => {
            Facts::default().with("identity", string(identity.to_string())).into_metadata()
        }
        Transport::Plain => plain(),
    };
    Some(endpoint::LocalityLbEndpoints {
        metadata: Some(metadata),
        lb_endpoints: group.iter().map(write_endpoint).collect(),
        ..endpoint::LocalityLbEndpoints::default()
    })
}

fn read_group(group: endpoint::LocalityLbEndpoints) -> Read<Vec<Endpoint>> {
    let endpoint::LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = group;
    refuse!(locality, load_balancing_weight, priority, proximity, lb_config);
    let transport = read_transport(metadata).at("metadata")?;
    each(lb_endpoints, |endpoint| read_endpoint(endpoint, &transport)).at("lb_endpoints")
}

/// What says neither an identity nor `plain` is refused: how to dial it is not for us to guess.
fn read_transport(metadata: Option<Metadata>) -> Read<Transport> {
    if metadata.as_ref() == Some(&plain()) {
        return Ok(Transport::Plain);
    }
    let mut facts = Facts::read(metadata)?;
    let identity = facts.take("identity", |value| {
        let identity: Result<SpiffeId, _> = string_of(value)?.parse();
        identity.map_err(|problem| Fault::new(problem.to_string()))
    });
    let identity = identity?.ok_or_else(|| Fault::new("neither an identity nor `plain`"))?;
    facts.end().map(|()| Transport::Mesh(identity))
}

fn plain() -> Metadata {
    let filter_metadata = HashMap::from([(TRANSPORT_SOCKET_MATCH.to_owned(), plain_match())]);
    Metadata { filter_metadata, typed_filter_metadata: HashMap::new() }
}

/// What a cluster's `transport_socket_matches` compare for plaintext.
pub(crate) fn plain_match() -> Struct {
    let plain = Value { kind: Some(ValueKind::BoolValue(true)) };
    Struct { fields: HashMap::from([("plain".to_owned(), plain)]) }
}

fn write_endpoint(of: &Endpoint) -> endpoint::LbEndpoint {
    let host = endpoint::Endpoint { address: Some(address(of.address)), ..endpoint::Endpoint::default() };
    let (health, weight) = match of.weight {
        0 => (HealthStatus::Degraded, None),
        weight => (HealthStatus::Unknown, uint(weight)),
    };
    endpoint::LbEndpoint {
        health_status: health as i32,
        metadata: write_workload(&of.workload),
        load_balancing_weight: weight,
        host_identifier: Some(HostIdentifier::Endpoint(host)),
    }
}

fn read_endpoint(of: endpoint::LbEndpoint, transport: &Transport) -> Read<Endpoint> {
    let endpoint::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = of;
    let given = load_balancing_weight.map(|weight| weight.value);
    let weight = match (HealthStatus::try_from(health_status), given) {
        (Ok(HealthStatus::Unknown | HealthStatus::Healthy), Some(0)) => {
            return Err(Fault::new("must be at least 1").at("load_balancing_weight"));
        }
        (Ok(HealthStatus::Unknown | HealthStatus::Healthy), given) => given.unwrap_or(1),
        (Ok(HealthStatus::Degraded), None) => 0,
        _ => return Err(Fault::unsupported("health_status")),
    };
    let address = match host_identifier {
        Some(HostIdentifier::Endpoint(host)) => read_host(host).at("endpoint")?,
        _ => return Err(Fault::new("missing").at("endpoint")),
    };
    let workload = read_workload(metadata).at("metadata")?;
    Ok(Endpoint { address, weight, transport: transport.clone(), workload })
}

fn read_host(host: endpoint::Endpoint) -> Read<SocketAddr> {
    let endpoint::Endpoint {
        address,
        health_check_config,
        hostname,
        additional_addresses,
        observability_name: _, // a label
    } = host;
    refuse!(health_check_config, hostname, additional_addresses);
    read_address(address).at("address")
}

/// Not written where nothing is known.
fn write_workload(workload: &Workload) -> Option<Metadata> {
    let Workload { namespace, pod, uid, app, version } = workload.clone();
    let known = *workload != Workload::default();
    known
        .then(|| Facts::default().with("workload", list([namespace, pod, uid, app, version])).into_metadata())
}

fn read_workload(metadata: Option<Metadata>) -> Read<Workload> {
    let mut facts = Facts::read(metadata)?;
    let workload = facts.take("workload", |value| {
        let [namespace, pod, uid, app, version] = strings_of(value).and_then(exactly)?;
        Ok(Workload { namespace, pod, uid, app, version })
    });
    let workload = workload?.unwrap_or_default();
    facts.end().map(|()| workload)
}
