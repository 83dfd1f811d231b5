//! Which AuthorizationPolicies select a pod, and what they say there. One that cannot be read is closed: what it
//! selects stays selected, its Allow lets nothing in, its Deny everything out.

use std::collections::{BTreeMap, BTreeSet};

use gauze_crds::AuthorizationPolicy;
use gauze_crds::authorization_policy::{
    AuthorizationAction, AuthorizationTargetReference, PodSelector, PodSelectorOperator,
    PodSelectorRequirement, Unreadable,
};
use gauze_model::authorization::{Action, Policy};
use gauze_model::{Code, Origin};
use k8s_openapi::api::core::v1::{Pod, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{Judgement, namespace_of, pods, ports, services};
use crate::problem::Problem;
use crate::world::{self, ObjectKind, World};

mod rules; // the rules as the model has them

/// The policies of a pod, by name.
pub(super) fn policies(world: &World, pod: &Pod) -> Vec<Policy> {
    let of_namespace = world.authorization_policies_in(namespace_of(&pod.metadata));
    of_namespace.filter_map(|policy| policy_of(world, policy, pod)).collect()
}

/// What a policy says of this pod, if it selects it.
fn policy_of(world: &World, policy: &AuthorizationPolicy, pod: &Pod) -> Option<Policy> {
    let ports = selected(world, policy, pod)?;
    let rules = rules::rules(&policy.spec).unwrap_or_default();
    let policy_here =
        Policy { origin: origin(policy), action: action(policy.spec.action), ports, rules, broken: false };
    Some(if unusable(policy).is_some() { policy_here.closed() } else { policy_here })
}

fn origin(policy: &AuthorizationPolicy) -> Origin {
    world::origin(ObjectKind::AuthorizationPolicy, &policy.metadata)
}

fn action(action: AuthorizationAction) -> Action {
    match action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
        AuthorizationAction::Audit => Action::Audit,
    }
}

/// The first thing of a policy that cannot be read. An API server would refuse most of it by the rules in the CRD.
fn unusable(policy: &AuthorizationPolicy) -> Option<Problem> {
    let problem = |path: &str, message: &str| {
        Problem::new(Code::POLICY_CLOSED, origin(policy).at(path), format!("{message}; {}", closed(policy)))
    };
    if let Some(Unreadable { path, message, .. }) = &policy.spec.unreadable {
        return Some(problem(path, message));
    }
    let targets = policy.spec.target_refs.iter().flatten().enumerate();
    let mut faults = targets.filter_map(|(index, target)| Some((index, unreadable_target(target)?)));
    if let Some((index, message)) = faults.next() {
        return Some(problem(&format!("spec.targetRefs[{index}]"), &message));
    }
    rules::rules(&policy.spec).err().map(|(path, message)| problem(&path, &message))
}

/// What a policy does that cannot be read.
fn closed(policy: &AuthorizationPolicy) -> &'static str {
    match policy.spec.action {
        AuthorizationAction::Allow => "until then it lets nothing in",
        AuthorizationAction::Deny => "until then it keeps everything out",
        AuthorizationAction::Audit => "until then it records nothing",
    }
}

// Selection.

/// The ports of the pod that a policy is for: `None` if not even the pod is selected, `Some(None)` for all.
fn selected(world: &World, policy: &AuthorizationPolicy, pod: &Pod) -> Option<Option<BTreeSet<u16>>> {
    let unreadable = policy.spec.unreadable.as_ref().is_some_and(|unreadable| unreadable.target_refs);
    let targets = policy.spec.target_refs.as_deref().filter(|_| !unreadable).unwrap_or_default();
    // No target means all pods; and what a target selects that cannot be read, nobody knows.
    if targets.is_empty() || targets.iter().any(|target| unreadable_target(target).is_some()) {
        return Some(None);
    }
    let mut ports = BTreeSet::new();
    for target in targets {
        match (&target.name, &target.selector) {
            (_, Some(selector)) if selects(selector, pod) => return Some(None),
            (Some(name), None) => ports.extend(ports_behind(world, name, pod)),
            _ => {}
        }
    }
    (!ports.is_empty()).then_some(Some(ports))
}

fn unreadable_target(target: &AuthorizationTargetReference) -> Option<String> {
    let AuthorizationTargetReference { group, kind, name, selector } = target;
    match (group.as_str(), kind.as_str(), name, selector) {
        ("", "Service", Some(_), None) => None,
        ("", "Pod", None, Some(selector)) => unreadable_selector(selector),
        _ => Some(
            "an AuthorizationPolicy targets `kind: Service` by `name`, or `kind: Pod` by `selector`, both of `group: \"\"`"
                .to_owned(),
        ),
    }
}

fn unreadable_selector(selector: &PodSelector) -> Option<String> {
    let wrong = selector.match_expressions.iter().find(|expression| {
        let needs_values =
            matches!(expression.operator, PodSelectorOperator::In | PodSelectorOperator::NotIn);
        needs_values == expression.values.is_empty()
    })?;
    Some(format!(
        "the expression about `{}` cannot be read: In and NotIn need `values`, Exists and DoesNotExist take none",
        wrong.key
    ))
}

/// Kubernetes' own rules: all labels and all expressions; an empty selector selects everything.
fn selects(selector: &PodSelector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let expressions = selector.match_expressions.iter();
    is_subset(&selector.match_labels, labels)
        && expressions.into_iter().all(|PodSelectorRequirement { key, operator, values }| {
            let value = labels.and_then(|labels| labels.get(key));
            let is_one = value.is_some_and(|value| values.contains(value));
            match operator {
                PodSelectorOperator::In => is_one,
                PodSelectorOperator::NotIn => !is_one,
                PodSelectorOperator::Exists => value.is_some(),
                PodSelectorOperator::DoesNotExist => value.is_none(),
            }
        })
}

fn is_subset(wanted: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The ports of the pod that a Service leads to: by its selector, which holds before any EndpointSlice tells, and by its slices.
fn ports_behind(world: &World, service: &str, pod: &Pod) -> BTreeSet<u16> {
    let namespace = namespace_of(&pod.metadata);
    let Some(service) = world.service(namespace, service) else { return BTreeSet::new() };
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = pod.metadata.labels.as_ref();
    let is_selected = selector.is_some_and(|selector| !selector.is_empty() && is_subset(selector, labels));
    let tcp = services::tcp_ports(service).map(|(_, port)| port);
    let by_selector = tcp.filter(|_| is_selected).filter_map(|port| target_port(port, pod));
    by_selector.chain(services::ports_in_slices(world, service, &pods::addresses(pod))).collect()
}

/// `targetPort`: a number, the name of a container's port, or else the Service's own.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None => ports::number(port.port),
        Some(IntOrString::Int(0)) => ports::number(port.port),
        Some(IntOrString::Int(number)) => ports::number(*number),
        Some(IntOrString::String(name)) => {
            let containers = pod
                .spec
                .iter()
                .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            let mut declared = containers.flat_map(|container| container.ports.iter().flatten());
            let found = declared
                .find(|port| port.name.as_ref() == Some(name) && ports::is_tcp(port.protocol.as_deref()));
            ports::number(found?.container_port)
        }
    }
}

// Status.

/// What becomes of a policy at each of its targets, or in its namespace.
pub(super) fn judge(world: &World, policy: &AuthorizationPolicy) -> Vec<Judgement> {
    let namespace = namespace_of(&policy.metadata);
    let unusable = unusable(policy);
    let judged = |reference, missing: Option<Problem>| Judgement {
        reference,
        refused: unusable.clone().or(missing),
        in_force: unusable.is_some(),
        ..Judgement::default()
    };
    let targets = policy.spec.target_refs.as_deref().unwrap_or_default();
    if targets.is_empty() {
        return vec![judged(json!({ "group": "", "kind": "Namespace", "name": namespace }), None)];
    }
    let targets = targets.iter().enumerate();
    targets.map(|(index, target)| judged(json!(target), missing(world, policy, index, target))).collect()
}

fn missing(
    world: &World,
    policy: &AuthorizationPolicy,
    index: usize,
    target: &AuthorizationTargetReference,
) -> Option<Problem> {
    let namespace = namespace_of(&policy.metadata);
    let name = target.name.as_ref().filter(|name| world.service(namespace, name).is_none())?;
    let message = format!(
        "there is no Service `{name}` in namespace `{namespace}`, so the policy selects no pod by it; correct the name, or create the Service"
    );
    Some(Problem::new(Code::PARENT_MISSING, origin(policy).at(format!("spec.targetRefs[{index}]")), message))
}
