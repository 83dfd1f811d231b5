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

/// The codes that this crate raises. They stand in the register of `gauze_model::codes`.
pub mod codes {
    use gauze_model::Code;

    pub const FILE_UNREADABLE: Code = Code(1001);
    pub const OBJECT_INVALID: Code = Code(1002);
    pub const FIELD_UNKNOWN: Code = Code(1003);
    pub const KIND_UNKNOWN: Code = Code(1004);
    pub const OBJECT_TWICE: Code = Code(1005);
    pub const FIELD_UNSUPPORTED: Code = Code(1006);
    pub const ANNOTATION_INVALID: Code = Code(1007);
    pub const PLAIN_ENDPOINT_UNUSED: Code = Code(4010);
    pub const PARENT_NOT_FOUND: Code = Code(5001);
    pub const PARENT_HEADLESS: Code = Code(5002);
    pub const PARENT_INVALID: Code = Code(5003);
    pub const BACKEND_NOT_FOUND: Code = Code(5004);
    pub const BACKEND_PORT_MISSING: Code = Code(5005);
    pub const BACKEND_INVALID: Code = Code(5006);
    pub const REF_NOT_PERMITTED: Code = Code(5007);
    pub const BACKEND_WITHOUT_ENDPOINTS: Code = Code(5008);
    pub const WEIGHTS_ALL_ZERO: Code = Code(5009);
    pub const CONFLICTED: Code = Code(5010);
    pub const OVERRIDDEN: Code = Code(5011);
    pub const MATCHES_UNSUPPORTED: Code = Code(5012);
    pub const RULE_INVALID: Code = Code(5013);
    pub const FILTER_UNSUPPORTED: Code = Code(5014);
}
