//! What the API server gives into what we keep of it: no more than is used, since a cluster has many pods. A pod
//! takes about 10 KiB with its share of the indexes (measured), of which 7.5 KiB are fields of Kubernetes' own type.

use gauze_model::{Code, Origin};
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::super::understand::{Fault, parse, understand};
use super::standing::Stands;
use super::watched::Watched;
use crate::problem::Problem;
use crate::status::{Ours, Shape};
use crate::world::{Object, ObjectKind};

/// What came of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    pub(super) namespace: String,
    pub(super) name: String,
    /// None, if it cannot be used.
    pub(super) item: Option<Item>,
    pub(super) problems: Vec<Problem>,
    /// Of kinds whose status we write: what stands there.
    pub(super) stands: Option<Box<Stands>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Object(Object),
    /// Of a Node or ServiceCIDR.
    Networks(Vec<IpNet>),
}

/// Reads an object of a kind.
pub(super) fn read(watched: Watched, mut given: Value) -> Read {
    let text = |path: &str| given.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let origin = Origin {
        kind: watched.to_string(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        uid: text("/metadata/uid"),
        generation: given.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default(),
        path: String::new(),
    };
    let mut stands = stands(watched, &mut given);
    let references = references(&given);
    trim(watched, &mut given);
    let (item, faults) = match watched {
        Watched::Object(kind) => {
            let (object, faults) = understood(kind, given);
            (object.map(Item::Object), faults)
        }
        Watched::Node => networks(&given, "/spec/podCIDRs"),
        Watched::ServiceCidr => networks(&given, "/spec/cidrs"),
    };
    let problems =
        faults.into_iter().map(|Fault { code, path, message }| Problem::new(code, origin.at(path), message));
    if let Some(stands) = stands.as_mut().filter(|_| item.is_none()) {
        stands.references = references;
    }
    Read { problems: problems.collect(), namespace: origin.namespace, name: origin.name, item, stands }
}

/// The status that stands there, of kinds whose status we write.
fn stands(watched: Watched, given: &mut Value) -> Option<Box<Stands>> {
    let Watched::Object(kind) = watched else { return None };
    let shape = Shape::of(kind)?;
    let status = given.get_mut("status").map(Value::take).unwrap_or_default();
    let (ours, foreign) = Ours::read(shape, &status);
    let text = |path: &str| given.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Box::new(Stands {
        api_version: text("/apiVersion"),
        uid: text("/metadata/uid"),
        resource_version: text("/metadata/resourceVersion"),
        ours,
        foreign,
        references: Vec::new(),
    }))
}

/// What an object says that it is attached to, whatever else stands in it.
fn references(given: &Value) -> Vec<Value> {
    let lists = ["/spec/parentRefs", "/spec/targetRefs"].into_iter().filter_map(|path| given.pointer(path));
    let references = lists.filter_map(Value::as_array).flatten();
    let of_service = |reference: &&Value| {
        let group = reference["group"].as_str();
        reference["kind"] == "Service" && matches!(group, None | Some("" | "core"))
    };
    references.filter(of_service).cloned().collect()
}

/// Of Kubernetes' own kinds, what we do not know belongs to a newer release, and is no slip of the pen.
fn understood(kind: ObjectKind, given: Value) -> (Option<Object>, Vec<Fault>) {
    if kind.is_custom() {
        return understand(kind, given);
    }
    match parse(kind, given) {
        Ok(object) => (Some(object), Vec::new()),
        Err(fault) => (None, vec![fault]),
    }
}

fn networks(given: &Value, path: &str) -> (Option<Item>, Vec<Fault>) {
    let texts = given.pointer(path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut faults = Vec::new();
    let networks = texts.filter_map(|text| {
        text.parse::<IpNet>()
            .inspect_err(|_| {
                let path = path.trim_start_matches('/').replace('/', ".");
                let message = format!("`{text}` is no network; write one as in 10.244.0.0/24");
                faults.push(Fault { code: Code::INVALID_VALUE, path, message });
            })
            .ok()
    });
    let networks = networks.collect();
    (Some(Item::Networks(networks)), faults)
}

/// The annotations that we read.
const OUR_ANNOTATIONS: &str = "gauze.dev/";

/// Drops what nobody reads.
fn trim(watched: Watched, given: &mut Value) {
    let Some(object) = given.as_object_mut() else { return };
    if let Some(metadata) = object.get_mut("metadata") {
        keep(
            metadata,
            &["name", "namespace", "uid", "generation", "labels", "annotations", "creationTimestamp"],
        );
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.retain(|key, _| key.starts_with(OUR_ANNOTATIONS));
        }
    }
    match watched {
        Watched::Object(ObjectKind::Pod) => trim_pod(object),
        Watched::Object(ObjectKind::Namespace) => keep_fields(object, &["metadata"]),
        Watched::Object(ObjectKind::Service) => {
            keep_fields(object, &["metadata", "spec"]);
        }
        Watched::Object(ObjectKind::EndpointSlice) => {
            each(object.get_mut("endpoints"), |endpoint| {
                keep(endpoint, &["addresses", "conditions", "targetRef"]);
                each_field(endpoint, "targetRef", |target| keep(target, &["kind", "namespace", "name"]));
            });
        }
        Watched::Node | Watched::ServiceCidr => keep_fields(object, &["metadata", "spec"]),
        // Users read them back in `gauze get`. What stands in their status is no part of the world.
        Watched::Object(_) => {
            object.remove("status");
        }
    }
}

fn trim_pod(pod: &mut Map<String, Value>) {
    keep_fields(pod, &["metadata", "spec", "status"]);
    if let Some(spec) = pod.get_mut("spec") {
        keep(spec, &["serviceAccountName", "hostNetwork", "nodeName", "containers", "initContainers"]);
        each_field(spec, "containers", |containers| {
            each(Some(containers), |container| keep(container, &["name", "ports"]));
        });
        each_field(spec, "initContainers", |containers| {
            if let Value::Array(containers) = containers {
                // An ordinary one has ended before anybody talks to the pod.
                containers.retain(|container| container["restartPolicy"] == "Always");
            }
            each(Some(containers), |container| {
                keep(container, &["name", "image", "args", "ports", "restartPolicy"]);
            });
        });
    }
    each_field_of(pod, "status", |status| {
        keep(status, &["phase", "podIP", "podIPs"]);
    });
}

fn keep(value: &mut Value, fields: &[&str]) {
    if let Value::Object(object) = value {
        keep_fields(object, fields);
    }
}

fn keep_fields(object: &mut Map<String, Value>, fields: &[&str]) {
    object.retain(|field, _| fields.contains(&field.as_str()));
}

fn each(list: Option<&mut Value>, change: impl FnMut(&mut Value)) {
    if let Some(Value::Array(items)) = list {
        items.iter_mut().for_each(change);
    }
}

fn each_field(value: &mut Value, field: &str, change: impl FnMut(&mut Value)) {
    value.get_mut(field).into_iter().for_each(change);
}

fn each_field_of(object: &mut Map<String, Value>, field: &str, change: impl FnMut(&mut Value)) {
    object.get_mut(field).into_iter().for_each(change);
}

#[cfg(test)]
mod tests;
