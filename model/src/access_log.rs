//! How a line of the access log is written: our own JSON, or a format of the user's with Envoy's command operators
//! (Envoy, "Access logging": `%REQ(:METHOD)%`), as text or as a JSON object.
//!
//! A format is read once, where it is written down; what an operator stands for is a [`Field`] of what the proxy
//! knows of the request, which the proxy fills in.

mod field; // what can be told
mod operator; // `%OPERATOR(ARGUMENT):LENGTH%`
mod time; // dates

use std::fmt;

use http::HeaderName;
use serde_json::Value;

pub use field::{FIELDS, Field, GrpcStatusForm, HeaderChoice, RequestPart, grpc_status_name};
pub use operator::Operator;
pub use time::{TimeFormat, timestamp};

/// How lines are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    #[default]
    Off,
    /// A JSON object of all that is known, [`FIELDS`].
    Json,
    /// Envoy's `text_format_source`.
    Text(Vec<Piece>),
    /// Envoy's `json_format`.
    Object(Vec<Member>),
}

/// Of a text: what stands there, and what is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// To be filled in.
    Operator(Operator),
}

/// Of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub value: MemberValue,
}

/// What a member holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberValue {
    /// A text. One operator alone keeps its type: a number is a number, and what is not known is `null`.
    Text(Vec<Piece>),
    /// Whatever else stood there: a number, a truth value, an array, `null`.
    Constant(String),
    /// Another object.
    Object(Vec<Member>),
}

/// What Envoy writes where no format is given (Envoy, "Default format string").
const ENVOY_DEFAULT: &str = concat!(
    r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% "#,
    r#"%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "#,
    r#""%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#,
);

/// The longest format, in bytes: it is an argument of each sidecar.
pub const FORMAT_MAX: usize = 4096;

/// Why a format cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is neither a word that is known nor has it an operator.
    #[error(
        "`{0}` is no format: write off, json, text, or a format with Envoy's operators, as in %REQ(:METHOD)%"
    )]
    NoFormat(String),
    /// It is longer than [`FORMAT_MAX`].
    #[error("the format has {0} bytes; at most {FORMAT_MAX} are taken")]
    TooLong(usize),
    /// It begins as a JSON object and is none.
    #[error("the format begins as a JSON object and is none: {0}")]
    NotJson(String),
    /// An operator, or what stands in its brackets, is not understood.
    #[error("at byte {at}: {problem}")]
    Operator {
        /// Where its `%` stands, from 0.
        at: usize,
        /// What is wrong with it, and what to write.
        problem: String,
    },
}

impl Format {
    /// Reads a format: `off`, `json`, `text` (Envoy's default format), a text with operators, or a JSON object with
    /// operators in its texts.
    ///
    /// # Errors
    /// It is none of these; the message says where, and what to write.
    pub fn read(format: &str) -> Result<Format, FormatError> {
        if format.len() > FORMAT_MAX {
            return Err(FormatError::TooLong(format.len()));
        }
        match format.trim() {
            "off" | "" => Ok(Format::Off),
            "json" => Ok(Format::Json),
            "text" => Ok(Format::Text(operator::pieces(ENVOY_DEFAULT)?)),
            object if object.starts_with('{') => object_format(object),
            word if !word.contains('%') => Err(FormatError::NoFormat(word.to_owned())),
            text => Ok(Format::Text(operator::pieces(text)?)),
        }
    }

    /// The headers of requests, of responses, and the trailers that are to be kept until the line is written.
    pub fn headers(&self) -> [Vec<HeaderName>; 3] {
        let mut headers: [Vec<HeaderName>; 3] = Default::default();
        self.each_field(&mut |field| {
            let (kind, choice) = match field {
                Field::RequestHeader(choice) => (0, choice),
                Field::ResponseHeader(choice) => (1, choice),
                Field::Trailer(choice) => (2, choice),
                _ => return,
            };
            for name in choice.names() {
                if !headers[kind].contains(name) {
                    headers[kind].push(name.clone());
                }
            }
        });
        headers
    }

    fn each_field(&self, see: &mut impl FnMut(&Field)) {
        match self {
            Format::Off => {}
            Format::Json => FIELDS.iter().for_each(|(_, field)| see(field)),
            Format::Text(pieces) => fields_of(pieces, see),
            Format::Object(members) => fields_of_members(members, see),
        }
    }
}

fn fields_of(pieces: &[Piece], see: &mut impl FnMut(&Field)) {
    for piece in pieces {
        if let Piece::Operator(operator) = piece {
            see(&operator.field);
        }
    }
}

fn fields_of_members(members: &[Member], see: &mut impl FnMut(&Field)) {
    for member in members {
        match &member.value {
            MemberValue::Text(pieces) => fields_of(pieces, see),
            MemberValue::Object(members) => fields_of_members(members, see),
            MemberValue::Constant(_) => {}
        }
    }
}

fn object_format(text: &str) -> Result<Format, FormatError> {
    let object = serde_json::from_str(text).map_err(|error| FormatError::NotJson(error.to_string()))?;
    let members = members(&object, text)?;
    let mut has_operator = false;
    fields_of_members(&members, &mut |_| has_operator = true);
    has_operator.then_some(Format::Object(members)).ok_or_else(|| FormatError::NoFormat(text.to_owned()))
}

/// The members, by name, as Envoy sorts them.
fn members(object: &serde_json::Map<String, Value>, whole: &str) -> Result<Vec<Member>, FormatError> {
    let read = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => MemberValue::Text(pieces_within(text, whole)?),
            Value::Object(object) => MemberValue::Object(members(object, whole)?),
            other => MemberValue::Constant(other.to_string()),
        };
        Ok(Member { name: name.clone(), value })
    };
    object.iter().map(read).collect()
}

/// The pieces of one text of an object; where one is wrong is told by its place in the whole.
fn pieces_within(text: &str, whole: &str) -> Result<Vec<Piece>, FormatError> {
    operator::pieces(text).map_err(|error| match error {
        FormatError::Operator { at, problem } => {
            FormatError::Operator { at: at + whole.find(text).unwrap_or(0), problem }
        }
        other => other,
    })
}

/// A format as it was written, with what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenFormat {
    text: String,
    /// What it means.
    pub format: Format,
}

impl std::str::FromStr for WrittenFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<WrittenFormat, FormatError> {
        Ok(WrittenFormat { text: text.to_owned(), format: Format::read(text)? })
    }
}

impl fmt::Display for WrittenFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "off" } else { &self.text })
    }
}

#[cfg(test)]
mod tests;
