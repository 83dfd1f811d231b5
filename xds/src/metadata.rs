//! What gauze says in Envoy's metadata, under the key `gauze`.
//!
//! A map that is written here has one entry, and what has several parts is a list: protobuf gives maps no
//! order, and the same resource must be the same bytes on every replica.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use gauze_model::Origin;

use crate::path::{At as _, Fault, Read, required};

/// The key of our metadata.
const GAUZE: &str = "gauze";

/// `{namespace: {key: value}}`.
pub(crate) fn one_fact(namespace: &str, key: &str, value: Value) -> Metadata {
    let facts = Struct { fields: HashMap::from([(key.to_owned(), value)]) };
    Metadata {
        filter_metadata: HashMap::from([(namespace.to_owned(), facts)]),
        typed_filter_metadata: HashMap::new(),
    }
}

/// The value of `{namespace: {key: value}}`, if there is metadata.
///
/// # Errors
/// There is anything else in it.
pub(crate) fn read_fact(metadata: Option<Metadata>, namespace: &str, key: &str) -> Read<Option<Value>> {
    let Some(Metadata { filter_metadata, typed_filter_metadata }) = metadata else {
        return Ok(None);
    };
    if let Some(other) = typed_filter_metadata.keys().min() {
        return Err(Fault::unsupported(&format!("typed_filter_metadata[\"{other}\"]")));
    }
    let facts = only(filter_metadata, namespace).at("filter_metadata")?;
    let Some(Struct { fields }) = facts else { return Ok(None) };
    only(fields, key).at(&format!("filter_metadata[\"{namespace}\"]"))
}

/// The entry under `key` of a map that may have no other.
fn only<T>(mut map: HashMap<String, T>, key: &str) -> Read<Option<T>> {
    let value = map.remove(key);
    match map.into_keys().min() {
        Some(other) => Err(Fault::unsupported(&format!("[\"{other}\"]"))),
        None => Ok(value),
    }
}

/// `{"gauze": {key: value}}`.
pub(crate) fn gauze_fact(key: &str, value: Value) -> Metadata {
    one_fact(GAUZE, key, value)
}

/// The value of `{"gauze": {key: value}}`.
pub(crate) fn read_gauze_fact(metadata: Option<Metadata>, key: &str) -> Read<Option<Value>> {
    read_fact(metadata, GAUZE, key)
}

// An origin: [kind, namespace, name, uid, generation, path].

pub(crate) fn origin_metadata(origin: &Origin) -> Metadata {
    gauze_fact("origin", Value { kind: Some(ValueKind::ListValue(origin_to_list(origin))) })
}

/// The origin in a message's metadata; the default one where another server sends none.
pub(crate) fn read_origin(metadata: Option<Metadata>) -> Read<Origin> {
    match read_gauze_fact(metadata, "origin")? {
        Some(value) => strings_of(value).and_then(origin_of).at("filter_metadata[\"gauze\"].origin"),
        None => Ok(Origin::default()),
    }
}

pub(crate) fn origin_to_list(origin: &Origin) -> ListValue {
    let Origin { kind, namespace, name, uid, generation, path } = origin;
    list_of([kind, namespace, name, uid, &generation.to_string(), path])
}

pub(crate) fn origin_from_list(list: ListValue) -> Read<Origin> {
    origin_of(strings_in(list)?)
}

fn origin_of(parts: Vec<String>) -> Read<Origin> {
    let [kind, namespace, name, uid, generation, path] = exactly(parts)?;
    let generation = generation.parse().map_err(|_| Fault::new("the generation is not a number").item(4))?;
    Ok(Origin { kind, namespace, name, uid, generation, path })
}

// Strings and lists of strings.

pub(crate) fn string(text: impl Into<String>) -> Value {
    Value { kind: Some(ValueKind::StringValue(text.into())) }
}

pub(crate) fn strings<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> Value {
    Value { kind: Some(ValueKind::ListValue(list_of(parts))) }
}

pub(crate) fn string_of(value: Value) -> Read<String> {
    match required(value.kind)? {
        ValueKind::StringValue(text) => Ok(text),
        _ => Err(Fault::new("not a string")),
    }
}

pub(crate) fn strings_of(value: Value) -> Read<Vec<String>> {
    match required(value.kind)? {
        ValueKind::ListValue(list) => strings_in(list),
        _ => Err(Fault::new("not a list")),
    }
}

/// The parts of a list of fixed length.
pub(crate) fn exactly<const N: usize>(parts: Vec<String>) -> Read<[String; N]> {
    let found = parts.len();
    parts.try_into().map_err(|_| Fault::new(format!("{found} parts where {N} are expected")))
}

fn list_of<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> ListValue {
    ListValue { values: parts.into_iter().map(|part| string(part.as_ref())).collect() }
}

fn strings_in(ListValue { values }: ListValue) -> Read<Vec<String>> {
    crate::path::each(values, string_of)
}
