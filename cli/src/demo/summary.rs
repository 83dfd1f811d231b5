//! The one JSON object that `gauze demo --json` ends with.

use serde::Serialize;
use serde_json::Value;

use super::edges::EdgeSummary;

/// What the demo has shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Every step is ok; without a story: nothing failed.
    pub(crate) ok: bool,
    pub(crate) seconds: f64,
    pub(crate) steps: Vec<Step>,
    pub(crate) edges: Vec<EdgeSummary>,
    /// The same for clients that are not in the mesh.
    pub(crate) outside: Vec<EdgeSummary>,
}

/// One promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    pub(crate) wanted: Value,
    pub(crate) seen: Value,
    /// Sent by the client while the step was watched.
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}
