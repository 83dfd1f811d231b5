//! Which TrafficPolicy holds for a Service port, and what it says.

use std::sync::Arc;

use gauze_crds::TrafficPolicy;
use gauze_crds::policy::PolicyTargetReference;
use gauze_crds::traffic_policy::{BalanceSpec, BalanceType};
use gauze_model::Origin;
use gauze_model::cluster::{Balance, CONNECT_TIMEOUT, Cluster, Limits};
use gauze_model::listener::PortProtocol;
use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::{age, name_of, namespace_of};
use crate::world::World;

/// A cluster as the policy of this Service port wants it; the defaults, if there is none. Origin and
/// protocol are the caller's to fill in.
pub(super) fn cluster(world: &World, port: Option<(&Service, &ServicePort)>) -> Cluster {
    let policy = port.and_then(|(service, port)| holding(world, service, port));
    let spec = policy.map(|policy| policy.spec.clone()).unwrap_or_default();
    let limits = spec.limits.unwrap_or_default();
    let default = Limits::default();
    Cluster {
        origin: Origin::default(),
        protocol: PortProtocol::Detect,
        balance: spec.balance.as_ref().map(balance).unwrap_or_default(),
        limits: Limits {
            connections: limits.connections.unwrap_or(default.connections),
            pending: limits.pending.unwrap_or(default.pending),
            requests: limits.requests.unwrap_or(default.requests),
        },
        connect_timeout: spec.connect_timeout.map_or(CONNECT_TIMEOUT, |timeout| timeout.0),
    }
}

fn balance(spec: &BalanceSpec) -> Balance {
    match spec.balance_type {
        BalanceType::RoundRobin => Balance::RoundRobin,
        BalanceType::LeastRequest => Balance::LeastRequest,
        BalanceType::Random => Balance::Random,
        BalanceType::PeakEwma => {
            let Balance::PeakEwma { start, decay } = Balance::default() else { return Balance::default() };
            let ewma = spec.peak_ewma.clone().unwrap_or_default();
            Balance::PeakEwma {
                start: ewma.start.map_or(start, |start| start.0),
                decay: ewma.decay.map_or(decay, |decay| decay.0),
            }
        }
    }
}

/// The policy that holds for this port: one that names the port before one that does not, then the oldest.
pub(super) fn holding<'w>(
    world: &'w World,
    service: &Service,
    port: &ServicePort,
) -> Option<&'w Arc<TrafficPolicy>> {
    let name = name_of(&service.metadata);
    let policies = world.policies_of(namespace_of(&service.metadata), name);
    let selecting = policies.filter_map(|policy| {
        let targets = policy.spec.target_refs.iter().filter(|target| is_of(target, name));
        let general = targets.filter_map(|target| selects(target, port)).min()?;
        Some((general, age(&policy.metadata), policy))
    });
    selecting.min_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1))).map(|(_, _, policy)| policy)
}

/// Whether a target is the Service of this name.
pub(super) fn is_of(target: &PolicyTargetReference, service: &str) -> bool {
    target.group.is_empty() && target.kind == "Service" && target.name == service
}

/// Whether a target selects this port, and if so, whether as one of all.
fn selects(target: &PolicyTargetReference, port: &ServicePort) -> Option<bool> {
    match &target.section_name {
        None => Some(true),
        Some(section) => (port.name.as_ref() == Some(section)).then_some(false),
    }
}
