//! A broken object says in its own status what is wrong and where, and everything else keeps updating.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Seen, Stage};
use super::written::Written;
use crate::demo::wait;

pub(super) const PROMISE: &str = "a bad object says what and where; everything else keeps updating";

pub(super) const FILE: &str = "typo-split.yaml";
const OBJECT: &str = "\
# Written by `gauze demo --story`: the Service cart-v3 was forgotten.
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata:
  name: typo
  namespace: shop
spec:
  service: cart-v2
  backends:
    - service: cart-v2
      weight: 90
    - service: cart-v3
      weight: 10
";
/// The field of the user's YAML that is wrong.
const PLACE: &str = "spec.backends[1]";

const LIVE_AFTER: Duration = Duration::from_secs(1);
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
const REQUESTS: u64 = 1_500;
const WANTED: f64 = 30.0;
const TOLERANCE: f64 = 5.0;

/// Adds the object, waits for its status, and moves another split meanwhile.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    stage.begin("bad object");
    let _file = Written::new(stage.mesh.directory.join(FILE), OBJECT)?;
    watch(stage).await
}

async fn watch(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    let admin = stage.mesh.admin();
    let status = wait::until("the status of the bad object", STATUS_TIMEOUT, async || {
        let objects = admin.get_json("/objects").await.map_err(|error| format!("{error:#}"))?;
        complaint(&objects).ok_or_else(|| "it has none that says where".to_owned())
    });
    let status = status.await?;
    stage.set_split(70, 30)?;
    stage.pass(LIVE_AFTER).await?;
    let share = stage.share_of("elsewhere", REQUESTS).await?;
    Ok(Seen {
        ok: share.is_near(WANTED, TOLERANCE) && status.contains("cart-v3"),
        wanted: json!({ "status": format!("{PLACE} … cart-v3"), "v2_percent": WANTED }),
        seen: json!({ "status": status, "v2_percent": share.percent() }),
    })
}

/// The text, anywhere in what is said about the object, that names the field.
fn complaint(objects: &Value) -> Option<String> {
    texts(about(objects)?).into_iter().find(|text| text.contains(PLACE)).map(str::to_owned)
}

/// What is said about the split `typo`, wherever it stands.
fn about(value: &Value) -> Option<&Value> {
    match value {
        Value::Array(items) => items.iter().find_map(about),
        Value::Object(fields) => {
            let names = |value: &Value| value["name"] == "typo" && value["kind"] != "Service";
            let is_it = names(value) || names(&value["object"]) || names(&value["metadata"]);
            if is_it { Some(value) } else { fields.values().find_map(about) }
        }
        _ => None,
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_the_object_itself_that_names_the_field_counts() {
        let said = |name: &str, message: &str| json!([{ "object": { "kind": "TrafficSplit", "name": name }, "conditions": [{ "message": message }] }]);
        let message = "spec.backends[1].service: there is no Service cart-v3";
        assert_eq!(complaint(&said("typo", message)).as_deref(), Some(message));
        assert_eq!(complaint(&said("cart", message)), None);
        assert_eq!(complaint(&said("typo", "something is wrong")), None);
    }
}
