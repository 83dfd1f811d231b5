//! A share of a TrafficSplit. v1alpha1 writes a quantity, later versions a number; all of them are read here.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// The largest share: far above what one can sensibly be, and whole in every number that is used for it.
pub const WEIGHT_MAX: u64 = 1_000_000_000_000;

/// Digits of a quantity that are read; Kubernetes itself keeps 18.
const DIGITS_MAX: usize = 18;

/// A share in thousandths: v1alpha1 writes a quantity (`500m`, `"90"`, `1e3`), later versions a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    pub thousandths: u64,
}

impl Weight {
    pub fn whole(weight: u32) -> Weight {
        Weight { thousandths: u64::from(weight) * 1000 }
    }

    /// Whether it can be written without a fraction.
    pub fn is_whole(self) -> bool {
        self.thousandths.is_multiple_of(1000)
    }

    /// Reads a quantity (Kubernetes `resource.Quantity`); what is below a thousandth is rounded up, as Kubernetes does.
    pub fn parse(text: &str) -> Option<Weight> {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > DIGITS_MAX {
            return None;
        }
        let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
        let (binary, decimal) = scale(suffix)?;
        // In thousandths.
        let decimal = decimal + 3 - i32::try_from(fraction.len()).ok()?;
        let power = 10_u128.checked_pow(decimal.unsigned_abs());
        let scaled = digits.checked_mul(binary)?;
        let thousandths = match power {
            // Next to nothing, or nothing.
            None if decimal < 0 => u128::from(scaled > 0),
            power if decimal < 0 => scaled.div_ceil(power?),
            power => scaled.checked_mul(power?)?,
        };
        Weight::bounded(u64::try_from(thousandths).ok()?)
    }

    fn bounded(thousandths: u64) -> Option<Weight> {
        (thousandths <= WEIGHT_MAX * 1000).then_some(Weight { thousandths })
    }

    fn from_number(number: f64) -> Option<Weight> {
        // What has no exact binary form, as 0.1, must not be rounded up for it.
        let thousandths = (number * 1000.0 - 1e-9).ceil().max(0.0);
        let is_weight = number >= 0.0 && thousandths <= WEIGHT_MAX as f64 * 1000.0;
        is_weight.then_some(Weight { thousandths: thousandths as u64 })
    }

    /// As a quantity, in the form that Kubernetes prefers: `90`, `500m`.
    pub fn to_quantity(self) -> String {
        if self.is_whole() { (self.thousandths / 1000).to_string() } else { format!("{}m", self.thousandths) }
    }
}

/// What the suffix of a quantity multiplies by: a number, and a power of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    if let Some(position) = decimal.iter().position(|known| *known == suffix) {
        return Some((1, 3 * i32::try_from(position).ok()? - 9));
    }
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(position) = binary.iter().position(|known| *known == suffix) {
        return Some((1 << (10 * (position + 1)), 0));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-30..=30).contains(&exponent).then_some((1, exponent))
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole() {
            write!(f, "{}", self.thousandths / 1000)
        } else {
            write!(f, "{}", self.thousandths as f64 / 1000.0)
        }
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_whole() {
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
        let weight = number.checked_mul(1000).and_then(Weight::bounded);
        weight.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Weight, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Signed(number), &self);
        u64::try_from(number).map_err(|_| unexpected()).and_then(|number| self.visit_u64(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Weight, E> {
        Weight::from_number(number).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
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
        json_schema!({ "type": "number", "maximum": WEIGHT_MAX as f64 })
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
            ("0.1", 100),
            (r#""90""#, 90_000),
            (r#""+90""#, 90_000),
            (r#""0090.00""#, 90_000),
            (r#"".5""#, 500),
            (r#""5.""#, 5000),
            (r#""500m""#, 500),
            (r#""1e3""#, 1_000_000),
            (r#""1E+3""#, 1_000_000),
            (r#""25e-1""#, 2500),
            (r#""1.5""#, 1500),
            (r#""2k""#, 2_000_000),
            (r#""1G""#, 1_000_000_000_000),
            (r#""0.001P""#, 1_000_000_000_000_000),
            (r#""0E""#, 0),
            (r#""1Ki""#, 1_024_000),
            (r#""0.5Mi""#, 524_288_000),
            (r#""1n""#, 1),
            (r#""1e-30""#, 1),
            (r#""0.0001""#, 1),
        ] {
            let weight: Weight = serde_json::from_str(json).expect(json);
            assert_eq!(weight, Weight { thousandths }, "{json}");
        }
    }

    #[test]
    fn what_is_no_weight_is_refused_with_an_example() {
        for json in [
            "-1",
            "true",
            "null",
            r#""""#,
            r#"".""#,
            r#""1.2.3""#,
            r#""ten""#,
            r#""1x""#,
            r#""1 k""#,
            r#""-5""#,
            r#""1e""#,
            r#""1e99""#,
            r#""1E""#,
            r#""1Ei""#,
            "1000000000001",
            "1e300",
        ] {
            let error = serde_json::from_str::<Weight>(json).expect_err(json).to_string();
            assert!(error.contains("for example 90"), "{json}: {error}");
        }
    }

    #[test]
    fn a_quantity_is_written_as_kubernetes_writes_it() {
        for (thousandths, text) in [(0, "0"), (90_000, "90"), (500, "500m"), (99_500, "99500m")] {
            assert_eq!(Weight { thousandths }.to_quantity(), text);
        }
    }
}
