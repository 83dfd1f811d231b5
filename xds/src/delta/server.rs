//! The control plane's half: one of these per stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use gauze_model::{Kind, Name};

use crate::{EncodedResource, Rejection};

/// What there is to say about a name.
#[derive(Clone, Debug)]
pub enum Answer {
    Known(Arc<EncodedResource>),
    /// It does not exist: said at once, in `removed_resources`.
    Absent,
    /// Not decided yet: nothing is said.
    Undecided,
}

/// What a request said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub subscribed: BTreeSet<(Kind, Name)>,
    pub unsubscribed: BTreeSet<(Kind, Name)>,
    /// A response was ACKed or NACKed: [`DeltaServer::held`] may have changed.
    pub acknowledged: bool,
    pub rejections: Vec<Rejection>,
    /// Names that are none, or of another type: answered as not existing.
    pub unreadable: Vec<String>,
}

/// What the client is known to hold under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Holding {
    /// Neither ACKed nor held since before.
    #[default]
    Nothing,
    /// It ACKed that there is no such resource.
    Absent,
    Version(String),
}

/// One subscription of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What it ACKed last.
    pub acknowledged: Holding,
    /// What was sent last, ACKed or not.
    pub sent: Holding,
    /// The version that it refused last and why; gone when a later one is ACKed.
    pub rejected: Option<(String, Rejection)>,
}

/// What one client has asked for, was sent, and has ACKed.
#[derive(Debug, Default)]
pub struct DeltaServer {
    subscriptions: BTreeMap<(Kind, Name), Held>,
}

impl DeltaServer {
    pub fn new() -> DeltaServer {
        DeltaServer::default()
    }

    /// Takes a request; returns what it said, and what must be sent for it.
    pub fn on_request(
        &mut self,
        request: DeltaDiscoveryRequest,
        answers: &mut impl FnMut(Kind, &Name) -> Answer,
    ) -> (Heard, Vec<DeltaDiscoveryResponse>) {
        let _ = (request, answers);
        unimplemented!("follows")
    }

    /// The answers to these names may have changed; returns what must be sent: what is new before what
    /// refers to it, removals last.
    pub fn on_change(
        &mut self,
        changed: &BTreeSet<(Kind, Name)>,
        answers: &mut impl FnMut(Kind, &Name) -> Answer,
    ) -> Vec<DeltaDiscoveryResponse> {
        let _ = (changed, answers);
        unimplemented!("follows")
    }

    /// What the client has asked for.
    pub fn subscribed(&self) -> impl ExactSizeIterator<Item = &(Kind, Name)> {
        self.subscriptions.keys()
    }

    /// What the client has asked for, with what it was sent, holds, and refused.
    pub fn held(&self) -> &BTreeMap<(Kind, Name), Held> {
        &self.subscriptions
    }
}
