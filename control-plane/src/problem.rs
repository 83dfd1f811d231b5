//! What is wrong with an object: which field, and how to fix it. A problem costs only its own object.

use std::fmt;

use gauze_model::{Code, Origin};
use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    #[serde(serialize_with = "as_text")]
    pub code: Code,
    /// The user's object and field.
    pub origin: Origin,
    /// Where it stands, if the source is a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What is wrong and what to write instead, in one sentence or two.
    pub message: String,
}

/// A place in a file; line and column count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub file: String,
    pub line: u64,
    pub column: u64,
}

impl Problem {
    pub fn new(code: Code, origin: Origin, message: impl Into<String>) -> Problem {
        Problem { code, origin, place: None, message: message.into() }
    }

    /// Whether it keeps a rule, or a match of it, from being used.
    pub fn spoils_rule(&self) -> bool {
        matches!(
            self.code,
            Code::INVALID_VALUE
                | Code::INVALID_PATTERN
                | Code::MISSING_FIELD
                | Code::UNSUPPORTED_FILTER
                | Code::INCOMPATIBLE_FILTERS
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.origin.kind.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

fn as_text<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(code)
}
