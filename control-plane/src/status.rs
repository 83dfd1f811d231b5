//! What each object's conditions should be: pure. Who writes or shows them is another's business.
//!
//! `Accepted` and `ResolvedRefs` follow from the world alone, `Programmed n/m` from what the proxies hold.

mod columns; // what `kubectl get` shows
mod conditions;
mod decide; // when a status is written
mod ours; // what of an object's status in a cluster is ours
mod programmed;
mod replicas;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use gauze_crds::TrafficSplit;
use gauze_crds::traffic_split::SplitBackend;
use gauze_model::{Kind, Name, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problem::Problem;
use crate::translate::{Judgement, judge};
use crate::world::{Object, ObjectKey, ObjectKind, World};
use programmed::Counts;

pub use decide::{Difference, Past, difference, when_to_write, without_count};
pub use ours::{Ours, Shape};
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
    /// Of a TrafficSplit: who gets how much, in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `PartiallyInvalid` or `Programmed`.
    #[serde(rename = "type")]
    pub condition_type: Cow<'static, str>,
    pub status: Truth,
    /// One word in CamelCase.
    pub reason: Cow<'static, str>,
    pub message: String,
    /// The generation of the object that it speaks of.
    #[serde(default)]
    pub observed_generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth {
    True,
    False,
    Unknown,
}

/// The conditions of every object that has some, by kind, namespace and name; also of objects that
/// their source cannot use. `source` are the problems that it sees.
pub fn conditions(world: &World, source: &[Problem], heard: &Heard) -> Vec<ObjectStatus> {
    let mut unusable = BTreeMap::new();
    for problem in source.iter().filter(|problem| is_fatal(problem)) {
        unusable
            .extend(object_of(problem).filter(|key| !unusable.contains_key(key)).map(|key| (key, problem)));
    }
    let counts = Counts::of(heard);
    let of_object = |object| of_object(world, object, &mut unusable, &counts);
    let mut statuses: Vec<ObjectStatus> = world.objects().filter_map(of_object).collect();
    statuses.extend(unusable.into_iter().map(|(object, problem)| never_usable(object, problem)));
    statuses.sort_by(|one, other| one.object.cmp(&other.object));
    statuses
}

/// The status of an object of the world, if it has one. What its source cannot use of it is taken out of `unusable`.
fn of_object(
    world: &World,
    object: &Object,
    unusable: &mut BTreeMap<ObjectKey, &Problem>,
    counts: &Counts<'_>,
) -> Option<ObjectStatus> {
    let (key, origin) = (object.key(), object.origin());
    let unusable = unusable.remove(&key);
    let mut judged = judge(world, object);
    if judged.is_empty() {
        unusable?;
        judged.push(Judgement::default());
    }
    let programmed = counts.count(&origin);
    let parents = judged.into_iter().map(|judgement| ParentStatus {
        conditions: conditions::of(object.kind(), &judgement, unusable, &programmed, origin.generation),
        reference: judgement.reference,
    });
    let split = object.as_split().map(|split| split_in_short(split));
    Some(ObjectStatus { split, parents: parents.collect(), object: key })
}

/// Backends that `status.split` names; of more it says how many.
const BACKENDS_MAX: usize = 8;

/// Who gets how much, as a column of `kubectl get` shows it: `cart-v1=90 cart-v2=10`.
fn split_in_short(split: &TrafficSplit) -> String {
    let backends = &split.spec.backends;
    let share = |backend: &SplitBackend| format!("{}={}", backend.service, backend.weight);
    let mut shares: Vec<String> = backends.iter().take(BACKENDS_MAX).map(share).collect();
    if backends.len() > BACKENDS_MAX {
        shares.push(format!("and {} more", backends.len() - BACKENDS_MAX));
    }
    shares.join(" ")
}

/// The object that a problem is about; `None` if it is about a file, or about a kind that is none of ours.
fn object_of(problem: &Problem) -> Option<ObjectKey> {
    let Origin { kind, namespace, name, .. } = &problem.origin;
    let kind = ObjectKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    (!name.is_empty()).then(|| ObjectKey::new(kind, namespace, name))
}

/// The status of an object that the world does not hold, since no version of it could be used.
fn never_usable(object: ObjectKey, problem: &Problem) -> ObjectStatus {
    let conditions = vec![conditions::unusable_condition(problem, false)];
    let parents = vec![ParentStatus { reference: Value::Null, conditions }];
    ObjectStatus { object, split: None, parents }
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
