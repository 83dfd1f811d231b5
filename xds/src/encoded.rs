//! A resource as it crosses the wire: encoded once, shared by all streams.

use std::collections::BTreeSet;

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
        resource.version = format!("{:032x}", hash(bytes));
        EncodedResource { kind, name, version: resource.version.clone(), resource, origins }
    }
}

/// FNV-1a of 128 bits: the same on every machine and in every release, unlike the standard library's.
fn hash(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

fn origins(resource: &Resource) -> BTreeSet<Origin> {
    match resource {
        Resource::Listener(listener) => match &**listener {
            Listener::Inbound(inbound) => BTreeSet::from([inbound.origin.clone()]),
            Listener::Outbound(outbound) => BTreeSet::from([outbound.origin.clone()]),
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

    /// Test vectors of draft-eastlake-fnv.
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
