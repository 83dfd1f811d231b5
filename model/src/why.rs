//! The same code decides and explains: a decision takes an `impl Why`, the data path passes `()`,
//! which costs nothing, and `gauze explain` passes a `Vec<Reason>`, which tells all.

use serde::{Deserialize, Serialize};

use crate::origin::Origin;

/// Who listens to the reasons of a decision.
pub trait Why {
    /// Notes a reason; the closure runs only if somebody listens.
    fn note(&mut self, reason: impl FnOnce() -> Reason);
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The step, one word of the lexicon: `name`, `protocol`, `route`, `split`, `balance`, `identity` …
    pub step: String,
    /// What was decided.
    pub decided: String,
    /// Why.
    pub because: String,
    /// The user's object and field behind it.
    pub origin: Option<Origin>,
}

impl Reason {
    /// A reason without an object behind it.
    pub fn new(step: &str, decided: impl Into<String>, because: impl Into<String>) -> Reason {
        Reason { step: step.to_owned(), decided: decided.into(), because: because.into(), origin: None }
    }

    /// The same reason, and the user's object behind it.
    #[must_use]
    pub fn by(self, origin: &Origin) -> Reason {
        Reason { origin: Some(origin.clone()), ..self }
    }
}

impl Why for () {
    fn note(&mut self, _reason: impl FnOnce() -> Reason) {}
}

impl Why for Vec<Reason> {
    fn note(&mut self, reason: impl FnOnce() -> Reason) {
        self.push(reason());
    }
}
