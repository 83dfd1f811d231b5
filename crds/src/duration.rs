//! A duration as Gateway API writes it (GEP-2257): `500ms`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as Span;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the API server checks; [`FromStr`] checks the same and says the same. A rule, not a `pattern`, which would say
/// itself and nothing of how a duration is written.
const IS_DURATION: &str = "self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')";

/// For a field that must be longer than 0; what is no duration at all is told once, by the type.
pub(crate) const LONGER_THAN_0: &str =
    "!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) > duration('0s')";

/// A duration of whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Duration(pub Span);

/// A string that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADuration(String);

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a duration; write for example 500ms, 10s or 1h30m", self.0)
    }
}

impl FromStr for Duration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Duration, NotADuration> {
        parse(text).map(Duration).ok_or_else(|| NotADuration(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Span> {
    let mut rest = text;
    let mut total = Span::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 || parts == 4 {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        let (unit, after) = unit(&rest[digits..])?;
        total += Span::from_millis(number * unit);
        rest = after;
        parts += 1;
    }
    (parts > 0).then_some(total)
}

/// The unit at the start of `text`, in milliseconds, and what follows it.
fn unit(text: &str) -> Option<(u64, &str)> {
    [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find_map(|(unit, millis)| text.strip_prefix(unit).map(|after| (millis, after)))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Duration {
    type Error = NotADuration;

    fn try_from(text: String) -> Result<Duration, NotADuration> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> String {
        duration.to_string()
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": IS_DURATION,
                "message": "not a duration; write for example 500ms, 10s or 1h30m",
                "messageExpression": "'`' + self + '` is not a duration; write for example 500ms, 10s or 1h30m'",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_they_were_written() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1s500ms", 1500),
            ("2m", 120_000),
            ("0s", 0),
        ] {
            let duration = Duration(Span::from_millis(millis));
            assert_eq!((text.parse(), duration.to_string()), (Ok(duration), text.to_owned()));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "10", "s", "1.5s", "-1s", "1 s", "1d", "100000s", "1h1h1h1h1h"] {
            assert_eq!(text.parse::<Duration>(), Err(NotADuration(text.to_owned())), "{text}");
        }
    }
}
