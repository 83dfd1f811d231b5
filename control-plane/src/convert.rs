//! A TrafficSplit in another version of SMI, as a pure function. v1alpha4 is stored, and every conversion goes by way of
//! it: v1alpha1 has quantities where the others have whole numbers, v1alpha1 and v1alpha2 have no `matches`.
//!
//! What a version cannot hold stands in an annotation there, so a client of that version which writes the object back
//! loses nothing. The API server also sends parts of objects (when it works out who owns which field), so whatever is
//! absent stays absent. Whether a value is allowed is for the schema of the version in which it was written.

use std::str::FromStr;

use gauze_crds::traffic_split::{SplitMatch, WEIGHT_MAX, Weight};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The `matches` of an object, as JSON, in versions without this field.
pub const MATCHES: &str = "split.gauze.dev/matches";
/// The weights as a client of v1alpha1 wrote them, as a JSON list, where they are not plain (`"90"`). They hold as long
/// as the numbers of the object are those that followed from them.
pub const WEIGHTS: &str = "split.gauze.dev/weights";

/// A version of `split.smi-spec.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1alpha1,
    V1alpha2,
    V1alpha3,
    /// The one that is stored.
    V1alpha4,
}

impl Version {
    pub const ALL: [Version; 4] =
        [Version::V1alpha1, Version::V1alpha2, Version::V1alpha3, Version::V1alpha4];

    /// As it stands in `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Version::V1alpha1 => "split.smi-spec.io/v1alpha1",
            Version::V1alpha2 => "split.smi-spec.io/v1alpha2",
            Version::V1alpha3 => "split.smi-spec.io/v1alpha3",
            Version::V1alpha4 => "split.smi-spec.io/v1alpha4",
        }
    }

    fn has_matches(self) -> bool {
        self >= Version::V1alpha3
    }
}

impl FromStr for Version {
    type Err = ConversionError;

    fn from_str(text: &str) -> Result<Version, ConversionError> {
        let known = Version::ALL.into_iter().find(|version| version.api_version() == text);
        known.ok_or_else(|| ConversionError::UnknownVersion(text.to_owned()))
    }
}

/// Why an object cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    #[error("`{0}` is not served here; write split.smi-spec.io/v1alpha4, or v1alpha1 to v1alpha3")]
    UnknownVersion(String),
    #[error("only objects of kind TrafficSplit are converted, not `{0}`")]
    NotASplit(String),
    #[error("{path}: {problem}")]
    Field { path: String, problem: String },
}

/// The same object in that version.
///
/// # Errors
/// It is no TrafficSplit, or a field or annotation has a value that means nothing.
pub fn convert(mut object: Value, to: Version) -> Result<Value, ConversionError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let from: Version = text("apiVersion").parse()?;
    if text("kind") != "TrafficSplit" {
        return Err(ConversionError::NotASplit(text("kind").to_owned()));
    }
    if from == to {
        return Ok(object);
    }
    into_stored(&mut object, from)?;
    out_of_stored(&mut object, to)?;
    object["apiVersion"] = to.api_version().into();
    Ok(object)
}

fn into_stored(object: &mut Value, from: Version) -> Result<(), ConversionError> {
    if from == Version::V1alpha1 {
        let written = weights(object);
        let is_plain = written.iter().all(|(_, value)| Some(*value) == plain(value).as_ref());
        let notation = Value::Array(written.iter().map(|(_, value)| (*value).clone()).collect());
        annotate(object, WEIGHTS, (!is_plain).then_some(notation));
    }
    if from < Version::V1alpha4 {
        let numbers = numbers(&weights(object))?;
        set_weights(object, numbers.into_iter().map(Value::from));
    }
    if !from.has_matches() && object["spec"].is_object() {
        if let Some(matches) = kept_matches(object)? {
            object["spec"]["matches"] = matches;
        }
        annotate(object, MATCHES, None);
    }
    Ok(())
}

fn out_of_stored(object: &mut Value, to: Version) -> Result<(), ConversionError> {
    if to == Version::V1alpha1 {
        let quantities = quantities(object)?;
        set_weights(object, quantities.into_iter());
        annotate(object, WEIGHTS, None);
    } else if to < Version::V1alpha4 {
        let numbers = numbers(&weights(object))?;
        set_weights(object, numbers.into_iter().map(Value::from));
    }
    if !to.has_matches() {
        let spec = object.get_mut("spec").and_then(Value::as_object_mut);
        let matches = spec.and_then(|spec| spec.remove("matches"));
        annotate(object, MATCHES, matches);
    }
    Ok(())
}

/// The weights that are there, with the places of their backends.
fn weights(object: &Value) -> Vec<(usize, &Value)> {
    let backends = object["spec"]["backends"].as_array().into_iter().flatten().enumerate();
    backends.filter_map(|(index, backend)| Some((index, backend.get("weight")?))).collect()
}

/// Writes these in the place of the weights that are there.
fn set_weights(object: &mut Value, mut weights: impl Iterator<Item = Value>) {
    let backends = object.pointer_mut("/spec/backends").and_then(Value::as_array_mut);
    for weight in backends.into_iter().flatten().filter_map(|backend| backend.get_mut("weight")) {
        if let Some(written) = weights.next() {
            *weight = written;
        }
    }
}

/// Weights as whole numbers: as they are, or all of them in thousandths if one has a fraction.
fn numbers(weights: &[(usize, &Value)]) -> Result<Vec<u64>, ConversionError> {
    let field = |index: usize, problem: String| {
        let path = format!("spec.backends[{index}].weight");
        ConversionError::Field { path, problem }
    };
    let read = weights.iter().map(|(index, value)| {
        let weight = Weight::deserialize(*value).map_err(|error| field(*index, error.to_string()))?;
        Ok((*index, weight))
    });
    let read: Vec<(usize, Weight)> = read.collect::<Result<_, _>>()?;
    let unit = if read.iter().all(|(_, weight)| weight.is_whole()) { 1000 } else { 1 };
    let scaled = read.into_iter().map(|(index, weight)| {
        let number = weight.thousandths / unit;
        let problem = || "it is too large beside a weight with a fraction; write smaller ones".to_owned();
        if number <= WEIGHT_MAX { Ok(number) } else { Err(field(index, problem())) }
    });
    scaled.collect()
}

/// Weights as v1alpha1 has them: as they were written in that version, or plain.
fn quantities(object: &Value) -> Result<Vec<Value>, ConversionError> {
    let stored = weights(object);
    let now = numbers(&stored)?;
    let plainly =
        |(_, value): &(usize, &Value)| Weight::deserialize(*value).unwrap_or_default().to_quantity().into();
    Ok(notation(object, &now).unwrap_or_else(|| stored.iter().map(plainly).collect()))
}

/// The weights as they were written, if the present ones follow from them.
fn notation(object: &Value, now: &[u64]) -> Option<Vec<Value>> {
    let written: Vec<Value> = serde_json::from_str(annotation(object, WEIGHTS)?).ok()?;
    let follow = numbers(&written.iter().enumerate().collect::<Vec<_>>()).ok()?;
    (follow == now).then_some(written)
}

/// The one way to write this weight that needs not be remembered.
fn plain(written: &Value) -> Option<Value> {
    let weight = Weight::deserialize(written).ok()?;
    weight.is_whole().then(|| weight.to_quantity().into())
}

fn kept_matches(object: &Value) -> Result<Option<Value>, ConversionError> {
    let Some(text) = annotation(object, MATCHES) else { return Ok(None) };
    let unreadable = |error: serde_json::Error| ConversionError::Field {
        path: format!("metadata.annotations[{MATCHES}]"),
        problem: format!("this is no `matches` of v1alpha4 as JSON ({error}); remove the annotation"),
    };
    let matches: Value = serde_json::from_str(text).map_err(unreadable)?;
    Option::<Vec<SplitMatch>>::deserialize(&matches).map_err(unreadable)?;
    Ok(Some(matches))
}

fn annotation<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object["metadata"]["annotations"][key].as_str()
}

/// Writes the annotation as JSON, or takes it away.
fn annotate(object: &mut Value, key: &str, value: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| Map::new().into());
    if annotations.is_null() {
        *annotations = Map::new().into();
    }
    let Some(annotations) = annotations.as_object_mut() else { return };
    match value {
        Some(value) => annotations.insert(key.to_owned(), value.to_string().into()),
        None => annotations.remove(key),
    };
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

#[cfg(test)]
mod tests;
