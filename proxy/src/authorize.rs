//! Who may come in: what the pod's policies say of a request or a connection to our app, counted, logged and told.
//! The decision itself is `gauze_model::authorization`'s; that a port takes no plaintext (strict) comes before it.
//! A denial tells the caller its code and nothing of the policy.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gauze_model::authorization::{Action, By, Call, Http, Policy, judge};
use gauze_model::listener::{Inbound, Mtls};
use gauze_model::{Code, Origin, SpiffeId};
use prometheus::IntCounter;

use crate::metrics::Metrics;
use crate::record::Record;
use crate::refusal::Refusal;

/// How this pod accepts, with the counters of its policies at hand.
#[derive(Debug)]
pub struct InboundTarget {
    pub inbound: Inbound,
    /// In the order of `inbound.policies`.
    policies: Vec<Arc<PolicyTarget>>,
}

/// One policy, as it is counted and logged.
#[derive(Debug)]
struct PolicyTarget {
    origin: Origin,
    action: Action,
    /// Calls that it let in, refused or recorded, as its action is.
    matched: IntCounter,
    /// Of an ALLOW: calls that neither it nor another let in.
    unmatched: Option<IntCounter>,
    last_told: LastTold,
}

/// When a policy was last in the log: once a second at most, since a caller can be denied as often as it likes.
/// Metrics and access log have every verdict.
#[derive(Debug)]
struct LastTold {
    since: Instant,
    /// Seconds after `since`, plus one; 0: never.
    second: AtomicU64,
}

/// What was decided about one request or connection.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    refused: Option<Code>,
    by: Option<Said>,
    audited: Vec<Said>,
}

/// A call, as the log tells it.
pub(crate) struct Told<'a> {
    pub(crate) peer: Option<&'a SpiffeId>,
    pub(crate) source: SocketAddr,
    pub(crate) port: u16,
    pub(crate) http: Option<Http<'a>>,
}

/// A policy that said something, and the rule of it that matched.
#[derive(Clone, Debug)]
pub struct Said {
    policy: Arc<PolicyTarget>,
    rule: Option<usize>,
}

impl InboundTarget {
    pub fn new(inbound: Inbound, metrics: &Metrics) -> InboundTarget {
        let policies = inbound.policies.iter().map(|policy| Arc::new(PolicyTarget::of(policy, metrics)));
        InboundTarget { policies: policies.collect(), inbound }
    }

    /// What holds for a caller at a port of the pod; `http` is its request, if it is one.
    pub(crate) fn judge(&self, peer: Option<&SpiffeId>, port: u16, http: Option<Http<'_>>) -> Judged {
        if peer.is_none() && self.inbound.port(port).mtls == Mtls::Strict {
            return Judged::refused(Code::PLAINTEXT_REFUSED);
        }
        if self.policies.is_empty() {
            return Judged::default();
        }
        let call = Call { peer, trust_domain: &self.inbound.identity.trust_domain, port, http };
        let verdict = judge(&self.inbound.policies, &call);
        Judged {
            refused: verdict.code(),
            by: verdict.decision.by().and_then(|by| self.said(by)),
            audited: verdict.audited.iter().filter_map(|by| self.said(*by)).collect(),
        }
    }

    fn said(&self, by: By<'_>) -> Option<Said> {
        let mut policies = self.inbound.policies.iter().zip(&self.policies);
        let (_, policy) = policies.find(|(policy, _)| std::ptr::eq(*policy, by.policy))?;
        Some(Said { policy: Arc::clone(policy), rule: by.rule })
    }
}

impl PolicyTarget {
    fn of(policy: &Policy, metrics: &Metrics) -> PolicyTarget {
        let name = format!("{}/{}", policy.origin.namespace, policy.origin.name);
        let matched = match policy.action {
            Action::Allow => "allowed",
            Action::Deny => "denied",
            Action::Audit => "audited",
        };
        PolicyTarget {
            origin: policy.origin.clone(),
            action: policy.action,
            matched: metrics.verdicts(matched, &name),
            unmatched: (policy.action == Action::Allow).then(|| metrics.verdicts("not_allowed", &name)),
            last_told: LastTold { since: Instant::now(), second: AtomicU64::new(0) },
        }
    }
}

impl LastTold {
    /// Whether this second has no line yet; then it has one now.
    fn is_due(&self) -> bool {
        let second = self.since.elapsed().as_secs() + 1;
        self.second.load(Ordering::Relaxed) != second && self.second.swap(second, Ordering::Relaxed) != second
    }
}

impl Judged {
    pub(crate) fn refused(code: Code) -> Judged {
        Judged { refused: Some(code), ..Judged::default() }
    }

    /// # Errors
    /// It may not come in.
    pub(crate) fn allowed(&self) -> Result<(), Refusal> {
        self.refused.map_or(Ok(()), |code| Err(Refusal::new(code, "")))
    }

    /// Counts and logs what was said, and notes it in the record.
    ///
    /// # Errors
    /// It may not come in.
    pub(crate) fn tell(self, call: &Told<'_>, record: &mut Record) -> Result<(), Refusal> {
        let allowed = self.allowed();
        for said in self.by.iter().chain(&self.audited) {
            said.tell(self.refused, call);
        }
        record.error = self.refused;
        record.policy = self.by;
        record.audited = self.audited;
        allowed
    }
}

impl Said {
    fn tell(&self, refused: Option<Code>, call: &Told<'_>) {
        let PolicyTarget { matched, unmatched, last_told, action, .. } = &*self.policy;
        match (unmatched, refused) {
            (Some(unmatched), Some(_)) => unmatched.inc(),
            _ => matched.inc(),
        }
        let is_worth_a_line = *action == Action::Audit || refused.is_some();
        if !is_worth_a_line || !last_told.is_due() {
            return;
        }
        match refused.filter(|_| *action != Action::Audit) {
            Some(code) => tracing::info!(%code, policy = %self, %call, "denied"),
            None => tracing::info!(policy = %self, %call, "recorded"),
        }
    }
}

/// `GET /items on port 8080 by spiffe://cluster.local/ns/shop/sa/web (10.0.0.1:4000)`.
impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.http {
            Some(Http { method, path }) => write!(f, "{method:.16} {path:.256}")?,
            None => f.write_str("a connection")?,
        }
        write!(f, " on port {} by ", self.port)?;
        match self.peer {
            Some(peer) => write!(f, "{peer} ({})", self.source),
            None => write!(f, "outside ({})", self.source),
        }
    }
}

/// `AuthorizationPolicy/shop/cart spec.rules[0]`.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.origin.fmt(f)?;
        self.rule.map_or(Ok(()), |rule| write!(f, " spec.rules[{rule}]"))
    }
}

#[cfg(test)]
mod tests;
