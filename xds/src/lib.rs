//! The wire: the model to and from Envoy's xDS v3 messages, and incremental ADS without IO.
//!
//! `to_xds` writes what Envoy itself accepts and understands alike; `from_xds` reads the same subset and
//! refuses the rest by name and field path: every message is destructured without `..`, so nothing is
//! dropped in silence. Sockets, tonic and clocks are the callers'.

#![allow(deprecated)] // messages are read whole: what Envoy calls deprecated is refused like all else

pub mod certificate; // Istio's CreateCertificate: how a proxy gets its certificate
mod cluster; // a backend, and how it is dialled
pub mod delta; // both halves of incremental ADS, as state machines
mod encoded; // a resource as it crosses the wire, encoded once for all who ask
mod endpoint; // the endpoints of a backend
mod listener; // where a connection goes
mod metadata; // what gauze says in Envoy's metadata
mod outlier; // which endpoints get no traffic for a while
mod path; // errors that gather their field path on the way up
mod rejection;
mod route; // which rule carries a request
mod tls; // mesh TLS
mod values; // durations, numbers, addresses // a refused resource, and how a NACK carries it

#[cfg(test)]
mod arbitrary; // arbitrary values of the model
#[cfg(test)]
mod envoy; // asks Envoy itself
#[cfg(test)]
mod envoy_routes; // Envoy routes as the model does
#[cfg(test)]
mod round_trip; // what is written reads back
#[cfg(test)]
mod silence; // nothing is dropped in silence

pub use delta::{DeltaClient, DeltaServer};
pub use encoded::EncodedResource;
/// Who a client says that it is, on the first request of a stream.
pub use envoy_types::pb::envoy::config::core::v3::Node;
/// Envoy's discovery messages, so that others need no dependency of their own.
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use rejection::Rejection;

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use gauze_model::snapshot::Resource;
use gauze_model::{Code, Kind, Name};

use metadata::{Facts, list, strings_of};
use path::{At as _, Fault, Read, at_default, required};
use values::{read_name, unpack};

/// All kinds, in the order in which a server sends what is new: what is referred to comes first.
pub const KINDS: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes];

/// The type of a kind's resources on the wire.
pub fn type_url(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
        Kind::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        Kind::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        Kind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    }
}

/// The kind of a type on the wire, if it is one of ours.
pub fn kind_of(type_url: &str) -> Option<Kind> {
    KINDS.into_iter().find(|kind| self::type_url(*kind) == type_url)
}

/// The features that a resource may require of its reader (`gauze.requires`).
const FEATURES: &[&str] = &[SERVER_NAMES];

/// TLS connections of an outbound listener go by their server names.
const SERVER_NAMES: &str = "server_names";

/// Writes a resource. The version is left empty ([`EncodedResource`] fills it in).
pub fn to_xds(name: &Name, resource: &Resource) -> discovery::Resource {
    let message = match resource {
        Resource::Listener(listener) => pack_any(listener::write(name, listener)),
        Resource::Routes(table) => pack_any(route::write(name, table)),
        Resource::Cluster(cluster) => pack_any(cluster::write(name, cluster)),
        Resource::Endpoints(set) => pack_any(endpoint::write(name, set)),
    };
    discovery::Resource {
        name: name.to_string(),
        resource: Some(message),
        metadata: requirements(resource),
        ..discovery::Resource::default()
    }
}

/// Reads a resource.
///
/// # Errors
/// It asks for something that gauze does not do, or is not what its type says. An authorization policy that does refuses
/// only itself.
pub fn from_xds(kind: Kind, resource: &discovery::Resource) -> Result<Accepted, Rejection> {
    let into_rejection = |fault: Fault| fault.into_rejection(kind, &resource.name);
    let mut closed = Vec::new();
    let (name, read) = read(kind, resource, &mut closed).map_err(into_rejection)?;
    Ok(Accepted { name, resource: read, closed: closed.into_iter().map(into_rejection).collect() })
}

/// A resource as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub resource: Resource,
    /// The authorization policies in it that could not be read: it holds their closed form.
    pub closed: Vec<Rejection>,
}

fn read(kind: Kind, resource: &discovery::Resource, closed: &mut Vec<Fault>) -> Read<(Name, Resource)> {
    let discovery::Resource {
        name,
        resource_name,
        aliases,
        version: _, // says nothing about the resource
        resource: message,
        ttl,
        cache_control,
        metadata,
    } = resource;
    let name = read_name(name)?;
    if !name.is_of(kind) {
        return Err(Fault::new("is the name of another kind of resource"));
    }
    at_default(resource_name).at("resource_name")?;
    at_default(aliases).at("aliases")?;
    at_default(ttl).at("ttl")?;
    at_default(cache_control).at("cache_control")?;
    read_requirements(metadata.clone())?;
    let message = required(message.as_ref()).at("resource")?;
    read_message(kind, &name, message, closed).map(|read| (name, read))
}

/// What a reader must understand that an older version does not.
fn requirements(resource: &Resource) -> Option<Metadata> {
    let Resource::Listener(listener) = resource else { return None };
    let by_server_name =
        matches!(&**listener, gauze_model::Listener::Outbound(outbound) if !outbound.tls.is_empty());
    by_server_name.then(|| Facts::default().with("requires", list([SERVER_NAMES.to_owned()])).into_metadata())
}

/// What must be understood to obey a resource is refused by name where it is not.
fn read_requirements(metadata: Option<Metadata>) -> Read<()> {
    let mut facts = Facts::read(metadata).at("metadata")?;
    let required = facts.take("requires", strings_of).at("metadata")?.unwrap_or_default();
    if let Some(unknown) = required.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        return Err(unknown_feature(unknown));
    }
    facts.end().at("metadata")
}

fn unknown_feature(feature: &str) -> Fault {
    let problem = format!("requires the feature `{feature}`, which this version does not have");
    Fault::coded(Code::FEATURE_REQUIRED, problem)
}

fn read_message(kind: Kind, name: &Name, message: &Any, closed: &mut Vec<Fault>) -> Read<Resource> {
    match kind {
        Kind::Listener => {
            let message: Listener = unpack(message)?;
            same_name(name, &message.name).at("name")?;
            listener::read(name, message, closed).map(|it| Resource::Listener(Arc::new(it)))
        }
        Kind::Routes => {
            let message: RouteConfiguration = unpack(message)?;
            same_name(name, &message.name).at("name")?;
            route::read(message).map(|it| Resource::Routes(Arc::new(it)))
        }
        Kind::Cluster => {
            let message: Cluster = unpack(message)?;
            same_name(name, &message.name).at("name")?;
            cluster::read(message).map(|it| Resource::Cluster(Arc::new(it)))
        }
        Kind::Endpoints => {
            let message: ClusterLoadAssignment = unpack(message)?;
            same_name(name, &message.cluster_name).at("cluster_name")?;
            endpoint::read(message).map(|it| Resource::Endpoints(Arc::new(it)))
        }
    }
}

fn same_name(resource: &Name, message: &str) -> Read<()> {
    if resource.to_string() == message { Ok(()) } else { Err(Fault::new("is not the resource's name")) }
}
