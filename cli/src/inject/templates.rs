//! Where pods stand in objects: a Pod is one itself, others hold a template of the same form.

use std::collections::BTreeMap;

use gauze_control_plane::inject::{Finding, INJECT};
use gauze_model::Code;
use serde_json::Value;

/// A pod, or a template of pods, in its object.
pub(super) struct Found<'o> {
    pub(super) kind: String,
    pub(super) name: String,
    /// Where the object names none: the reader's default.
    pub(super) namespace: Option<String>,
    /// The object itself says `gauze.dev/inject`, where nobody looks.
    pub(super) misplaced: Option<Finding>,
    pub(super) pod: &'o mut Value,
}

/// All pods of an object; a List has those of its items.
pub(super) fn find(object: &mut Value) -> Vec<Found<'_>> {
    let kind = text(object, "/kind").unwrap_or_default();
    if kind.ends_with("List") {
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        return items.into_iter().flatten().flat_map(find).collect();
    }
    let path = match kind.as_str() {
        "Pod" => "",
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job"
        | "Rollout" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "PodTemplate" => "/template",
        _ => return Vec::new(),
    };
    let name = text(object, "/metadata/name").or_else(|| text(object, "/metadata/generateName"));
    let namespace = text(object, "/metadata/namespace");
    let misplaced = misplaced(object, path);
    let Some(pod) = object.pointer_mut(path).filter(|pod| pod["spec"].is_object()) else { return Vec::new() };
    vec![Found { kind, name: name.unwrap_or_default(), namespace, misplaced, pod }]
}

fn misplaced(object: &Value, path: &str) -> Option<Finding> {
    let metadata = object.get("metadata").filter(|_| !path.is_empty())?;
    let field = ["labels", "annotations"].into_iter().find(|field| !metadata[*field][INJECT].is_null())?;
    let right = path[1..].replace('/', ".");
    let message = format!(
        "metadata.{field}: {INJECT} has no effect there; write it into {right}.metadata.{field}, which becomes the pod's"
    );
    Some(Finding::new(Code::INJECT_MISPLACED, message))
}

/// The namespaces that are defined among these objects, with their label `gauze.dev/inject`.
pub(super) fn namespaces(objects: &[Value]) -> BTreeMap<String, Option<String>> {
    let nested = objects.iter().flat_map(|object| object["items"].as_array().into_iter().flatten());
    let namespaces = objects.iter().chain(nested).filter(|object| object["kind"] == "Namespace");
    let named = namespaces.filter_map(|namespace| {
        let label = namespace["metadata"]["labels"][INJECT].as_str().map(str::to_owned);
        Some((text(namespace, "/metadata/name")?, label))
    });
    named.collect()
}

fn text(object: &Value, path: &str) -> Option<String> {
    object.pointer(path)?.as_str().map(str::to_owned)
}
