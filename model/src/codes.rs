//! The register of problem codes: one table for responses, logs, metrics, statuses and `gauze docs`.
//! Families: M1 control plane, M2 injection, M3 data path, M4 identity and policy, M5 routes and splits.

use std::fmt;

/// A problem that gauze reports, by its stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

/// What `gauze docs CODE` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub code: Code,
    /// Half a sentence, without the particulars.
    pub title: &'static str,
    pub cause: &'static str,
    pub remedy: &'static str,
    /// Envoy's response flag in the access log (`UH`, `NR` …); empty where no request is refused.
    pub flag: &'static str,
    /// The HTTP status of a refusal; 0 where no request is refused.
    pub status: u16,
    /// The gRPC status of a refusal on a gRPC call.
    pub grpc: u8,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "M{}", self.0)
    }
}
