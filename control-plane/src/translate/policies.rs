//! Which TrafficPolicy holds for a Service port, and what it says.

use std::sync::Arc;

use gauze_crds::TrafficPolicy;
use gauze_crds::duration::Duration;
use gauze_crds::policy::PolicyTargetReference;
use gauze_crds::retry::RetryBudgetSpec;
use gauze_crds::traffic_policy::{BalanceSpec, BalanceType, TrafficPolicySpec};
use gauze_model::budget::INTERVAL_LIMIT;
use gauze_model::cluster::{Balance, CONNECT_TIMEOUT, Cluster, Limits};
use gauze_model::listener::PortProtocol;
use gauze_model::{Code, Origin};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::json;

use super::{Judgement, age, name_of, namespace_of, outliers, retries, services};
use crate::problem::Problem;
use crate::world::{self, ObjectKind, World};

/// A cluster as a policy wants it; without one, with the defaults.
pub(super) fn cluster(policy: Option<&TrafficPolicy>, origin: Origin, protocol: PortProtocol) -> Cluster {
    let spec = policy.map(|policy| &policy.spec);
    let limits = spec.and_then(|spec| spec.limits.clone()).unwrap_or_default();
    let default = Limits::default();
    let balance = spec.and_then(|spec| spec.balance.as_ref());
    let outlier = spec.and_then(|spec| spec.outlier_detection.as_ref());
    Cluster {
        origin,
        protocol,
        balance: balance.map(self::balance).unwrap_or_default(),
        limits: Limits {
            connections: limits.connections.unwrap_or(default.connections),
            pending: limits.pending.unwrap_or(default.pending),
            requests: limits.requests.unwrap_or(default.requests),
        },
        outlier: Some(outlier.map(outliers::outlier_detection).unwrap_or_default()),
        policy: policy.map(self::origin),
        retry_budget: retries::budget(spec.and_then(|spec| spec.retry_budget.as_ref())),
        connect_timeout: spec
            .and_then(|spec| spec.connect_timeout)
            .map_or(CONNECT_TIMEOUT, |timeout| timeout.0),
    }
}

pub(super) fn origin(policy: &TrafficPolicy) -> Origin {
    world::origin(ObjectKind::TrafficPolicy, &policy.metadata)
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

/// The policy that holds for this port: one that names the port before one that does not, then the
/// oldest. One that says what cannot be does not hold.
pub(super) fn holding<'w>(
    world: &'w World,
    service: &Service,
    port: &ServicePort,
) -> Option<&'w Arc<TrafficPolicy>> {
    let name = name_of(&service.metadata);
    let policies = world.policies_of(namespace_of(&service.metadata), name);
    let selecting = policies.filter(|policy| invalid(policy).is_none()).filter_map(|policy| {
        let targets =
            policy.spec.target_refs.iter().filter(|target| is_service(target) && target.name == name);
        let general = targets.filter_map(|target| selects(target, port)).min()?;
        Some((general, age(&policy.metadata), policy))
    });
    selecting.min_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1))).map(|(_, _, policy)| policy)
}

fn is_service(target: &PolicyTargetReference) -> bool {
    target.group.is_empty() && target.kind == "Service"
}

/// Whether a target selects this port, and if so, whether as one of all.
fn selects(target: &PolicyTargetReference, port: &ServicePort) -> Option<bool> {
    match &target.section_name {
        None => Some(true),
        Some(section) => (port.name.as_ref() == Some(section)).then_some(false),
    }
}

/// The first thing that a policy says and that cannot be. An API server would refuse it by the rules in the CRD.
fn invalid(policy: &TrafficPolicy) -> Option<Problem> {
    let spec = &policy.spec;
    let balance = spec.balance.as_ref();
    let ewma = balance.and_then(|balance| balance.peak_ewma.as_ref());
    let limits = spec.limits.clone().unwrap_or_default();
    let is_zero = |duration: Option<Duration>| duration.is_some_and(|duration| duration.0.is_zero());
    let (path, message) = if says_nothing(spec) {
        let message = "a policy that says nothing has no effect; write `balance`, `connectTimeout`, `limits`, `outlierDetection`, `retry`, `retryBudget` or `timeouts`";
        return Some(Problem::new(Code::INVALID_VALUE, origin(policy).at("spec"), message));
    } else if is_zero(spec.connect_timeout) {
        ("connectTimeout", "must be longer than 0; write for example 500ms")
    } else if ewma.is_some() && balance.is_some_and(|balance| balance.balance_type != BalanceType::PeakEwma) {
        ("balance.peakEwma", "belongs to `type: PeakEwma`; remove it, or change the type")
    } else if ewma.is_some_and(|ewma| is_zero(ewma.decay)) {
        ("balance.peakEwma.decay", "must be longer than 0; write for example 10s")
    } else if limits.connections == Some(0) {
        ("limits.connections", "must be at least 1")
    } else if limits.requests == Some(0) {
        ("limits.requests", "must be at least 1")
    } else {
        let outliers = spec.outlier_detection.as_ref().and_then(outliers::invalid);
        outliers.or_else(|| invalid_retries(spec))?
    };
    Some(Problem::new(Code::INVALID_VALUE, origin(policy).at(format!("spec.{path}")), message))
}

fn says_nothing(spec: &TrafficPolicySpec) -> bool {
    let targets_only =
        TrafficPolicySpec { target_refs: spec.target_refs.clone(), ..TrafficPolicySpec::default() };
    *spec == targets_only
}

/// Path and message of what cannot be of retries and timeouts.
fn invalid_retries(spec: &TrafficPolicySpec) -> Option<(&'static str, &'static str)> {
    let retry = spec.retry.clone().unwrap_or_default();
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    let RetryBudgetSpec { percent, interval, .. } = spec.retry_budget.clone().unwrap_or_default();
    let is_interval =
        |given: Duration| given.0.subsec_millis() == 0 && !given.0.is_zero() && given.0 <= INTERVAL_LIMIT;
    if retry.attempts.is_some_and(|attempts| attempts > 10) {
        Some(("retry.attempts", "must be at most 10; write for example 2"))
    } else if retry.codes.iter().any(|code| !(400..600).contains(code)) {
        Some(("retry.codes", "must be HTTP statuses from 400 to 599; write for example [502, 503]"))
    } else if retries::is_longer(timeouts.backend_request, timeouts.request) {
        Some(("timeouts.backendRequest", retries::LONGER))
    } else if percent.is_some_and(|percent| percent > 100) {
        Some(("retryBudget.percent", "must be at most 100; write for example 20"))
    } else if interval.is_some_and(|interval| !is_interval(interval)) {
        Some(("retryBudget.interval", "must be whole seconds from 1s to 60s; write for example 10s"))
    } else {
        None
    }
}

/// What becomes of a policy at each of its targets.
pub(super) fn judge(world: &World, policy: &TrafficPolicy) -> Vec<Judgement> {
    if policy.spec.target_refs.is_empty() {
        let message = "the policy is for nothing; name at least one Service";
        let refused = Problem::new(Code::INVALID_VALUE, origin(policy).at("spec.targetRefs"), message);
        return vec![Judgement { refused: Some(refused), ..Judgement::default() }];
    }
    let targets = policy.spec.target_refs.iter().enumerate();
    let judged = targets.map(|(index, target)| {
        let origin = origin(policy).at(format!("spec.targetRefs[{index}]"));
        let refused = invalid(policy).or_else(|| self::refused(world, policy, target, &origin));
        Judgement { reference: json!(target), refused, ..Judgement::default() }
    });
    judged.collect()
}

fn refused(
    world: &World,
    policy: &TrafficPolicy,
    target: &PolicyTargetReference,
    origin: &Origin,
) -> Option<Problem> {
    let problem = |code, message: String| Some(Problem::new(code, origin.clone(), message));
    let (namespace, name) = (namespace_of(&policy.metadata), &target.name);
    if !is_service(target) {
        let message = format!(
            "a TrafficPolicy targets Services, not `{}` of `{}`; write `group: \"\"` and `kind: Service`",
            target.kind, target.group
        );
        return problem(Code::PARENT_KIND_UNSUPPORTED, message);
    }
    let Some(service) = world.service(namespace, name) else {
        let message = format!(
            "there is no Service `{name}` in namespace `{namespace}`; correct the name, or create the Service"
        );
        return problem(Code::PARENT_MISSING, message);
    };
    let mut ports = services::tcp_ports(service)
        .map(|(_, port)| port)
        .filter(|port| selects(target, port).is_some())
        .peekable();
    if ports.peek().is_none() {
        let section = target.section_name.as_deref().unwrap_or_default();
        let message = format!("Service `{name}` has no port named `{section}`; correct `sectionName`");
        return problem(Code::PARENT_PORT_MISSING, message);
    }
    let holders: Vec<_> = ports.filter_map(|port| holding(world, service, port)).collect();
    if holders.iter().any(|holder| holder.metadata == policy.metadata) {
        return None;
    }
    let other = holders.first().map(|holder| name_of(&holder.metadata)).unwrap_or_default();
    let message = format!(
        "TrafficPolicy `{other}` is older, or names the port, and holds for Service `{name}`; remove one of the two"
    );
    problem(Code::CONFLICT, message)
}
