//! Which names may have another answer after a change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gauze_model::Name;

/// The names whose answer may have changed. It may say too much, never too little: what is recomputed
/// in vain comes out as the same bytes and goes nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    everything: bool,
    /// `inbound/<ns>/<pod>`.
    pods: BTreeSet<(String, String)>,
    /// `routes/<ns>/<service>/…` and `cluster/<ns>/<service>/…`, every port, for every viewer.
    services: BTreeSet<(String, String)>,
    /// `outbound/…/<ip>:…` and `cluster/pod/<ip>:…`, every port, for every viewer.
    addresses: BTreeSet<IpAddr>,
}

impl Touched {
    pub fn everything() -> Touched {
        Touched { everything: true, ..Touched::default() }
    }

    pub fn is_empty(&self) -> bool {
        !self.everything && self.pods.is_empty() && self.services.is_empty() && self.addresses.is_empty()
    }

    pub fn contains(&self, name: &Name) -> bool {
        if self.everything {
            return true;
        }
        match name {
            Name::Inbound { namespace, pod } => self.pods.contains(&(namespace.clone(), pod.clone())),
            Name::Outbound { address, .. } | Name::Pod(address) => self.addresses.contains(&address.ip()),
            Name::Routes { service, .. } | Name::Cluster(service) => {
                self.services.contains(&(service.namespace.clone(), service.service.clone()))
            }
        }
    }

    /// Adds what another change touched.
    pub fn extend(&mut self, other: Touched) {
        self.everything |= other.everything;
        self.pods.extend(other.pods);
        self.services.extend(other.services);
        self.addresses.extend(other.addresses);
    }
}
