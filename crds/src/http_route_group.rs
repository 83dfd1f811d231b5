//! SMI `HTTPRouteGroup` (specs.smi-spec.io): which requests a TrafficSplit with `matches` shares out. One type reads
//! v1alpha1 to v1alpha4, and `headers` as the specification writes them (a map) and as the definitions that were
//! shipped with it do (a list of maps).
//!
//! What is generated from it serves v1alpha3 and v1alpha4 without a conversion, since they are equal field by field.
//! v1alpha1 and v1alpha2 have `matches` beside `metadata`: a conversion of `None` would lose them, and no tool is known
//! that writes them, so they are read (from files, and from clusters whose own definition serves them), not served.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Which requests a TrafficSplit shares out, in any of its versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpRouteGroup {
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// v1alpha3 and v1alpha4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<HttpRouteGroupSpec>,
    /// v1alpha1 and v1alpha2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpMatch>,
}

/// Which requests a TrafficSplit shares out, as v1alpha3 and v1alpha4 write it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "specs.smi-spec.io",
    version = "v1alpha4",
    kind = "HTTPRouteGroup",
    root = "HttpRouteGroupDefinition",
    plural = "httproutegroups",
    shortname = "htr",
    category = "gauze",
    category = "mesh",
    namespaced,
    doc = "Which requests a TrafficSplit shares out that names this group in its `matches`.",
    printcolumn(name = "Matches", type_ = "string", json_path = ".spec.matches[*].name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct HttpRouteGroupSpec {
    /// A request belongs to the group if it is as one of these says.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub matches: Vec<HttpMatch>,
}

/// Which requests: those that are as all of this says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// What this match is called, once in a group.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A regular expression (RE2) that the path, without the query, begins with. Without it: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path_regex: Option<String>,
    /// One of these methods, in capitals; `*` is any of them. Without it: any method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(m, m == '*' || m.matches('^[A-Z-]+$'))")
        .message("write methods in capitals, for example GET, or \"*\" for every method"))]
    pub methods: Vec<String>,
    /// Regular expressions (RE2) by the name of a header: each header must be there, and the whole of its value be as the expression says. A map, or a list of maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderPatterns>,
}

/// Regular expressions by the name of a header.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum HeaderPatterns {
    /// As the specification writes it.
    Map(BTreeMap<String, String>),
    /// As the definitions of the SMI SDK and of Open Service Mesh type it.
    List(Vec<BTreeMap<String, String>>),
}

impl HttpRouteGroup {
    /// The matches of any version, each with its field path.
    pub fn matches(&self) -> impl Iterator<Item = (String, &HttpMatch)> {
        let within = self.spec.iter().flat_map(|spec| spec.matches.iter().enumerate());
        let within = within.map(|(index, found)| (format!("spec.matches[{index}]"), found));
        let beside = self.matches.iter().enumerate();
        within.chain(beside.map(|(index, found)| (format!("matches[{index}]"), found)))
    }

    /// The definition that the chart installs.
    pub fn crd() -> CustomResourceDefinition {
        let mut definition = HttpRouteGroupDefinition::crd();
        let versions = &mut definition.spec.versions;
        let mut equal = versions[0].clone();
        equal.name = "v1alpha3".to_owned();
        equal.storage = false;
        versions.push(equal);
        definition
    }
}

impl HeaderPatterns {
    /// All of them, each with its path below `headers`.
    pub fn iter(&self) -> impl Iterator<Item = (String, &str, &str)> {
        let maps: Vec<(String, &BTreeMap<String, String>)> = match self {
            HeaderPatterns::Map(map) => vec![(String::new(), map)],
            HeaderPatterns::List(list) => {
                list.iter().enumerate().map(|(index, map)| (format!("[{index}]"), map)).collect()
            }
        };
        maps.into_iter().flat_map(|(at, map)| {
            map.iter().map(move |(name, pattern)| (format!("{at}.{name}"), name.as_str(), pattern.as_str()))
        })
    }
}

impl<'de> Deserialize<'de> for HeaderPatterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HeaderPatterns, D::Error> {
        deserializer.deserialize_any(HeaderPatternsVisitor)
    }
}

struct HeaderPatternsVisitor;

impl<'de> Visitor<'de> for HeaderPatternsVisitor {
    type Value = HeaderPatterns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("regular expressions by the name of a header, for example {user-agent: \".*Firefox.*\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderPatterns, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(map)).map(HeaderPatterns::Map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<HeaderPatterns, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(HeaderPatterns::List)
    }
}

impl JsonSchema for HeaderPatterns {
    fn schema_name() -> Cow<'static, str> {
        "HeaderPatterns".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A structural schema knows no alternatives: what stands there is judged by whoever reads it.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn group(value: Value) -> Result<HttpRouteGroup, serde_json::Error> {
        serde_json::from_value(value)
    }

    /// Paths of matches and of their headers, with the expressions.
    fn patterns(group: &HttpRouteGroup) -> Vec<(String, String)> {
        let of_match = |(path, found): (String, &HttpMatch)| -> Vec<(String, String)> {
            let headers = found.headers.iter().flat_map(HeaderPatterns::iter);
            headers.map(|(at, _, pattern)| (format!("{path}.headers{at}"), pattern.to_owned())).collect()
        };
        group.matches().flat_map(of_match).collect()
    }

    #[test]
    fn headers_are_read_as_a_map_and_as_a_list_of_maps_and_matches_of_every_version() {
        for (what, value, expected) in [
            (
                "a map, below spec",
                json!({"spec": {"matches": [{"name": "beta", "headers": {"x-beta": "1", "cookie": "a"}}]}}),
                vec![("spec.matches[0].headers.cookie", "a"), ("spec.matches[0].headers.x-beta", "1")],
            ),
            (
                "a list of maps, beside metadata",
                json!({"matches": [{"name": "beta", "headers": [{"x-beta": "1"}, {"x-beta": ".*"}]}]}),
                vec![("matches[0].headers[0].x-beta", "1"), ("matches[0].headers[1].x-beta", ".*")],
            ),
            ("none", json!({"matches": [{"name": "all"}]}), vec![]),
        ] {
            let group = group(value.clone()).expect(what);
            let expected: Vec<_> =
                expected.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
            assert_eq!(patterns(&group), expected, "{what}");
            let mut written = serde_json::to_value(&group).expect(what);
            written.as_object_mut().expect(what).remove("metadata");
            assert_eq!(written, value, "{what}: it is written as it was read");
        }
    }

    #[test]
    fn headers_of_another_shape_are_refused_with_an_example() {
        for headers in [json!("x-beta"), json!(7), json!(true)] {
            let value = json!({"matches": [{"name": "beta", "headers": headers}]});
            let error = group(value).expect_err("no headers").to_string();
            assert!(error.contains("for example {user-agent"), "{error}");
        }
    }

    #[test]
    fn the_versions_that_are_served_without_a_conversion_are_equal() {
        let definition = HttpRouteGroup::crd();
        let served: Vec<_> = definition.spec.versions.iter().filter(|version| version.served).collect();
        assert_eq!(served.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["v1alpha4", "v1alpha3"]);
        assert!(served.iter().all(|version| version.schema == served[0].schema));
    }
}
