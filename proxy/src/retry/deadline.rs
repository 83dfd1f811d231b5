//! When a request must have ended: one moment for all its tries and its response.

use std::time::Duration;

use gauze_model::Code;
use gauze_model::deadline::total;
use tokio::time::Instant;

use crate::refusal::Refusal;

/// When a request must have ended, and why then.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    total: Duration,
    /// [`Code::REQUEST_TIMEOUT`] or [`Code::CALL_DEADLINE`].
    pub(crate) code: Code,
}

impl Deadline {
    /// Of a request that begins now, from what its route says and what a gRPC call brings with it; `None`:
    /// neither says anything, or more than a clock can count.
    pub(crate) fn begin(route: Option<Duration>, call: Option<Duration>) -> Option<Deadline> {
        let total = total(route, call)?;
        let is_of_route = route.is_some_and(|route| route <= total);
        let code = if is_of_route { Code::REQUEST_TIMEOUT } else { Code::CALL_DEADLINE };
        Some(Deadline { at: Instant::now().checked_add(total)?, total, code })
    }

    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// What the request is refused with then.
    pub(crate) fn over(&self) -> Refusal {
        Refusal::new(self.code, format!("{:?}", self.total))
    }
}
