//! What injection says to the user: a code and a sentence. The same text is an admission warning, the reason of a
//! refusal, and a line of `gauze inject`.

use std::fmt;

use gauze_model::Code;

/// One thing to say about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub code: Code,
    /// What is wrong and what to write instead, in one sentence or two.
    pub message: String,
}

impl Finding {
    pub fn new(code: Code, message: impl Into<String>) -> Finding {
        Finding { code, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, see `gauze docs {}`)", self.message, self.code, self.code)
    }
}
