//! `yaml/` holds the CRDs as an API server takes them, and `charts/gauze/templates/crds/` as Helm does: both are
//! generated from the types. `UPDATE=1 cargo test -p gauze-crds` rewrites them; without it the test says which
//! one is stale.

use std::path::Path;
use std::{env, fs};

use gauze_crds::{AuthorizationPolicy, HttpRouteGroup, TrafficPolicy, traffic_split};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// Where the control plane is installed, unless told otherwise. The chart writes its own namespace.
const SYSTEM: &str = "gauze-system";

fn definitions() -> [(&'static str, CustomResourceDefinition); 4] {
    [
        ("authorization_policy", AuthorizationPolicy::crd()),
        ("http_route_group", HttpRouteGroup::crd()),
        ("traffic_policy", TrafficPolicy::crd()),
        ("traffic_split", traffic_split::definition(SYSTEM)),
    ]
}

/// The definition as YAML.
fn yaml(name: &str, definition: &CustomResourceDefinition) -> String {
    let text = serde_saphyr::to_string(definition).expect("YAML");
    let read: CustomResourceDefinition = serde_saphyr::from_str(&text).expect(name);
    assert_eq!(&read, definition, "{name} must read back as it was written");
    text
}

/// The definition as a template of the chart: switched by values, with the chart's labels, kept at uninstall.
fn template(name: &str, definition: &CustomResourceDefinition) -> String {
    let text = yaml(name, definition);
    assert!(!text.contains("{{"), "{name}: Helm would read this as a template");
    let (head, body) = text.split_once("spec:\n").expect("a CRD has a spec");
    let body = body.replace(&format!("namespace: {SYSTEM}\n"), "namespace: {{ .Release.Namespace }}\n");
    let ours = definition.spec.group == "gauze.dev";
    let switch = if ours { ".Values.crds.enabled" } else { "and .Values.crds.enabled .Values.crds.smi" };
    format!(
        r#"{{{{- /* Generated from crds/src/{name}.rs; UPDATE=1 cargo test -p gauze-crds rewrites it. */ -}}}}
{{{{- if {switch} }}}}
{head}  labels:
    {{{{- include "gauze.labels" (list . "crds") | nindent 4 }}}}
  {{{{- if .Values.crds.keep }}}}
  annotations:
    helm.sh/resource-policy: keep
  {{{{- end }}}}
spec:
{body}{{{{- end }}}}
"#
    )
}

/// Writes the file when asked to; else says whether it is as it should be.
fn is_current(file: &Path, now: &str) -> bool {
    if env::var_os("UPDATE").is_some() {
        fs::write(file, now).expect("writable");
    }
    fs::read_to_string(file).unwrap_or_default() == now
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for (name, definition) in definitions() {
        let now = format!(
            "# Generated from crds/src/{name}.rs; UPDATE=1 cargo test -p gauze-crds rewrites it.\n{}",
            yaml(name, &definition)
        );
        assert!(
            is_current(&directory.join(format!("{name}.yaml")), &now),
            "{name} is stale: run with UPDATE=1"
        );
    }
}

#[test]
fn the_chart_installs_the_same_definitions_and_no_others() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/gauze/templates/crds");
    for (name, definition) in definitions() {
        let now = template(name, &definition);
        assert!(
            is_current(&directory.join(format!("{name}.yaml")), &now),
            "{name} is stale: run with UPDATE=1"
        );
    }
    let files = fs::read_dir(&directory).expect("the chart has CRDs").count();
    assert_eq!(files, definitions().len(), "a file in {} that no type stands behind", directory.display());
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
fn every_field_of_ours_is_explained_and_every_value_has_a_limit() {
    for (name, definition) in definitions() {
        let mut found = Vec::new();
        let versions = serde_json::to_value(&definition.spec.versions).expect("JSON");
        for version in versions.as_array().expect("versions") {
            let (schema, at) = (&version["schema"]["openAPIV3Schema"], &version["name"]);
            // SMI's group of requests has no status.
            for part in ["spec", "status"].into_iter().filter(|part| schema["properties"][part].is_object()) {
                schemas(&schema["properties"][part], &format!("{at}: {part}"), &mut found);
            }
        }
        for (path, schema) in found {
            if schema["type"] == "array" {
                assert!(schema["maxItems"].is_u64(), "{name}: {path} has no maxItems");
            }
            if schema["type"] == "string" && !path.contains(".conditions") {
                let is_bound = schema["maxLength"].is_u64() || schema["enum"].is_array();
                assert!(is_bound, "{name}: {path} has no maxLength");
            }
            if schema["type"] == "integer" && !path.contains(".conditions") {
                assert!(schema["maximum"].is_number(), "{name}: {path} has no maximum");
            }
            // kubectl reads YAML 1.1, where these are booleans.
            let field = path.rsplit('.').next().unwrap_or_default().to_lowercase();
            assert!(!["y", "n", "yes", "no", "on", "off"].contains(&field.as_str()), "{name}: {path}");
            // An item is explained by its list.
            let explained = schema["description"].is_string() || path.ends_with("[]");
            assert!(explained, "{name}: {path} has no description");
            // A map of strings is structural, fields beside others are not.
            let map = &schema["additionalProperties"];
            assert!(
                map.is_null() || (map["type"] == "string" && schema["properties"].is_null()),
                "{name}: {path} has `additionalProperties`, which is not structural"
            );
            for forbidden in ["oneOf", "anyOf", "allOf", "$ref"] {
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
