//! The proxy's half.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use gauze_model::{Name, Snapshot};

use crate::Rejection;

/// What one proxy has asked for, holds, and serves.
#[derive(Debug)]
pub struct DeltaClient {
    node: Node,
    snapshot: Arc<Snapshot>,
}

impl DeltaClient {
    /// `node` goes with the first request of each stream.
    pub fn new(node: Node) -> DeltaClient {
        DeltaClient { node, snapshot: Arc::default() }
    }

    /// Asks for a listener, and from then on for all that it leads to. Without a stream, drop the requests.
    pub fn want(&mut self, name: Name) -> Vec<DeltaDiscoveryRequest> {
        let _ = (name, &self.node);
        unimplemented!("follows")
    }

    /// Gives a listener up, and all that only it led to.
    pub fn unwant(&mut self, name: &Name) -> Vec<DeltaDiscoveryRequest> {
        let _ = name;
        unimplemented!("follows")
    }

    /// What to say on a new stream: all that is wanted, with the versions that are held.
    pub fn hello(&mut self) -> Vec<DeltaDiscoveryRequest> {
        unimplemented!("follows")
    }

    /// Takes a response; returns its ACK or NACK, and what is newly asked for or given up.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let _ = response;
        unimplemented!("follows")
    }

    /// What serves now: whatever is in it leads only to what is in it, or is known not to exist.
    /// The same `Arc` as before if nothing changed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// What was refused and has not been put right since.
    pub fn rejections(&self) -> Vec<Rejection> {
        unimplemented!("follows")
    }
}
