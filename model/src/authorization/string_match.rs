//! A string to compare with, as Istio writes it: `exact`, `prefix*`, `*suffix`, or `*` for anything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a value is compared. Case counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum StringMatch {
    /// `*`: any value, as long as there is one.
    Any,
    /// The value itself.
    Exact(String),
    /// `prefix*`: how it begins.
    Prefix(String),
    /// `*suffix`: how it ends.
    Suffix(String),
}

/// A string that cannot be compared with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `exact`, `prefix*`, `*suffix` and `*`: a `*` stands only at one end")]
pub struct NotAStringMatch(pub String);

impl StringMatch {
    /// Whether `value` is as this says.
    pub fn is_match(&self, value: &str) -> bool {
        match self {
            StringMatch::Any => true,
            StringMatch::Exact(exact) => value == exact,
            StringMatch::Prefix(prefix) => value.starts_with(prefix),
            StringMatch::Suffix(suffix) => value.ends_with(suffix),
        }
    }

    /// Without its `*`.
    pub fn text(&self) -> &str {
        match self {
            StringMatch::Any => "",
            StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => text,
        }
    }
}

impl FromStr for StringMatch {
    type Err = NotAStringMatch;

    fn from_str(text: &str) -> Result<StringMatch, NotAStringMatch> {
        let (make, rest): (fn(String) -> StringMatch, &str) = match text {
            "*" => return Ok(StringMatch::Any),
            _ if text.ends_with('*') => (StringMatch::Prefix, &text[..text.len() - 1]),
            _ if text.starts_with('*') => (StringMatch::Suffix, &text[1..]),
            _ => (StringMatch::Exact, text),
        };
        if rest.is_empty() || rest.contains('*') {
            return Err(NotAStringMatch(text.to_owned()));
        }
        Ok(make(rest.to_owned()))
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StringMatch::Any => f.write_str("*"),
            StringMatch::Exact(text) => f.write_str(text),
            StringMatch::Prefix(text) => write!(f, "{text}*"),
            StringMatch::Suffix(text) => write!(f, "*{text}"),
        }
    }
}

impl From<StringMatch> for String {
    fn from(of: StringMatch) -> String {
        of.to_string()
    }
}

impl TryFrom<String> for StringMatch {
    type Error = NotAStringMatch;

    fn try_from(text: String) -> Result<StringMatch, NotAStringMatch> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_it_was_written() {
        for text in ["*", "/items", "/items/*", "*.json", "spiffe://cluster.local/ns/shop/*"] {
            assert_eq!(text.parse::<StringMatch>().map(|it| it.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_star_in_the_middle_or_at_both_ends_is_refused() {
        for text in ["", "**", "*a*", "a*b", "/a/*/b*"] {
            assert_eq!(text.parse::<StringMatch>(), Err(NotAStringMatch(text.to_owned())));
        }
    }
}
