//! What each object's conditions should be: pure. Who writes or shows them is another's business.

use std::collections::BTreeSet;

use gauze_model::{Kind, Name, Origin};
use serde::Serialize;
use serde_json::Value;

use crate::problem::Problem;
use crate::world::{ObjectKey, World};

/// The name under which gauze writes into statuses that are shared with others.
pub const CONTROLLER_NAME: &str = "gauze.dev/control-plane";

/// What the streams report: the proxies that are connected, or were in the last five minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    pub proxies: Vec<Proxy>,
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
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
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

/// The conditions of every object that has some, by kind, namespace and name.
/// `source` are the problems that the source sees.
pub fn conditions(world: &World, source: &[Problem], heard: &Heard) -> Vec<ObjectStatus> {
    let _ = (world, source, heard);
    Vec::new()
}
