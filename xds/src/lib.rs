//! The wire: the model to and from Envoy's xDS v3 messages, and incremental ADS without IO.
//!
//! `to_xds` writes what Envoy itself accepts and understands alike; `from_xds` reads the same subset and
//! refuses the rest by name and field path: every message is destructured without `..`, so nothing is
//! dropped in silence. Sockets, tonic and clocks are the callers'.

pub mod certificate; // Istio's CreateCertificate: how a proxy gets its certificate
pub mod delta; // both halves of incremental ADS, as state machines
mod encoded; // a resource as it crosses the wire, encoded once for all who ask
mod metadata; // what gauze says in Envoy's metadata
mod path; // errors that gather their field path on the way up
mod rejection; // a refused resource, and how a NACK carries it

pub use delta::{DeltaClient, DeltaServer};
pub use encoded::EncodedResource;
/// Who a client says that it is, on the first request of a stream.
pub use envoy_types::pb::envoy::config::core::v3::Node;
/// Envoy's discovery messages, so that others need no dependency of their own.
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use rejection::Rejection;

use gauze_model::snapshot::Resource;
use gauze_model::{Kind, Name};

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

/// Writes a resource: its name, its message, and the features that a reader must have.
/// The version is left empty ([`EncodedResource`] fills it in).
pub fn to_xds(name: &Name, resource: &Resource) -> discovery::Resource {
    let _ = (name, resource);
    unimplemented!("follows")
}

/// Reads a resource.
///
/// # Errors
/// It asks for something that gauze does not do, or is not what its type says.
pub fn from_xds(kind: Kind, resource: &discovery::Resource) -> Result<(Name, Resource), Rejection> {
    let _ = (kind, resource);
    unimplemented!("follows")
}
