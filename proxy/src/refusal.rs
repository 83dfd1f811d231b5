//! A failure made by the proxy: one value that knows its code. The register in `model::codes` says
//! what the code means to HTTP, to gRPC and to the access log.

use std::borrow::Cow;
use std::fmt;

use gauze_model::Code;

/// Why a request or connection was not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// The particulars, for the one-line body and the log.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Refusal {}
