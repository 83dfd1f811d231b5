//! Waits until every proxy that uses a split holds what was written: by the control plane's word, or, for who may not
//! ask it, by the status of the split.

use std::fmt;
use std::time::{Duration, Instant};

use gauze_control_plane::world::{Object, ObjectKey, ObjectKind};
use serde_json::Value;

use super::{Written, cluster, edit, text};
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::source::Source;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is said of a split: of the version that was written, or a younger one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Every proxy that uses it holds it, so many; or nobody uses it yet.
    Live(String),
    /// Some do not yet.
    Underway(String),
    /// A route decides in its place.
    Overridden(String),
    /// It is not accepted, or a proxy refuses it: time does not mend that.
    Refused(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Live(count) | Standing::Underway(count) => f.write_str(count),
            Standing::Overridden(_) => f.write_str("Overridden"),
            Standing::Refused(_) => f.write_str("refused"),
        }
    }
}

impl Standing {
    /// By the status that stands in the object itself, if it is about this version of it.
    pub(super) fn of_status(split: &Value) -> Option<Standing> {
        let generation = split["metadata"]["generation"].as_i64().unwrap_or_default();
        Standing::of(&split["status"]["conditions"], generation)
    }

    /// By conditions, if they are about this version or a younger one.
    fn of(conditions: &Value, generation: i64) -> Option<Standing> {
        let conditions = conditions.as_array()?;
        let named = |name: &str| {
            let of_type = conditions.iter().find(|condition| condition["type"] == name)?;
            (of_type["observedGeneration"].as_i64().unwrap_or_default() >= generation).then_some(of_type)
        };
        let message = |condition: &Value| text(&condition["message"]);
        if let Some(accepted) = named("Accepted").filter(|accepted| accepted["status"] == "False") {
            return Some(Standing::Refused(message(accepted)));
        }
        let programmed = named("Programmed")?;
        let said = message(programmed);
        Some(match (programmed["status"].as_str(), programmed["reason"].as_str()) {
            (Some("True"), _) => Standing::Live(said),
            (_, Some("Overridden")) => Standing::Overridden(said),
            (_, Some("PartiallyProgrammed")) => Standing::Refused(said),
            _ => Standing::Underway(said),
        })
    }

    /// Why a split has no effect, if a route decides in its place.
    pub(super) fn overridden(self) -> Option<String> {
        match self {
            Standing::Overridden(reason) => Some(reason),
            Standing::Live(_) | Standing::Underway(_) | Standing::Refused(_) => None,
        }
    }
}

/// Who says how far it has come.
enum Witness<'s> {
    /// The control plane, which counts each second.
    ControlPlane(&'s Source),
    /// The status of the split: who may change a split may not always ask the control plane.
    Status(&'s Cluster),
}

/// Prints how many proxies hold it, whenever that changes.
///
/// # Errors
/// It is not live in time, or nobody can be asked.
pub(super) async fn until_live(
    source: &Source,
    written: &Written,
    patience: Duration,
) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let mut witness = Witness::ControlPlane(source);
    let mut said = String::new();
    loop {
        let standing = look(&mut witness, written).await?;
        let line = describe(written, standing.as_ref());
        if line != said {
            println!("{line}");
            said = line;
        }
        match standing {
            Some(Standing::Live(_)) => return Ok(Exit::Fine),
            Some(Standing::Overridden(_) | Standing::Refused(_)) => return Ok(Exit::Problems),
            Some(Standing::Underway(_)) | None => {}
        }
        if began.elapsed() > patience {
            let (seconds, name) = (patience.as_secs(), &written.name);
            let text = format!("not live everywhere after {seconds} s; `gauze get split {name}` says more");
            return Err(Failure::TimedOut(text).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn describe(written: &Written, standing: Option<&Standing>) -> String {
    let Written { namespace, name, .. } = written;
    let said = match standing {
        None => "the control plane has not seen it yet".to_owned(),
        Some(Standing::Live(count)) if count.starts_with("0/0") => {
            "live; no proxy uses it yet (0/0)".to_owned()
        }
        Some(Standing::Live(count)) => format!("live, {count}"),
        Some(Standing::Underway(count)) => count.clone(),
        Some(Standing::Overridden(reason)) => format!("has no effect: {reason}"),
        Some(Standing::Refused(reason)) => format!("refused: {reason}"),
    };
    format!("{namespace}/{name}: {said}")
}

/// What is said of the version that was written; none, while that one is not known.
async fn look(witness: &mut Witness<'_>, written: &Written) -> anyhow::Result<Option<Standing>> {
    let source = match witness {
        Witness::Status(cluster) => return Ok(Standing::of_status(&cluster::read(cluster, written).await?)),
        Witness::ControlPlane(source) => *source,
    };
    match (source.objects().await, source) {
        (Ok(seen), Source::Directory(_)) if !seen.live => {
            let text = "no control plane runs here, so nothing becomes live; start one, or leave --wait out";
            Err(Failure::Unreachable(text.to_owned()).into())
        }
        // Files have no generation: what was written is known by its weights.
        (Ok(_), Source::Directory(_)) if !is_known(source, written).await? => Ok(None),
        (Ok(seen), _) => Ok(in_objects(&seen.objects, written)),
        (Err(error), Source::Directory(_)) => Err(error),
        (Err(error), Source::Cluster(cluster)) => {
            eprintln!("{error:#}\nwaiting for the status of the split instead");
            *witness = Witness::Status(cluster);
            Ok(None)
        }
    }
}

/// Whether the control plane has read the weights that were written.
async fn is_known(source: &Source, written: &Written) -> anyhow::Result<bool> {
    let world = source.world().await?;
    let key = ObjectKey::new(ObjectKind::TrafficSplit, &written.namespace, &written.name);
    let known = world.object(&key).map(Object::to_json).unwrap_or_default();
    Ok(is_same(edit::backends_of(&known), written.backends.as_array().map_or(&[], Vec::as_slice)))
}

/// Whether these are the backends, as far as their weights are numbers: a quantity may be written in many ways.
fn is_same(known: &[Value], wanted: &[Value]) -> bool {
    known.len() == wanted.len()
        && known.iter().zip(wanted).all(|(known, wanted)| {
            known["service"] == wanted["service"]
                && (!wanted["weight"].is_number() || known["weight"] == wanted["weight"])
        })
}

/// What `GET /objects` of a control plane says of it.
fn in_objects(objects: &Value, written: &Written) -> Option<Standing> {
    let is_it = |object: &&Value| {
        object["kind"] == "TrafficSplit"
            && object["namespace"] == written.namespace.as_str()
            && object["name"] == written.name.as_str()
    };
    let object = objects["objects"].as_array()?.iter().find(is_it)?;
    let parent = object["parents"].as_array()?.first()?;
    Standing::of(&parent["conditions"], written.generation.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_known_by_the_weights_that_were_written() {
        let known =
            [json!({ "service": "cart-v1", "weight": 50 }), json!({ "service": "cart-v2", "weight": 0.5 })];
        for (what, first, second, expected) in [
            ("the same", json!(50), json!(0.5), true),
            ("another weight", json!(51), json!(0.5), false),
            ("a quantity, which may be the same", json!(50), json!("500m"), true),
        ] {
            let wanted = [
                json!({ "service": "cart-v1", "weight": first }),
                json!({ "service": "cart-v2", "weight": second }),
            ];
            assert_eq!(is_same(&known, &wanted), expected, "{what}");
        }
        assert!(!is_same(&known, &known[..1]));
    }

    fn condition(name: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({ "type": name, "status": status, "reason": reason, "message": message, "observedGeneration": 2 })
    }

    #[test]
    fn only_what_is_said_of_the_version_that_was_written_counts() {
        let accepted = || condition("Accepted", "True", "Accepted", "accepted");
        let programmed =
            |status, reason, message| json!([accepted(), condition("Programmed", status, reason, message)]);
        let live = |count: &str| Some(Standing::Live(count.to_owned()));
        for (what, conditions, generation, expected) in [
            ("all hold it", programmed("True", "Programmed", "3/3"), 2, live("3/3")),
            ("an earlier version is live", programmed("True", "Programmed", "3/3"), 3, None),
            ("a younger one is", programmed("True", "Programmed", "3/3"), 1, live("3/3")),
            ("nobody uses it", programmed("True", "NotUsedYet", "0/0"), 2, live("0/0")),
            (
                "some hold it",
                programmed("False", "Reconciling", "1/3"),
                2,
                Some(Standing::Underway("1/3".to_owned())),
            ),
            (
                "a replica is silent",
                programmed("Unknown", "ReplicaUnreachable", "1/3 without"),
                2,
                Some(Standing::Underway("1/3 without".to_owned())),
            ),
            (
                "a proxy refuses it",
                programmed("False", "PartiallyProgrammed", "2/3; shop/web refused it"),
                2,
                Some(Standing::Refused("2/3; shop/web refused it".to_owned())),
            ),
            (
                "a route decides",
                programmed("False", "Overridden", "an HTTPRoute"),
                2,
                Some(Standing::Overridden("an HTTPRoute".to_owned())),
            ),
            (
                "it is not accepted",
                json!([condition("Accepted", "False", "Conflicted", "another is older")]),
                2,
                Some(Standing::Refused("another is older".to_owned())),
            ),
            ("nothing is said", Value::Null, 2, None),
        ] {
            assert_eq!(Standing::of(&conditions, generation), expected, "{what}");
            let written = Written {
                namespace: "shop".into(),
                name: "cart".into(),
                generation: Some(generation),
                backends: Value::Null,
            };
            let objects = json!({ "objects": [
                { "kind": "TrafficSplit", "namespace": "shop", "name": "cart", "parents": [{ "conditions": conditions }] },
            ]});
            assert_eq!(in_objects(&objects, &written), expected, "{what}");
        }
    }
}
