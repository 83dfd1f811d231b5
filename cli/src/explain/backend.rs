//! What stands behind the shares of a split: endpoints, how they are balanced, and as whom they are dialled.

use gauze_model::cluster::{Balance, Cluster, Endpoint, EndpointSet, Transport};
use gauze_model::listener::Mtls;
use gauze_model::snapshot::Resource;
use gauze_model::why::Reason;
use gauze_model::{Code, Kind, Name};

use super::walk::{Walk, refused};
use super::{Verdict, inbound};

/// `cart-v1 90 % · cart-v2 10 %`
pub(super) fn shares(shares: &[(Name, u32)]) -> String {
    let sum: u64 = shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let share = |(cluster, weight): &(Name, u32)| {
        let percent = 100.0 * f64::from(*weight) / (sum.max(1) as f64);
        let digits = usize::from(percent.fract() != 0.0);
        format!("{} {percent:.digits$} %", short(cluster))
    };
    shares.iter().map(share).collect::<Vec<_>>().join(" · ")
}

/// A cluster as people call it.
pub(super) fn short(cluster: &Name) -> String {
    match cluster {
        Name::Cluster(service) => service.service.clone(),
        other => other.to_string(),
    }
}

impl Walk<'_> {
    /// Looks behind every share that can be drawn, and says where the request may go.
    pub(super) fn carry(&mut self, shares: &[(Name, u32)]) -> Verdict {
        let mut ways = Vec::new();
        let mut empty = Vec::new();
        let mut refusing = Vec::new();
        for (cluster, _) in shares.iter().filter(|(_, weight)| *weight > 0) {
            match self.endpoints(cluster) {
                endpoints if endpoints.is_empty() => empty.push(short(cluster)),
                endpoints => {
                    for endpoint in &endpoints {
                        match self.enter(cluster, endpoint) {
                            None => ways.push(describe(endpoint)),
                            Some(code) => refusing.push((describe(endpoint), code)),
                        }
                    }
                }
            }
        }
        if let Some(verdict) = inbound::verdict(&ways, &refusing) {
            return verdict;
        }
        match (ways.is_empty(), empty.is_empty()) {
            (true, _) => refused(Code::NO_ENDPOINT, &format!("nothing is ready behind {}", empty.join(", "))),
            (false, true) => Verdict::Carried(ways.join(" or ")),
            (false, false) => Verdict::Carried(format!(
                "{}; but the share of {} fails with {}",
                ways.join(" or "),
                empty.join(", "),
                Code::NO_ENDPOINT
            )),
        }
    }

    fn endpoints(&mut self, name: &Name) -> Vec<Endpoint> {
        let translation = self.look(name);
        let cluster = match translation.answer.resource(Kind::Cluster) {
            Some(Resource::Cluster(cluster)) => cluster.clone(),
            _ => {
                self.steps.push(Reason::new(
                    "endpoints",
                    format!("{}: none", short(name)),
                    format!("{name} does not exist"),
                ));
                return Vec::new();
            }
        };
        let endpoints = match translation.answer.resource(Kind::Endpoints) {
            Some(Resource::Endpoints(set)) => EndpointSet::clone(set).endpoints,
            _ => Vec::new(),
        };
        self.note_endpoints(name, &cluster, &endpoints);
        self.note_identity(name, &endpoints);
        if self.arriving.peer.is_some() {
            self.note_resilience(name, &cluster);
        }
        endpoints
    }

    fn note_endpoints(&mut self, name: &Name, cluster: &Cluster, endpoints: &[Endpoint]) {
        let list =
            endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>().join(", ");
        let decided = match endpoints {
            [] => format!("{}: none is ready", short(name)),
            [_] => format!("{}: {list}", short(name)),
            _ => format!("{}: one of {list}", short(name)),
        };
        let because = match (endpoints, cluster.balance) {
            ([] | [_], _) => "",
            _ if self.arriving.peer.is_none() => "the caller has no sidecar: the node draws one",
            (_, Balance::PeakEwma { .. }) => {
                "two are drawn, the one with the lighter load and latency takes it"
            }
            (_, Balance::RoundRobin) => "in turn",
            (_, Balance::LeastRequest) => "two are drawn, the one with fewer requests takes it",
            (_, Balance::Random) => "drawn by weight",
        };
        self.steps.push(Reason::new("endpoints", decided, because).by(&cluster.origin));
    }

    fn note_identity(&mut self, name: &Name, endpoints: &[Endpoint]) {
        let mut seen = Vec::new();
        for endpoint in endpoints {
            let (decided, because) = match &endpoint.transport {
                Transport::Mesh(_) if self.arriving.peer.is_none() => {
                    (format!("{}: plaintext", short(name)), "the caller has no sidecar")
                }
                Transport::Mesh(identity) => {
                    (format!("{}: mutual TLS, only with {identity}", short(name)), "the pod has the sidecar")
                }
                Transport::Plain => {
                    (format!("{}: plaintext", short(name)), "the endpoint has no sidecar, or is no pod")
                }
            };
            if !seen.contains(&decided) {
                let because = self.entrance(endpoint).unwrap_or(because);
                self.steps.push(Reason::new("identity", decided.clone(), because));
                seen.push(decided);
            }
        }
    }

    /// What the pod itself demands.
    fn entrance(&mut self, endpoint: &Endpoint) -> Option<&'static str> {
        let inbound = self.inbound(endpoint)?;
        Some(match inbound.port(endpoint.address.port()).mtls {
            Mtls::Strict => "the pod has the sidecar, and lets in nothing else",
            Mtls::Permissive => "the pod has the sidecar; it also lets in plaintext from outside the mesh",
        })
    }
}

/// `cart-v1-0 (v1)`, or the bare address.
fn describe(endpoint: &Endpoint) -> String {
    let workload = &endpoint.workload;
    match (workload.pod.as_str(), workload.version.as_str()) {
        ("", _) => endpoint.address.to_string(),
        (pod, "") => pod.to_owned(),
        (pod, version) => format!("{pod} ({version})"),
    }
}
