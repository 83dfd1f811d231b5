//! SMI `TrafficSplit` (split.smi-spec.io): the traffic of a Service, shared out among others. One type
//! reads v1alpha1 to v1alpha4; what is generated from it is v1alpha4, the one that is stored.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Shares out the traffic of a Service among other Services by weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "split.smi-spec.io",
    version = "v1alpha4",
    kind = "TrafficSplit",
    shortname = "ts",
    category = "gauze",
    category = "mesh",
    namespaced,
    doc = "Shares out the traffic of a Service among other Services by weight.",
    status = "TrafficSplitStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Split", type_ = "string", json_path = ".status.split"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].message"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct TrafficSplitSpec {
    /// The root: the Service, in this namespace, whose traffic is shared out. `cart`, `cart.shop` and
    /// `cart.shop.svc.cluster.local` mean the same.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Who gets how much. A backend must have a port of the same number as the root.
    #[schemars(length(min = 1, max = 64))]
    pub backends: Vec<SplitBackend>,
    /// HTTPRouteGroups that say which requests are shared out. Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub matches: Option<Vec<SplitMatch>>,
}

/// One share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SplitBackend {
    /// A Service in this namespace; it may be the root itself, and it may not exist yet.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// The share, relative to the sum of all.
    #[x_kube(validation = Rule::new("self >= 0.0").message("weight must be 0 or more"))]
    pub weight: Weight,
}

/// A reference to an HTTPRouteGroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitMatch {
    /// The API group; `specs.smi-spec.io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// HTTPRouteGroup.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The status of a split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct TrafficSplitStatus {
    /// The split in short, for `kubectl get`: `cart-v1=90 cart-v2=10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Accepted, ResolvedRefs and Programmed.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A share in thousandths: v1alpha1 writes a quantity (`500m`, `"90"`, `1e3`), later versions a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    pub thousandths: u64,
}

impl Weight {
    pub fn whole(weight: u32) -> Weight {
        Weight { thousandths: u64::from(weight) * 1000 }
    }

    /// Reads a quantity (Kubernetes `resource.Quantity`); what is below a thousandth is rounded up, as Kubernetes does.
    pub fn parse(text: &str) -> Option<Weight> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        if number.is_empty() {
            return None;
        }
        from_number(number.parse::<f64>().ok()? * scale(suffix)?)
    }
}

fn from_number(number: f64) -> Option<Weight> {
    let thousandths = (number * 1000.0 - 1e-9).ceil().max(0.0);
    // Far above what a share can sensibly be, far below what a u64 holds.
    (number >= 0.0 && thousandths <= 1e15).then_some(Weight { thousandths: thousandths as u64 })
}

/// What the suffix of a quantity multiplies by.
fn scale(suffix: &str) -> Option<f64> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T"].iter().position(|known| *known == suffix);
    if let Some(position) = decimal {
        return Some(1e-9 * 1000_f64.powi(position as i32));
    }
    let binary = ["Ki", "Mi", "Gi", "Ti"].iter().position(|known| *known == suffix);
    if let Some(position) = binary {
        return Some(1024_f64.powi(position as i32 + 1));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-9..=12).contains(&exponent).then(|| 10_f64.powi(exponent))
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.thousandths.is_multiple_of(1000) {
            write!(f, "{}", self.thousandths / 1000)
        } else {
            write!(f, "{}", self.thousandths as f64 / 1000.0)
        }
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.thousandths.is_multiple_of(1000) {
            serializer.serialize_u64(self.thousandths / 1000)
        } else {
            serializer.serialize_f64(self.thousandths as f64 / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
        deserializer.deserialize_any(WeightVisitor)
    }
}

struct WeightVisitor;

impl Visitor<'_> for WeightVisitor {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a weight of 0 or more, for example 90 or \"500m\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Weight, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Weight, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Weight, E> {
        from_number(number).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Weight, E> {
        Weight::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_version_read_alike() {
        for (json, thousandths) in [
            ("90", 90_000),
            ("0", 0),
            ("0.5", 500),
            (r#""90""#, 90_000),
            (r#""500m""#, 500),
            (r#""1e3""#, 1_000_000),
            (r#""1.5""#, 1500),
            (r#""2k""#, 2_000_000),
            (r#""1Ki""#, 1_024_000),
            (r#""1n""#, 1),
        ] {
            let weight: Weight = serde_json::from_str(json).expect(json);
            assert_eq!(weight, Weight { thousandths }, "{json}");
        }
    }

    #[test]
    fn what_is_no_weight_is_refused_with_an_example() {
        for json in ["-1", "true", "null", r#""""#, r#""ten""#, r#""1x""#, r#""-5""#, "1e300"] {
            let error = serde_json::from_str::<Weight>(json).expect_err(json).to_string();
            assert!(error.contains("for example 90"), "{json}: {error}");
        }
    }
}
