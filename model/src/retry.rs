//! Whether a request is tried again, and when. [`decide`] looks at what came of a try and at what the
//! policy says; keeping the body, waiting and choosing another endpoint are the data path's, and how much is
//! retried in all is [`crate::budget`]'s.
//!
//! What no byte of reached the app is tried again whatever the method, unless the policy allows no retries.
//! What may have been executed is tried again only where the policy says so.

use std::fmt;
use std::time::Duration;

use http::Method;

use crate::origin::Origin;
use crate::outcome::Outcome;

mod after; // how long a server asks to be left alone
mod statuses; // sets of HTTP and gRPC statuses

pub use after::read_retry_after;
pub use statuses::{GrpcStatuses, StatusSet};

/// How a request is tried again (Envoy `RetryPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The user's `retry` field; `None`: the default.
    pub origin: Option<Origin>,
    /// Beyond the first try (Envoy `num_retries`); 0: never.
    pub retries: u32,
    /// What is tried again, beside what was not delivered.
    pub on: Conditions,
    /// How long a retry waits.
    pub back_off: BackOff,
    /// Bytes of a request's body that are kept for a retry (Envoy `per_request_buffer_limit_bytes`);
    /// a longer one is sent once.
    pub replay_limit: u32,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            origin: None,
            retries: 2,
            on: Conditions::default(),
            back_off: BackOff::default(),
            replay_limit: REPLAY_LIMIT,
        }
    }
}

/// The default of [`RetryPolicy::replay_limit`] (as Linkerd's).
pub const REPLAY_LIMIT: u32 = 64 * 1024;

/// The longest `Retry-After` that a request waits for; with a longer one the response goes to the client,
/// who so learns of it.
pub const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(10);

/// Which outcomes are tried again although the app may have seen the request (Envoy `retry_on`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Tries that ended without a response.
    pub unanswered: Unanswered,
    /// Responses with one of these statuses (Envoy `retriable-status-codes`).
    pub statuses: StatusSet,
    /// Calls that a gRPC server ended with one of these.
    pub grpc: GrpcStatuses,
}

/// Which requests are tried again whose connection or stream was reset, or which took longer than
/// [`Timeouts::per_try`](crate::timeouts::Timeouts::per_try) (Envoy `reset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// None.
    #[default]
    Never,
    /// Those that may be executed twice by their method (RFC 9110, section 9.2.2).
    Idempotent,
    /// All.
    Always,
}

/// How long retries wait: `least`, and a draw below `base` doubled with each retry, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// Added to every draw (Gateway API `retry.backoff`); Envoy has none.
    pub least: Duration,
    /// Bounds the draw of the first retry (Envoy `retry_back_off.base_interval`).
    pub base: Duration,
    /// Bounds every draw (Envoy `retry_back_off.max_interval`).
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff { least: Duration::ZERO, base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// What a decision looks at, beside policy and outcome.
#[derive(Clone, Copy, Debug)]
pub struct TryFacts<'r> {
    /// Of the request.
    pub method: &'r Method,
    /// Retries made so far: 0 after the first try.
    pub retries: u32,
    /// Whether all that was taken of the request's body can be sent again.
    pub replayable: bool,
    /// What the response asks for (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Until the request must have been answered; `None`: no limit.
    pub left: Option<Duration>,
    /// Drawn evenly from all `u32`.
    pub draw: u32,
}

/// What becomes of a request after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is tried again after a wait.
    Again {
        /// Since now.
        after: Duration,
    },
    /// What came of this try is the answer.
    Done(Stop),
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The policy does not ask for it: a success, or what may have been executed.
    NoCondition,
    /// As often as [`RetryPolicy::retries`] says (Envoy flag `URX`).
    RetriesUsedUp,
    /// More of the body was sent than [`RetryPolicy::replay_limit`] keeps.
    BodyNotKept,
    /// It could not begin in time, or `Retry-After` says more than [`RETRY_AFTER_LIMIT`].
    NoTime,
    /// The cluster's [retry budget](crate::budget::RetryBudget) is spent.
    OverBudget,
}

/// Whether a request is tried again. `take_budget` is asked last, so that only retries that will be made
/// are taken from the budget.
pub fn decide(
    policy: &RetryPolicy,
    outcome: &Outcome,
    facts: &TryFacts<'_>,
    take_budget: impl FnOnce() -> bool,
) -> Decision {
    let stop = if !policy.on.hold(outcome, facts.method) {
        Stop::NoCondition
    } else if facts.retries >= policy.retries {
        Stop::RetriesUsedUp
    } else if !facts.replayable {
        Stop::BodyNotKept
    } else {
        let drawn = back_off(&policy.back_off, facts.retries, facts.draw);
        let asked = facts.retry_after.unwrap_or_default();
        let after = drawn.max(asked);
        if asked > RETRY_AFTER_LIMIT || facts.left.is_some_and(|left| after >= left) {
            Stop::NoTime
        } else if !take_budget() {
            Stop::OverBudget
        } else {
            return Decision::Again { after };
        }
    };
    Decision::Done(stop)
}

/// How long the next retry waits, after `retries` of them: full jitter, so that retries of many requests
/// that failed together do not come together.
pub fn back_off(of: &BackOff, retries: u32, draw: u32) -> Duration {
    let doubled = of.base.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX));
    let bound = doubled.min(of.max).as_nanos();
    let drawn = bound * u128::from(draw) / (u128::from(u32::MAX) + 1);
    of.least.saturating_add(Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX)))
}

impl Conditions {
    /// Whether a request with this outcome is to be tried again.
    pub fn hold(&self, outcome: &Outcome, method: &Method) -> bool {
        match outcome {
            Outcome::NotDelivered(_) => true,
            Outcome::Reset | Outcome::Timeout => match self.unanswered {
                Unanswered::Never => false,
                Unanswered::Idempotent => method.is_idempotent(),
                Unanswered::Always => true,
            },
            Outcome::Responded { status, grpc_status } => {
                self.statuses.contains(*status)
                    || grpc_status.is_some_and(|status| self.grpc.contains(status))
            }
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::NoCondition => "no condition of the retry policy holds",
            Stop::RetriesUsedUp => "all retries are used up",
            Stop::BodyNotKept => "the body is longer than what is kept for a retry",
            Stop::NoTime => "no time is left for a retry",
            Stop::OverBudget => "the retry budget is spent",
        })
    }
}

#[cfg(test)]
mod tests;
