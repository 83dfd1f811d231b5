//! A resource as it crosses the wire: encoded once, shared by all streams.

use std::collections::BTreeSet;

use gauze_model::snapshot::Resource;
use gauze_model::{Kind, Name, Origin};

use crate::discovery;

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
        let _ = (name, resource);
        unimplemented!("follows")
    }
}
