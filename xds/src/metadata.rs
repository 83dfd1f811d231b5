//! What gauze says in Envoy's metadata: `filter_metadata["gauze"] = {"facts": [{"origin": […]}, {"protocol": "http"}]}`.
//!
//! A list of objects with one field each, not one object: protobuf gives maps no order, and the same resource
//! must be the same bytes on every replica. So no map that is written here has more than one entry.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use gauze_model::Origin;

use crate::path::{At as _, Fault, Read, each, required};

/// The key of our metadata.
const GAUZE: &str = "gauze";
const FACTS: &str = "facts";

/// What a message's metadata says, in order.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(String, Value)>);

impl Facts {
    pub(crate) fn origin(origin: &Origin) -> Facts {
        Facts::default().with("origin", origin_value(origin))
    }

    pub(crate) fn with(mut self, key: &str, value: Value) -> Facts {
        self.0.push((key.to_owned(), value));
        self
    }

    pub(crate) fn into_metadata(self) -> Metadata {
        let facts = Struct { fields: HashMap::from([(FACTS.to_owned(), self.into_value())]) };
        Metadata {
            filter_metadata: HashMap::from([(GAUZE.to_owned(), facts)]),
            typed_filter_metadata: HashMap::new(),
        }
    }

    /// Facts inside a fact.
    pub(crate) fn into_value(self) -> Value {
        values(self.0.into_iter().map(|(key, value)| object(&key, value)))
    }

    /// # Errors
    /// It is not as we write it.
    pub(crate) fn from_value(value: Value) -> Read<Facts> {
        list_of(value).and_then(|facts| each(facts, read_object)).map(Facts)
    }

    /// # Errors
    /// There is metadata of others, or it is not as we write it.
    pub(crate) fn read(metadata: Option<Metadata>) -> Read<Facts> {
        let Some(Metadata { filter_metadata, typed_filter_metadata }) = metadata else {
            return Ok(Facts::default());
        };
        only(typed_filter_metadata, "").at("typed_filter_metadata")?;
        let ours = only(filter_metadata, GAUZE).at("filter_metadata")?.unwrap_or_default();
        let facts = only(ours.fields, FACTS).at("filter_metadata[\"gauze\"]")?;
        let facts = facts.map(Facts::from_value);
        facts.transpose().at("filter_metadata[\"gauze\"].facts").map(Option::unwrap_or_default)
    }

    /// Reads the fact under `key`, if it is there.
    pub(crate) fn take<T>(&mut self, key: &str, read: impl FnOnce(Value) -> Read<T>) -> Read<Option<T>> {
        let Some(index) = self.0.iter().position(|(found, _)| found == key) else { return Ok(None) };
        read(self.0.remove(index).1).at(key).map(Some)
    }

    /// The origin; the default one where another server sends none.
    pub(crate) fn take_origin(&mut self) -> Read<Origin> {
        self.take("origin", origin_of).map(Option::unwrap_or_default)
    }

    /// # Errors
    /// There is a fact that nobody took.
    pub(crate) fn end(self) -> Read<()> {
        self.0.first().map_or(Ok(()), |(key, _)| Err(Fault::unsupported(key)))
    }
}

/// Reads a message's metadata that says no more than its origin.
pub(crate) fn read_only_origin(metadata: Option<Metadata>) -> Read<Origin> {
    let mut facts = Facts::read(metadata)?;
    let origin = facts.take_origin()?;
    facts.end().map(|()| origin)
}

/// The entry under `key` of a map that may have no other.
fn only<T>(mut map: HashMap<String, T>, key: &str) -> Read<Option<T>> {
    let value = map.remove(key);
    match map.into_keys().min() {
        Some(other) => Err(Fault::unsupported(&format!("[\"{other}\"]"))),
        None => Ok(value),
    }
}

/// `{key: value}`.
fn object(key: &str, value: Value) -> Value {
    let fields = HashMap::from([(key.to_owned(), value)]);
    Value { kind: Some(ValueKind::StructValue(Struct { fields })) }
}

fn read_object(value: Value) -> Read<(String, Value)> {
    let ValueKind::StructValue(Struct { fields }) = required(value.kind)? else {
        return Err(Fault::new("not an object"));
    };
    let mut fields = fields.into_iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => Ok(field),
        _ => Err(Fault::new("not exactly one field")),
    }
}

// An origin is the list of its parts.

/// An origin as a fact of its own.
pub(crate) fn origin_value(origin: &Origin) -> Value {
    list(origin_parts(origin))
}

pub(crate) fn origin_of(value: Value) -> Read<Origin> {
    strings_of(value).and_then(read_origin)
}

/// An origin as it stands in the details of a NACK.
pub(crate) fn origin_to_list(origin: &Origin) -> ListValue {
    ListValue { values: origin_parts(origin).into_iter().map(string).collect() }
}

pub(crate) fn origin_from_list(list: ListValue) -> Read<Origin> {
    each(list.values, string_of).and_then(read_origin)
}

fn origin_parts(origin: &Origin) -> [String; 6] {
    let Origin { kind, namespace, name, uid, generation, path } = origin.clone();
    [kind, namespace, name, uid, generation.to_string(), path]
}

fn read_origin(parts: Vec<String>) -> Read<Origin> {
    let [kind, namespace, name, uid, generation, path] = exactly(parts)?;
    let generation = generation.parse().map_err(|_| Fault::new("the generation is not a number").item(4))?;
    Ok(Origin { kind, namespace, name, uid, generation, path })
}

// Strings and lists of strings.

pub(crate) fn string(text: String) -> Value {
    Value { kind: Some(ValueKind::StringValue(text)) }
}

pub(crate) fn list(parts: impl IntoIterator<Item = String>) -> Value {
    values(parts.into_iter().map(string))
}

pub(crate) fn values(of: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(ValueKind::ListValue(ListValue { values: of.into_iter().collect() })) }
}

pub(crate) fn string_of(value: Value) -> Read<String> {
    match required(value.kind)? {
        ValueKind::StringValue(text) => Ok(text),
        _ => Err(Fault::new("not a string")),
    }
}

pub(crate) fn strings_of(value: Value) -> Read<Vec<String>> {
    list_of(value).and_then(|values| each(values, string_of))
}

/// The parts of a list of fixed length.
pub(crate) fn exactly<const N: usize>(parts: Vec<String>) -> Read<[String; N]> {
    let found = parts.len();
    parts.try_into().map_err(|_| Fault::new(format!("{found} parts where {N} are expected")))
}

pub(crate) fn list_of(value: Value) -> Read<Vec<Value>> {
    match required(value.kind)? {
        ValueKind::ListValue(ListValue { values }) => Ok(values),
        _ => Err(Fault::new("not a list")),
    }
}
