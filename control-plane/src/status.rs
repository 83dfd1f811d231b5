//! What each object's conditions should be: pure. Who writes or shows them is another's business.
//!
//! `Accepted` and `ResolvedRefs` follow from the world alone, `Programmed n/m` from what the proxies hold.

mod conditions;
mod programmed;
mod replicas;

use std::collections::BTreeSet;

use gauze_model::{Kind, Name, Origin};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::translate::{Judgement, judge};
use crate::world::{ObjectKey, ObjectKind, World};

pub use replicas::heard_by_all;

/// The name under which gauze writes into statuses that are shared with others.
pub const CONTROLLER_NAME: &str = "gauze.dev/control-plane";

/// What the streams report: the proxies that are connected, or were in the last five minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    pub proxies: Vec<Proxy>,
    /// Replicas whose proxies are missing here; where there is one, no count is right.
    pub unheard: Vec<String>,
}

/// What one proxy holds or should hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    pub namespace: String,
    pub pod: String,
    pub resources: Vec<Holding>,
}

/// One resource that a proxy holds or should hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    pub kind: Kind,
    pub name: Name,
    pub state: HoldingState,
    /// The origins of what the world yields for that name now, and of what the proxy holds.
    pub origins: BTreeSet<Origin>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HoldingState {
    /// The proxy holds what the world yields now.
    Current,
    /// The proxy was told, or will be, and has not said yet that it holds it.
    Behind,
    /// The proxy refused what the world yields now.
    Refused { path: String, problem: String, origin: Option<Origin> },
    /// The proxy holds what the world yields now, but for these authorization policies, which it could not read and closed.
    Closed(Vec<ClosedPolicy>),
}

/// An authorization policy that a proxy could not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedPolicy {
    pub origin: Origin,
    pub path: String,
    pub problem: String,
}

/// The conditions of one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectStatus {
    pub object: ObjectKey,
    /// One for each parent of a route and each target of a policy; one without reference for a split.
    pub parents: Vec<ParentStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The `parentRef` or `targetRef`, exactly as the user wrote it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub reference: Value,
    pub conditions: Vec<Condition>,
}

/// A Kubernetes condition without its time, which is its writer's to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `PartiallyInvalid` or `Programmed`.
    #[serde(rename = "type")]
    pub condition_type: &'static str,
    pub status: Truth,
    /// One word in CamelCase.
    pub reason: &'static str,
    pub message: String,
    pub observed_generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl ObjectStatus {
    /// The object's `status` as it stands in a cluster, but for the times of its conditions: of routes
    /// `parents` (Gateway API), of policies `ancestors` (GEP-713), of a split just conditions.
    pub fn to_json(&self) -> Value {
        let entries = |list: &str, reference: &str| {
            let entry = |parent: &ParentStatus| {
                json!({
                    reference: parent.reference,
                    "controllerName": CONTROLLER_NAME,
                    "conditions": parent.conditions,
                })
            };
            json!({ list: self.parents.iter().map(entry).collect::<Vec<_>>() })
        };
        match self.object.kind {
            ObjectKind::HttpRoute | ObjectKind::GrpcRoute => entries("parents", "parentRef"),
            ObjectKind::TrafficPolicy | ObjectKind::AuthorizationPolicy => {
                entries("ancestors", "ancestorRef")
            }
            _ => {
                let conditions = self.parents.iter().flat_map(|parent| &parent.conditions);
                json!({ "conditions": conditions.collect::<Vec<_>>() })
            }
        }
    }
}

/// The conditions of every object that has some, by kind, namespace and name; also of objects that
/// their source cannot use. `source` are the problems that it sees.
pub fn conditions(world: &World, source: &[Problem], heard: &Heard) -> Vec<ObjectStatus> {
    let mut statuses: Vec<ObjectStatus> = world
        .objects()
        .filter_map(|object| {
            let judged = judge(world, object);
            let origin = object.origin();
            let unusable =
                source.iter().find(|problem| problem.origin.object() == origin.object() && is_fatal(problem));
            let judged = match (judged.is_empty(), unusable) {
                (true, None) => return None,
                (true, Some(_)) => vec![Judgement::default()],
                (false, _) => judged,
            };
            let programmed = programmed::count(heard, &origin);
            let parents = judged.into_iter().map(|judgement| {
                let reference = judgement.reference.clone();
                let conditions =
                    conditions::of(object.kind(), &judgement, unusable, &programmed, origin.generation);
                ParentStatus { reference, conditions }
            });
            Some(ObjectStatus { object: object.key(), parents: parents.collect() })
        })
        .collect();
    statuses.extend(never_usable(world, source));
    statuses.sort_by(|one, other| one.object.cmp(&other.object));
    statuses
}

/// Objects that the world does not hold, since no version of them could be used.
fn never_usable(world: &World, source: &[Problem]) -> Vec<ObjectStatus> {
    let mut statuses: Vec<ObjectStatus> = Vec::new();
    for problem in source.iter().filter(|problem| is_fatal(problem)) {
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == problem.origin.kind);
        let Some(kind) = kind.filter(|_| !problem.origin.name.is_empty()) else { continue };
        let object = ObjectKey::new(kind, &problem.origin.namespace, &problem.origin.name);
        if world.object(&object).is_some() || statuses.iter().any(|status| status.object == object) {
            continue;
        }
        let parents = vec![ParentStatus {
            reference: Value::Null,
            conditions: vec![conditions::unusable_condition(problem, false)],
        }];
        statuses.push(ObjectStatus { object, parents });
    }
    statuses
}

/// Whether the version that stands in the source is not the one in force.
fn is_fatal(problem: &Problem) -> bool {
    use gauze_model::Code;
    match problem.code {
        // Never an earlier version of it, but its closed form.
        _ if problem.origin.kind == ObjectKind::AuthorizationPolicy.as_str() => false,
        Code::DUPLICATE_OBJECT | Code::UNKNOWN_KIND => false,
        // Of our own kinds, a field that has no effect must not look as if it had one.
        Code::UNKNOWN_FIELD => problem.origin.kind == ObjectKind::TrafficPolicy.as_str(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
