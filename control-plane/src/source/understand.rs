//! A value (of a file, or of the API server) into an object, or into the fields that are wrong with it.

mod closed; // what is left of an AuthorizationPolicy that is not understood

use std::sync::Arc;

use gauze_model::Code;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::world::{Object, ObjectKind};

/// What is wrong with a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: Code,
    /// As in `spec.rules[0].name`; empty, if it is the object as a whole.
    pub path: String,
    pub message: String,
}

/// The object, if it can be used, and all that is wrong with it.
pub(super) fn understand(kind: ObjectKind, given: Value) -> (Option<Object>, Vec<Fault>) {
    let object = match parse(kind, given.clone()) {
        Ok(object) => object,
        Err(fault) if kind == ObjectKind::AuthorizationPolicy => {
            return (closed::of_unreadable(&given, &fault), vec![fault]);
        }
        Err(fault) => return (None, vec![fault]),
    };
    let mut unknown = Vec::new();
    unknown_fields(&given, &object.to_json(), "", &mut unknown);
    let faults = unknown.into_iter().map(|path| {
        let message = format!("{kind} has no field `{path}`; correct or remove it");
        Fault { code: Code::UNKNOWN_FIELD, path, message }
    });
    let faults: Vec<Fault> = faults.collect();
    if let Object::AuthorizationPolicy(policy) = object {
        return (Some(closed::if_not_understood(policy, &faults)), faults);
    }
    // Of our own kinds, a field that has no effect must not look as if it had one.
    let usable = faults.is_empty() || kind != ObjectKind::TrafficPolicy;
    (usable.then_some(object), faults)
}

/// The object, whatever else stands in the value.
pub(super) fn parse(kind: ObjectKind, value: Value) -> Result<Object, Fault> {
    Ok(match kind {
        ObjectKind::Namespace => Object::Namespace(typed(value)?),
        ObjectKind::ServiceAccount => Object::ServiceAccount(typed(value)?),
        ObjectKind::Pod => Object::Pod(typed(value)?),
        ObjectKind::Service => Object::Service(typed(value)?),
        ObjectKind::EndpointSlice => Object::EndpointSlice(typed(value)?),
        ObjectKind::HttpRoute => Object::HttpRoute(typed(value)?),
        ObjectKind::GrpcRoute => Object::GrpcRoute(typed(value)?),
        ObjectKind::TlsRoute => Object::TlsRoute(typed(value)?),
        ObjectKind::TrafficSplit => Object::TrafficSplit(typed(value)?),
        ObjectKind::HttpRouteGroup => Object::HttpRouteGroup(typed(value)?),
        ObjectKind::TrafficPolicy => Object::TrafficPolicy(typed(value)?),
        ObjectKind::AuthorizationPolicy => Object::AuthorizationPolicy(typed(value)?),
    })
}

/// The object, or the path of the first field that does not fit and why.
fn typed<T: DeserializeOwned>(value: Value) -> Result<Arc<T>, Fault> {
    serde_path_to_error::deserialize(value).map(Arc::new).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        Fault { code: code_of(&message), path: if path == "." { String::new() } else { path }, message }
    })
}

/// serde says in words what went wrong.
fn code_of(message: &str) -> Code {
    if message.starts_with("missing field") {
        Code::MISSING_FIELD
    } else if message.starts_with("invalid type") {
        Code::WRONG_TYPE
    } else {
        Code::INVALID_VALUE
    }
}

/// The fields that were given and were not understood: those that do not come back.
fn unknown_fields(given: &Value, understood: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (name, value) in given {
                let path = join(path, name);
                match understood.get(name) {
                    Some(understood) => unknown_fields(value, understood, &path, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (index, (given, understood)) in given.iter().zip(understood).enumerate() {
                unknown_fields(given, understood, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What may be left out when an object is written.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
