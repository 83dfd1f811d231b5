//! One conversion review: bytes in, the answer as bytes. It holds any number of objects, and is answered for all or none.
//! Each conversion is a pure function ([`convert`]).

use serde::Deserialize;
use serde_json::{Value, json};

use crate::convert::{ConversionError, Version, convert};
use gauze_model::Code;

/// What the API server asks (`ConversionReview` of apiextensions.k8s.io/v1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(rename = "desiredAPIVersion")]
    desired_api_version: String,
    objects: Vec<Value>,
}

/// A review that was read, and its answer.
pub(super) struct Converted {
    /// How many objects were converted: all, or none.
    pub(super) objects: usize,
    /// Why none was.
    pub(super) failure: Option<String>,
    pub(super) answer: Vec<u8>,
}

/// Why a review cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("this is no conversion review of version v1: {0}")]
pub(super) struct Unreadable(String);

/// The API version of reviews.
const API_VERSION: &str = "apiextensions.k8s.io/v1";

/// Converts all objects of a review.
pub(super) fn review(body: &[u8]) -> Result<Converted, Unreadable> {
    let review: Review = serde_json::from_slice(body).map_err(|error| Unreadable(error.to_string()))?;
    if review.api_version != API_VERSION {
        return Err(Unreadable(format!("it is of {}", review.api_version)));
    }
    let Request { uid, desired_api_version, objects } = review.request;
    let converted = all(objects, &desired_api_version);
    let (count, failure) = (converted.as_ref().map_or(0, Vec::len), converted.as_ref().err().cloned());
    let response = match converted {
        Ok(objects) => {
            json!({ "uid": uid, "convertedObjects": objects, "result": { "status": "Success" } })
        }
        Err(message) => json!({
            "uid": uid, "convertedObjects": [],
            "result": { "status": "Failure", "message": message, "reason": "Invalid", "code": 422 },
        }),
    };
    let answer = json!({ "apiVersion": API_VERSION, "kind": "ConversionReview", "response": response });
    Ok(Converted { objects: count, failure, answer: answer.to_string().into_bytes() })
}

/// All of them, or what is wrong with the first that cannot be converted.
fn all(objects: Vec<Value>, version: &str) -> Result<Vec<Value>, String> {
    let version: Version = version.parse().map_err(|error: ConversionError| said(&error))?;
    let converted = objects.into_iter().map(|object| {
        let name = name(&object);
        convert(object, version).map_err(|error| format!("{name}: {}", said(&error)))
    });
    converted.collect()
}

fn name(object: &Value) -> String {
    let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or("?");
    format!("TrafficSplit {}/{}", metadata("namespace"), metadata("name"))
}

fn said(error: &ConversionError) -> String {
    format!("{error} ({})", Code::CONVERSION_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(version: &str, weights: &[&str]) -> Vec<u8> {
        let objects: Vec<Value> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| {
                json!({
                    "apiVersion": "split.smi-spec.io/v1alpha1", "kind": "TrafficSplit",
                    "metadata": { "name": format!("cart-{index}"), "namespace": "shop" },
                    "spec": { "service": "cart", "backends": [{ "service": "cart-v1", "weight": weight }] },
                })
            })
            .collect();
        let request = json!({ "uid": "7d9b", "desiredAPIVersion": version, "objects": objects });
        let review = json!({ "apiVersion": API_VERSION, "kind": "ConversionReview", "request": request });
        review.to_string().into_bytes()
    }

    fn answered(converted: &Converted) -> Value {
        let answer: Value = serde_json::from_slice(&converted.answer).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!(API_VERSION), &json!("ConversionReview"))
        );
        answer["response"].clone()
    }

    #[test]
    fn objects_come_back_in_their_order() {
        let converted = review(&asked("split.smi-spec.io/v1alpha4", &["1", "2", "3"])).unwrap();
        assert_eq!((converted.objects, &converted.failure), (3, &None));
        let response = answered(&converted);
        assert_eq!((&response["uid"], &response["result"]["status"]), (&json!("7d9b"), &json!("Success")));
        let objects = response["convertedObjects"].as_array().unwrap().iter();
        let weights: Vec<&Value> = objects.map(|object| &object["spec"]["backends"][0]["weight"]).collect();
        assert_eq!(weights, [1, 2, 3]);
    }

    #[test]
    fn one_that_cannot_be_converted_fails_all_and_is_named() {
        for (version, weights, expected) in [
            (
                "split.smi-spec.io/v1alpha4",
                ["1", "ten", "3"],
                "TrafficSplit shop/cart-1: spec.backends[0].weight: ",
            ),
            ("split.smi-spec.io/v2", ["1", "2", "3"], "`split.smi-spec.io/v2` is not served here"),
        ] {
            let converted = review(&asked(version, &weights)).unwrap();
            let response = answered(&converted);
            assert_eq!(
                (&response["result"]["status"], &response["convertedObjects"]),
                (&json!("Failure"), &json!([]))
            );
            let message = response["result"]["message"].as_str().unwrap();
            assert!(message.starts_with(expected) && message.ends_with("(M2016)"), "{message}");
            assert_eq!((converted.objects, converted.failure.as_deref()), (0, Some(message)));
        }
    }

    #[test]
    fn what_is_no_review_is_not_answered() {
        for body in [
            "nonsense",
            "{}",
            r#"{"apiVersion": "apiextensions.k8s.io/v1beta1", "request": {"uid": "", "desiredAPIVersion": "", "objects": []}}"#,
        ] {
            assert!(review(body.as_bytes()).is_err(), "{body}");
        }
    }
}
