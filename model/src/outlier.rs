//! Which endpoints of a cluster get no traffic for a while, because of what came of the tries that they
//! were given (Envoy's outlier detection). Outcomes, time and draws are arguments: the data path tells
//! what happened, this decides. Statistics over a cluster (success rate, failure percentage) are not built.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{NotDelivered, Outcome};

mod detector; // the endpoints of one cluster

pub use detector::{Change, Detector, Standing};

/// When an endpoint is ejected, and for how long (Envoy `OutlierDetection`; the names are Envoy's).
///
/// Where a count is `None`, nothing is ejected for it (Envoy: `enforcing_…` of 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// So many answers of 500 to 599 in a row. What counts as a gateway failure counts here too.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// So many gateway failures in a row: 502, 503, 504, and what gRPC has in their place.
    pub consecutive_gateway_failure: Option<NonZeroU32>,
    /// So many local-origin failures in a row (no connection, reset, time-out). Asked for only where
    /// `split_external_local_origin_errors` is set.
    pub consecutive_local_origin_failure: Option<NonZeroU32>,
    /// Local-origin failures are counted apart. Otherwise each is a gateway failure.
    pub split_external_local_origin_errors: bool,
    /// For each of these that an endpoint went without an ejection, its next one is one base time shorter.
    /// A probe that is not answered for as long does not keep another from being sent.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// No ejection lasts longer, jitter apart (but for a longer `base_ejection_time`).
    pub max_ejection_time: Duration,
    /// Up to this is added to each ejection, so that not all clients come back at the same moment.
    pub max_ejection_time_jitter: Duration,
    /// At most this percentage of a cluster's endpoints is ejected at once, 0 to 100. Never the last one.
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: None,
            consecutive_gateway_failure: NonZeroU32::new(5),
            consecutive_local_origin_failure: NonZeroU32::new(5),
            split_external_local_origin_errors: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::from_secs(3),
            max_ejection_percent: 50,
        }
    }
}

/// What a try says against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 500 to 599, but no gateway failure.
    ServerError,
    /// 502, 503 or 504: something on the way to the app, or the app itself, could not serve.
    Gateway,
    /// Seen from here, without an answer: no connection, reset, time-out.
    LocalOrigin,
}

/// What an outcome says against the endpoint; `None`: nothing.
///
/// A gRPC status counts as the HTTP status that stands for it (Envoy `grpcToHttpStatus`).
pub fn fault(outcome: Outcome) -> Option<Fault> {
    match outcome {
        Outcome::NotDelivered(NotDelivered::SaidByPeer) => Some(Fault::Gateway),
        Outcome::NotDelivered(NotDelivered::ConnectFailure | NotDelivered::RefusedStream)
        | Outcome::Reset
        | Outcome::Timeout => Some(Fault::LocalOrigin),
        Outcome::Responded { status, grpc_status } => match (status.as_u16(), grpc_status) {
            (502..=504, _) | (_, Some(DEADLINE_EXCEEDED | UNAVAILABLE)) => Some(Fault::Gateway),
            (500..=599, _) | (_, Some(UNKNOWN | UNIMPLEMENTED | INTERNAL | DATA_LOSS)) => {
                Some(Fault::ServerError)
            }
            _ => None,
        },
    }
}

// The codes of gRPC that are the server's fault.
const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const DATA_LOSS: u8 = 15;

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// [`OutlierDetection::consecutive_5xx`] was reached.
    #[serde(rename = "consecutive_5xx")]
    Consecutive5xx,
    /// [`OutlierDetection::consecutive_gateway_failure`] was reached.
    ConsecutiveGatewayFailure,
    /// [`OutlierDetection::consecutive_local_origin_failure`] was reached.
    ConsecutiveLocalOriginFailure,
    /// The one request that was to decide whether it comes back failed too.
    ProbeFailed,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Reason; 4] = [
        Reason::Consecutive5xx,
        Reason::ConsecutiveGatewayFailure,
        Reason::ConsecutiveLocalOriginFailure,
        Reason::ProbeFailed,
    ];

    /// As Envoy names its own (`OutlierEjectionType`), for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Consecutive5xx => "consecutive_5xx",
            Reason::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Reason::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Reason::ProbeFailed => "probe_failed",
        }
    }
}

/// Failures in a row, of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 500 to 599, gateway failures included.
    pub server_errors: u32,
    /// Gateway failures.
    pub gateway_failures: u32,
    /// Local-origin failures, where they are counted apart.
    pub local_origin_failures: u32,
}

impl Counts {
    /// The longest row of failures of one kind.
    pub fn most(self) -> u32 {
        self.server_errors.max(self.gateway_failures).max(self.local_origin_failures)
    }
}

impl OutlierDetection {
    /// The counts after one more try. What nothing asks for is not counted.
    fn count(&self, counts: Counts, fault: Option<Fault>) -> Counts {
        let Counts { server_errors, gateway_failures, local_origin_failures } = counts;
        let counted = match fault {
            None => Counts::default(),
            Some(Fault::LocalOrigin) if self.split_external_local_origin_errors => {
                Counts { local_origin_failures: local_origin_failures.saturating_add(1), ..counts }
            }
            Some(Fault::ServerError) => {
                Counts { server_errors: server_errors.saturating_add(1), ..Counts::default() }
            }
            Some(Fault::Gateway | Fault::LocalOrigin) => Counts {
                server_errors: server_errors.saturating_add(1),
                gateway_failures: gateway_failures.saturating_add(1),
                local_origin_failures: 0,
            },
        };
        let asked = |limit: Option<NonZeroU32>, count| if limit.is_some() { count } else { 0 };
        Counts {
            server_errors: asked(self.consecutive_5xx, counted.server_errors),
            gateway_failures: asked(self.consecutive_gateway_failure, counted.gateway_failures),
            local_origin_failures: asked(
                self.consecutive_local_origin_failure,
                counted.local_origin_failures,
            ),
        }
    }

    /// Whether a fault brings an endpoint nearer to its ejection.
    pub fn counts(&self, fault: Fault) -> bool {
        self.count(Counts::default(), Some(fault)) != Counts::default()
    }

    /// The limit that these counts reach.
    fn reached(&self, counts: Counts) -> Option<Reason> {
        let reached = |limit: Option<NonZeroU32>, count| limit.is_some_and(|limit| count >= limit.get());
        if reached(self.consecutive_local_origin_failure, counts.local_origin_failures) {
            Some(Reason::ConsecutiveLocalOriginFailure)
        } else if reached(self.consecutive_gateway_failure, counts.gateway_failures) {
            Some(Reason::ConsecutiveGatewayFailure)
        } else if reached(self.consecutive_5xx, counts.server_errors) {
            Some(Reason::Consecutive5xx)
        } else {
            None
        }
    }

    /// How long the n-th ejection lasts.
    fn ejection_time(&self, times: u32, draw: u32) -> Duration {
        let longest = self.max_ejection_time.max(self.base_ejection_time);
        let jitter = self.max_ejection_time_jitter.mul_f64(f64::from(draw) / f64::from(u32::MAX));
        self.base_ejection_time.saturating_mul(times).min(longest).saturating_add(jitter).min(FOREVER)
    }

    /// How many of so many endpoints may be ejected at once.
    pub fn ejected_max(&self, endpoints: usize) -> usize {
        let share = endpoints.saturating_mul(self.max_ejection_percent.min(100) as usize) / 100;
        share.min(endpoints.saturating_sub(1))
    }
}

/// No clock runs out before this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests;
