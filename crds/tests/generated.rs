//! `yaml/` holds the CRDs as an API server takes them, generated from the types. `UPDATE=1 cargo test
//! -p gauze-crds` rewrites them; without it the test says which one is stale.

use std::path::Path;
use std::{env, fs};

use gauze_crds::{TrafficPolicy, TrafficSplit};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

fn definitions() -> [(&'static str, CustomResourceDefinition); 2] {
    [("traffic_policy", TrafficPolicy::crd()), ("traffic_split", TrafficSplit::crd())]
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut stale = Vec::new();
    for (name, definition) in definitions() {
        let file = directory.join(format!("{name}.yaml"));
        let now = serde_saphyr::to_string(&definition).expect("YAML");
        let read: CustomResourceDefinition = serde_saphyr::from_str(&now).expect(name);
        assert_eq!(read, definition, "{name} must read back as it was written");
        let now = format!(
            "# Generated from crds/src/{name}.rs; UPDATE=1 cargo test -p gauze-crds rewrites it.\n{now}"
        );
        if env::var_os("UPDATE").is_some() {
            fs::write(&file, &now).expect("writable");
        } else if fs::read_to_string(&file).unwrap_or_default() != now {
            stale.push(file);
        }
    }
    assert!(stale.is_empty(), "stale, run with UPDATE=1: {stale:?}");
}

/// Every schema below a value, with its path.
fn schemas<'v>(value: &'v Value, path: &str, found: &mut Vec<(String, &'v Value)>) {
    found.push((path.to_owned(), value));
    for (name, property) in value["properties"].as_object().into_iter().flatten() {
        schemas(property, &format!("{path}.{name}"), found);
    }
    if value["items"].is_object() {
        schemas(&value["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn every_field_of_ours_is_explained_and_every_list_has_a_limit() {
    for (name, definition) in definitions() {
        let schema = definition.spec.versions[0].schema.as_ref().expect("a schema");
        let schema = serde_json::to_value(&schema.open_api_v3_schema).expect("JSON");
        let mut found = Vec::new();
        schemas(&schema["properties"]["spec"], "spec", &mut found);
        schemas(&schema["properties"]["status"], "status", &mut found);
        for (path, schema) in found {
            if schema["type"] == "array" {
                assert!(schema["maxItems"].is_u64(), "{name}: {path} has no maxItems");
            }
            // An item is explained by its list.
            let explained = schema["description"].is_string() || path.ends_with("[]");
            assert!(explained, "{name}: {path} has no description");
            for forbidden in ["oneOf", "anyOf", "allOf", "$ref", "additionalProperties"] {
                assert!(
                    schema[forbidden].is_null(),
                    "{name}: {path} has `{forbidden}`, which is not structural"
                );
            }
        }
    }
}

#[test]
fn every_rule_says_what_to_write() {
    for (name, definition) in definitions() {
        let json = serde_json::to_value(&definition).expect("JSON");
        let mut rules = Vec::new();
        collect(&json, "x-kubernetes-validations", &mut rules);
        assert!(!rules.is_empty(), "{name} has no rule");
        for rule in rules.iter().flat_map(|rules| rules.as_array().into_iter().flatten()) {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.len() > 20, "{name}: rule {} has no message", rule["rule"]);
        }
    }
}

/// Every value under that name, wherever it stands.
fn collect<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name));
            fields.values().for_each(|field| collect(field, name, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
