//! Whether a change is live, by what the object's status says of its newest generation.

use serde_json::Value;

use super::stage::Stage;
use crate::harness::eventually::{eventually, holds};

/// Waits until the status of a split says that its newest generation is in every proxy that uses it.
pub(super) async fn landed_split(stage: &Stage, name: &str) {
    eventually(&format!("{}: the split is live", stage.namespace), async || {
        let split = stage.object("trafficsplits.v1alpha4.split.smi-spec.io", name).await?;
        live(&split["status"]["conditions"], &split["metadata"]["generation"])
    })
    .await;
}

/// `Accepted` and `Programmed` are true of this generation.
fn live(conditions: &Value, generation: &Value) -> Result<(), String> {
    let is_true = |wanted: &str| {
        conditions.as_array().into_iter().flatten().any(|condition| {
            condition["type"] == wanted
                && condition["status"] == "True"
                && condition["observedGeneration"] == *generation
        })
    };
    holds(is_true("Accepted") && is_true("Programmed"), format!("generation {generation}: {conditions}"))
}

/// The same of an HTTPRoute, at its one parent, which the status must name exactly as the spec does. Returns what the
/// status says, as text.
pub(super) async fn landed_route(stage: &Stage, name: &str) -> String {
    eventually(&format!("{}: the route is live", stage.namespace), async || {
        let route = stage.object("httproutes", name).await?;
        let parents = route["status"]["parents"].as_array().into_iter().flatten();
        let ours: Vec<&Value> =
            parents.filter(|parent| parent["parentRef"] == route["spec"]["parentRefs"][0]).collect();
        let [parent] = ours[..] else { return Err(route["status"].to_string()) };
        live(&parent["conditions"], &route["metadata"]["generation"])?;
        Ok(parent.to_string())
    })
    .await
}
