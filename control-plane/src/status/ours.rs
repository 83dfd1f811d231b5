//! What of an object's status is ours: as it should be, and as it stands in a cluster. Pure.
//!
//! Routes have `parents` (Gateway API) and policies `ancestors` (GEP-713), each with entries of several controllers;
//! a split has conditions. A foreign entry is kept as it is, whatever stands in it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::columns::columns;
use super::{CONTROLLER_NAME, Condition, ObjectStatus};
use crate::world::ObjectKind;

/// How the status of a kind is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `parents`, of Gateway API's routes.
    Parents,
    /// `ancestors`, of our policies.
    Ancestors,
    /// `split` and `conditions`, of a TrafficSplit.
    Split,
}

impl Shape {
    /// `None` for kinds into whose status gauze writes nothing.
    pub fn of(kind: ObjectKind) -> Option<Shape> {
        match kind {
            ObjectKind::HttpRoute | ObjectKind::GrpcRoute | ObjectKind::TlsRoute => Some(Shape::Parents),
            ObjectKind::TrafficPolicy | ObjectKind::AuthorizationPolicy => Some(Shape::Ancestors),
            ObjectKind::TrafficSplit => Some(Shape::Split),
            _ => None,
        }
    }

    /// The list of entries, and which field of one says what it is about.
    fn names(self) -> Option<(&'static str, &'static str)> {
        match self {
            Shape::Parents => Some(("parents", "parentRef")),
            Shape::Ancestors => Some(("ancestors", "ancestorRef")),
            Shape::Split => None,
        }
    }

    /// How many entries of ours the API server takes beside so many of others.
    pub fn room(self, foreign: usize) -> usize {
        let entries_max: usize = match self {
            Shape::Parents => 32,
            Shape::Ancestors => 16,
            Shape::Split => 1,
        };
        entries_max.saturating_sub(foreign)
    }
}

/// What of a status is ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ours {
    /// Of a TrafficSplit: who gets how much, in short.
    pub split: Option<String>,
    pub entries: Vec<Entry>,
}

/// What is said at one parent.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The `parentRef` or `ancestorRef`; null for a split.
    pub reference: Value,
    pub conditions: Vec<DatedCondition>,
}

/// A condition, and since when it has its status (RFC 3339); nobody knows before it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatedCondition {
    #[serde(flatten)]
    pub condition: Condition,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

impl Ours {
    /// What should stand there. `references` are those of the newest version, where that one cannot be used.
    pub fn of(status: &ObjectStatus, references: &[Value]) -> Ours {
        let mut ours = Ours { split: status.split.clone(), entries: Vec::new() };
        for parent in &status.parents {
            let said = |condition: &Condition| DatedCondition {
                condition: condition.clone(),
                last_transition_time: None,
            };
            let conditions: Vec<DatedCondition> = parent.conditions.iter().map(said).collect();
            if !parent.reference.is_null() || Shape::of(status.object.kind) == Some(Shape::Split) {
                ours.entries.push(Entry { reference: parent.reference.clone(), conditions });
                continue;
            }
            let entry =
                |reference: &Value| Entry { reference: reference.clone(), conditions: conditions.clone() };
            ours.entries.extend(references.iter().map(entry));
        }
        ours
    }

    /// What of this status is ours, and the entries of others.
    pub fn read(shape: Shape, status: &Value) -> (Ours, Vec<Value>) {
        let split = status["split"].as_str().map(str::to_owned);
        let Some((list, reference)) = shape.names() else {
            let entry = Entry { reference: Value::Null, conditions: conditions(status) };
            let entries = if entry.conditions.is_empty() { Vec::new() } else { vec![entry] };
            return (Ours { split, entries }, Vec::new());
        };
        let entries = status[list].as_array().cloned().unwrap_or_default();
        let (ours, foreign): (Vec<Value>, Vec<Value>) =
            entries.into_iter().partition(|entry| entry["controllerName"] == CONTROLLER_NAME);
        let entry =
            |entry: &Value| Entry { reference: entry[reference].clone(), conditions: conditions(entry) };
        (Ours { split: None, entries: ours.iter().map(entry).collect() }, foreign)
    }

    /// This, to be written now where that stands: whose status is what it was keeps the time since when.
    #[must_use]
    pub fn at(mut self, now: &str, stands: &Ours) -> Ours {
        for entry in &mut self.entries {
            let former = stands.entries.iter().find(|former| former.reference == entry.reference);
            for said in &mut entry.conditions {
                let since = former.and_then(|former| former.since(&said.condition));
                said.last_transition_time = Some(since.unwrap_or(now).to_owned());
            }
        }
        self
    }

    /// Without the times.
    #[must_use]
    pub fn without_times(mut self) -> Ours {
        let conditions = self.entries.iter_mut().flat_map(|entry| &mut entry.conditions);
        conditions.for_each(|said| said.last_transition_time = None);
        self
    }

    /// The whole status, as it stands in the cluster with this in it.
    pub fn to_json(&self, shape: Shape, foreign: &[Value]) -> Value {
        let Some((list, reference)) = shape.names() else {
            let conditions: Vec<&DatedCondition> =
                self.entries.iter().flat_map(|entry| &entry.conditions).collect();
            let mut status = Map::from_iter([("conditions".to_owned(), json!(conditions))]);
            status.extend(self.split.iter().map(|split| ("split".to_owned(), json!(split))));
            status.extend(self.columns(shape));
            return Value::Object(status);
        };
        let entry = |entry: &Entry| {
            json!({
                reference: entry.reference,
                "controllerName": CONTROLLER_NAME,
                "conditions": entry.conditions,
            })
        };
        let entries = foreign.iter().cloned().chain(self.entries.iter().map(entry));
        let mut status = Map::from_iter([(list.to_owned(), entries.collect())]);
        status.extend(self.columns(shape));
        Value::Object(status)
    }

    /// What `kubectl get` shows of it.
    fn columns(&self, shape: Shape) -> impl Iterator<Item = (String, Value)> {
        let columns = columns(shape, &self.entries).into_iter();
        columns.map(|(name, text)| (name.to_owned(), Value::String(text)))
    }
}

impl Entry {
    fn since(&self, wanted: &Condition) -> Option<&str> {
        let said =
            self.conditions.iter().find(|said| said.condition.condition_type == wanted.condition_type)?;
        said.last_transition_time.as_deref().filter(|_| said.condition.status == wanted.status)
    }
}

/// The types of condition that are ours: what others say beside them is theirs, and no reason to write.
const TYPES: [&str; 4] = ["Accepted", "ResolvedRefs", "PartiallyInvalid", "Programmed"];

/// Those that can be read.
fn conditions(entry: &Value) -> Vec<DatedCondition> {
    let conditions = entry["conditions"].as_array().into_iter().flatten();
    let read = conditions.filter_map(|condition| DatedCondition::deserialize(condition).ok());
    read.filter(|said| TYPES.contains(&&*said.condition.condition_type)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Truth;
    use super::*;

    fn status() -> Value {
        json!({ "parents": [
            {
                "parentRef": { "name": "theirs" }, "controllerName": "example.com/gateway",
                "conditions": [{ "type": "Accepted", "status": "True", "reason": "A", "message": "" }],
                "more": [1, null, 0.5],
            },
            {
                "parentRef": { "kind": "Service", "name": "cart" }, "controllerName": CONTROLLER_NAME,
                "conditions": [{
                    "type": "Accepted", "status": "True", "reason": "Accepted", "message": "accepted",
                    "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        ] })
    }

    #[test]
    fn what_others_wrote_stays_as_it_is() {
        let (ours, foreign) = Ours::read(Shape::Parents, &status());
        assert_eq!(foreign, [status()["parents"][0].clone()]);
        assert_eq!(ours.to_json(Shape::Parents, &foreign), status());
        let gone = Ours::default().to_json(Shape::Parents, &foreign);
        assert_eq!(gone, json!({ "parents": [status()["parents"][0]] }));
    }

    #[test]
    fn a_condition_that_others_say_of_a_split_is_none_of_ours() {
        let said = |name: &str| json!({ "type": name, "status": "True", "reason": "A", "message": "" });
        let status = json!({ "conditions": [said("Healthy"), said("Accepted")] });
        let (ours, _) = Ours::read(Shape::Split, &status);
        assert_eq!(ours, Ours::read(Shape::Split, &json!({ "conditions": [said("Accepted")] })).0);
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_is_another() {
        let (stands, _) = Ours::read(Shape::Parents, &status());
        let mut wanted = stands.clone().without_times();
        let time = |ours: Ours| ours.entries[0].conditions[0].last_transition_time.clone().unwrap();
        wanted.entries[0].conditions[0].condition.message = "other".to_owned();
        assert_eq!(time(wanted.clone().at("now", &stands)), "2026-01-01T00:00:00Z");
        wanted.entries[0].conditions[0].condition.status = Truth::False;
        assert_eq!(time(wanted.at("now", &stands)), "now");
    }
}
