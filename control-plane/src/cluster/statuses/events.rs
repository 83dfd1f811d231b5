//! Events (events.k8s.io) for what a person must see: an object is not accepted, refers to what is not there, is
//! partly invalid, or is refused by a proxy; and that it is mended. Once for each change.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::time::timeout;
use tracing::debug;

use super::plan::Order;
use crate::status::{Condition, Ours, Truth, without_count};

/// Characters of a note that the API server takes.
const NOTE_MAX: usize = 1_000;
/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    is_warning: bool,
    /// That of the condition.
    reason: String,
    /// What was tried: the condition's type.
    action: String,
    note: String,
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Announcement { is_warning, reason, note, .. } = self;
        write!(f, "{} {reason} {note}", if *is_warning { "Warning" } else { "Normal" })
    }
}

/// What was told and is not mended yet: a condition at a parent.
pub(super) type Trouble = (String, String);

/// What is to be told of a status that becomes `wanted` where that one stands.
pub(super) fn of(stands: &Ours, wanted: &Ours, troubles: &mut BTreeSet<Trouble>) -> Vec<Announcement> {
    let mut announcements = Vec::new();
    for entry in &wanted.entries {
        let former = stands.entries.iter().find(|former| former.reference == entry.reference);
        let place = entry.reference["name"].as_str().unwrap_or_default();
        let reference = entry.reference.to_string();
        // What another leader told.
        let told = former.into_iter().flat_map(|former| &former.conditions).map(|said| &said.condition);
        troubles.extend(
            told.filter(|told| is_trouble(told))
                .map(|told| (reference.clone(), told.condition_type.to_string())),
        );
        for said in &entry.conditions {
            let condition = &said.condition;
            let conditions = former.into_iter().flat_map(|former| &former.conditions);
            let mut former = conditions.map(|former| &former.condition);
            let former = former.find(|former| former.condition_type == condition.condition_type);
            let trouble = (reference.clone(), condition.condition_type.to_string());
            if is_trouble(condition) {
                troubles.insert(trouble);
                if former.is_none_or(|former| is_another(former, condition)) {
                    announcements.push(Announcement::new(true, condition, place));
                }
            } else if condition.status == Truth::True && troubles.remove(&trouble) {
                announcements.push(Announcement::new(false, condition, place));
            }
        }
        // Where all is valid, nothing says so but `Accepted`.
        let of_type =
            |name| entry.conditions.iter().map(|said| &said.condition).find(|one| one.condition_type == name);
        let accepted = of_type("Accepted").filter(|accepted| accepted.status == Truth::True);
        if let Some(accepted) = accepted.filter(|_| of_type(PARTIALLY_INVALID).is_none())
            && troubles.remove(&(reference, PARTIALLY_INVALID.to_owned()))
        {
            announcements.push(Announcement::new(false, accepted, place));
        }
    }
    announcements
}

const PARTIALLY_INVALID: &str = "PartiallyInvalid";

fn is_trouble(condition: &Condition) -> bool {
    match &*condition.condition_type {
        "Accepted" | "ResolvedRefs" => condition.status == Truth::False,
        PARTIALLY_INVALID => condition.status == Truth::True,
        "Programmed" => matches!(&*condition.reason, "PartiallyProgrammed" | "Overridden"),
        _ => false,
    }
}

fn is_another(former: &Condition, condition: &Condition) -> bool {
    former.reason != condition.reason
        || former.status != condition.status
        || without_count(&former.message) != without_count(&condition.message)
}

impl Announcement {
    fn new(is_warning: bool, condition: &Condition, place: &str) -> Announcement {
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        let mut note = format!("{place}{}", condition.message);
        if let Some((end, _)) = note.char_indices().nth(NOTE_MAX) {
            note.truncate(end);
            note.push('…');
        }
        Announcement {
            is_warning,
            reason: condition.reason.to_string(),
            action: condition.condition_type.to_string(),
            note,
        }
    }
}

/// Tells it; whether the API server took it.
pub(super) async fn publish(
    recorder: &Recorder,
    announcement: &Announcement,
    order: &Order,
    resource_version: &str,
) -> bool {
    let Announcement { is_warning, reason, action, note } = announcement.clone();
    let event = Event {
        type_: if is_warning { EventType::Warning } else { EventType::Normal },
        reason,
        note: Some(note),
        action,
        secondary: None,
    };
    let (key, stands) = (&order.key, &order.stands);
    let object = ObjectReference {
        api_version: Some(stands.api_version.clone()),
        kind: Some(key.kind.as_str().to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(stands.uid.clone()),
        // With it each is an event of its own: the recorder would count a like one, and keep the former's note.
        resource_version: Some(resource_version.to_owned()),
        field_path: None,
    };
    match timeout(TIMEOUT, recorder.publish(&event, &object)).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => debug!(object = %key, %error, "an event was not taken"),
        Err(_) => debug!(object = %key, "an event was not taken in time"),
    }
    false
}
