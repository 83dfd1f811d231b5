//! Who may do what: the policies that select a workload, and what they say of one call. DENY first, then ALLOW;
//! AUDIT only records; where no ALLOW policy selects the port, what is not denied is allowed.
//!
//! What is not known counts against the caller: an ALLOW needs a certain match, a DENY only a possible one. A path
//! that servers read in several ways, a connection that is not HTTP, and a caller without identity are all judged by
//! this one rule. Whether a port takes plaintext at all (`Mtls`) is decided before, elsewhere.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::identity::SpiffeId;
use crate::origin::Origin;

mod matches; // whether a rule matches a call
pub mod path; // the ways in which servers read a path
mod string_match;
mod why; // why policies say what they say // `exact`, `prefix*`, `*suffix`, `*`

pub use matches::Match;
pub use string_match::{NotAStringMatch, StringMatch};
pub use why::explain;

/// An `AuthorizationPolicy` that selects this workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The AuthorizationPolicy.
    pub origin: Origin,
    /// What becomes of a call that matches.
    pub action: Action,
    /// The ports of the pod that it is about; none: all. To other ports it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<BTreeSet<u16>>,
    /// A call matches the policy if it matches one of these.
    pub rules: Vec<Rule>,
    /// It could not be read, and stands here in its closed form: an ALLOW matches nothing, a DENY everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
}

/// What becomes of a call that matches a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is let in, unless a DENY matches too; what no ALLOW matches is not.
    #[default]
    Allow,
    /// It is refused, whatever else matches.
    Deny,
    /// It is recorded, and nothing else. Matches as a DENY does: rather too much than too little.
    Audit,
}

/// Matches a call that comes from one of the sources and asks for one of the operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Where it may come from; empty: from anywhere, also from outside the mesh.
    #[serde(default)]
    pub from: Vec<Source>,
    /// What it may ask for; empty: anything.
    #[serde(default)]
    pub to: Vec<Operation>,
}

/// Matches a caller of whom all of these hold; an empty list says nothing.
/// An ALLOW with any of them never matches a caller without identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// One of these, as `spiffe://cluster.local/ns/shop/sa/web`.
    pub identities: Vec<StringMatch>,
    /// None of these.
    pub not_identities: Vec<StringMatch>,
    /// In one of these Kubernetes namespaces of the workload's own trust domain.
    pub namespaces: Vec<StringMatch>,
    /// In none of these.
    pub not_namespaces: Vec<StringMatch>,
}

/// Matches what is asked for if all of these hold; an empty list says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    /// One of these HTTP methods.
    pub methods: Vec<StringMatch>,
    /// None of these.
    pub not_methods: Vec<StringMatch>,
    /// One of these HTTP paths, without query; see [`path`].
    pub paths: Vec<StringMatch>,
    /// None of these.
    pub not_paths: Vec<StringMatch>,
    /// One of these ports of the pod.
    pub ports: BTreeSet<u16>,
    /// None of these.
    pub not_ports: BTreeSet<u16>,
}

/// What is judged: one request, or one connection that is not HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who calls, as its certificate says; none: from outside the mesh.
    pub peer: Option<&'a SpiffeId>,
    /// The trust domain of the workload that is called.
    pub trust_domain: &'a str,
    /// The port of the pod (a Service's `targetPort`).
    pub port: u16,
    /// The request; none: the connection is not HTTP.
    pub http: Option<Http<'a>>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Http<'a> {
    /// Its method, as it was sent.
    pub method: &'a str,
    /// Its target, as it was sent.
    pub path: &'a str,
}

/// What the policies say of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// Whether it is let in, and why.
    pub decision: Decision<'p>,
    /// The AUDIT policies that it matches.
    pub audited: Vec<By<'p>>,
}

/// Whether a call is let in, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'p> {
    /// No ALLOW policy selects the port, and no DENY matches.
    NothingSays,
    /// This ALLOW matches, and no DENY.
    Allowed(By<'p>),
    /// This DENY matches.
    Denied(By<'p>),
    /// ALLOW policies select the port, of which this is the first, and none of them matches.
    NotAllowed(By<'p>),
}

/// A policy, and the rule of it that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By<'p> {
    /// The policy.
    pub policy: &'p Policy,
    /// The index of its rule; none where no rule matched, or the policy is broken.
    pub rule: Option<usize>,
}

impl Policy {
    /// The same selection and action, closed.
    #[must_use]
    pub fn closed(self) -> Policy {
        Policy { rules: Vec::new(), broken: true, ..self }
    }

    /// Whether it says anything of this port.
    pub fn selects(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

impl Verdict<'_> {
    /// Whether the call is let in.
    pub fn is_allowed(&self) -> bool {
        matches!(self.decision, Decision::NothingSays | Decision::Allowed(_))
    }

    /// The code of the refusal; none if the call is let in.
    pub fn code(&self) -> Option<Code> {
        match self.decision {
            Decision::NothingSays | Decision::Allowed(_) => None,
            Decision::Denied(by) | Decision::NotAllowed(by) if by.policy.broken => Some(Code::POLICY_CLOSED),
            Decision::Denied(_) => Some(Code::DENIED),
            Decision::NotAllowed(_) => Some(Code::NOT_ALLOWED),
        }
    }
}

impl<'p> Decision<'p> {
    /// The policy that decided, if one did.
    pub fn by(&self) -> Option<By<'p>> {
        match self {
            Decision::NothingSays => None,
            Decision::Allowed(by) | Decision::Denied(by) | Decision::NotAllowed(by) => Some(*by),
        }
    }
}

impl By<'_> {
    /// The user's object, and the rule in it.
    pub fn origin(&self) -> Origin {
        match self.rule {
            Some(index) => self.policy.origin.at(format!("spec.rules[{index}]")),
            None => self.policy.origin.clone(),
        }
    }
}

/// What the policies of a workload say of a call to it.
pub fn judge<'p>(policies: &'p [Policy], call: &Call<'_>) -> Verdict<'p> {
    let asked = matches::Asked::of(call);
    let of = |action: Action| {
        policies.iter().filter(move |policy| policy.action == action && policy.selects(call.port))
    };
    let matching = |policy| matches::matching(policy, &asked);
    let audited = of(Action::Audit).filter_map(matching).collect();
    if let Some(by) = of(Action::Deny).find_map(matching) {
        return Verdict { decision: Decision::Denied(by), audited };
    }
    if let Some(by) = of(Action::Allow).find_map(matching) {
        return Verdict { decision: Decision::Allowed(by), audited };
    }
    let decision = match of(Action::Allow).next() {
        Some(policy) => Decision::NotAllowed(By { policy, rule: None }),
        None => Decision::NothingSays,
    };
    Verdict { decision, audited }
}

#[cfg(test)]
mod tests;
