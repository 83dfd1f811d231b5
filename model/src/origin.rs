//! The user's object and field behind a rule, cluster or policy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a piece of configuration comes from. It crosses the wire in `filter_metadata["gauze"]`, so
/// that a refusal, a log line, a status and `gauze explain` all name the line that the user wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Kubernetes kind, for example `HTTPRoute`.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; empty where the source has none (a directory).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `metadata.generation`; 0 where the source has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// Field path in the user's YAML, for example `spec.rules[0].backendRefs[1]`. Empty: the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Origin {
    /// The same object, one field deeper.
    #[must_use]
    pub fn at(&self, path: impl Into<String>) -> Origin {
        Origin { path: path.into(), ..self.clone() }
    }

    /// The same object, whatever the field, uid and generation: what a status is about.
    pub fn object(&self) -> (&str, &str, &str) {
        (&self.kind, &self.namespace, &self.name)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, " {}", self.path) }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for this signature
fn is_zero(generation: &i64) -> bool {
    *generation == 0
}
