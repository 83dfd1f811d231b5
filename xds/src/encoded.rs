//! A resource as it crosses the wire: encoded once, shared by all streams.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use gauze_model::snapshot::Resource;
use gauze_model::{Kind, Listener, Name, Origin, RouteTable};

use crate::{discovery, to_xds};

/// A resource, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedResource {
    pub kind: Kind,
    pub name: Name,
    /// A hash of the bytes, equal on all replicas.
    pub version: String,
    /// With the version filled in.
    pub resource: discovery::Resource,
    /// All that the user wrote to make it so.
    pub origins: BTreeSet<Origin>,
}

impl EncodedResource {
    pub fn new(name: Name, resource: &Resource) -> EncodedResource {
        let (kind, origins) = (resource.kind(), origins(resource));
        let mut resource = to_xds(&name, resource);
        let bytes = resource.resource.as_ref().map_or(&[][..], |message| &message.value);
        resource.version = version(bytes);
        EncodedResource { kind, name, version: resource.version.clone(), resource, origins }
    }
}

/// The first half of SHA-256, in hex: nobody can write an object whose new bytes pass for its old ones.
fn version(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn origins(resource: &Resource) -> BTreeSet<Origin> {
    match resource {
        Resource::Listener(listener) => match &**listener {
            Listener::Inbound(inbound) => {
                let policies = inbound.policies.iter().map(|policy| &policy.origin);
                policies.chain([&inbound.origin]).cloned().collect()
            }
            Listener::Outbound(outbound) => {
                let rules = outbound.tls.iter().map(|rule| &rule.origin);
                rules.chain([&outbound.origin]).cloned().collect()
            }
        },
        Resource::Routes(table) => routes_origins(table),
        Resource::Cluster(cluster) => BTreeSet::from([cluster.origin.clone()]),
        Resource::Endpoints(_) => BTreeSet::new(),
    }
}

fn routes_origins(table: &RouteTable) -> BTreeSet<Origin> {
    let rules = table.hosts().iter().flat_map(|host| &host.rules);
    rules.map(|rule| &rule.origin).chain([&table.origin]).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of FIPS 180-4 for no byte and for `abc`.
    #[test]
    fn a_version_is_half_of_sha_256() {
        assert_eq!(version(b""), "e3b0c44298fc1c149afbf4c8996fb924");
        assert_eq!(version(b"abc"), "ba7816bf8f01cfea414140de5dae2223");
    }
}
