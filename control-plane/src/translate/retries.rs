//! How often and how long a request is tried: what its route says, else the dialled Service's
//! TrafficPolicy, else the default. A route replaces `retry` or `timeouts` as a whole.

use std::sync::Arc;
use std::time::Duration;

use gauze_crds::http_route::{HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts};
use gauze_crds::retry::{RetryBudgetSpec, RetryCondition, RetrySpec, TimeoutsSpec};
use gauze_crds::{TrafficPolicy, duration};
use gauze_model::budget::RetryBudget;
use gauze_model::retry::{BackOff, Conditions, GrpcStatuses, RetryPolicy, StatusSet, Unanswered};
use gauze_model::timeouts::Timeouts;
use gauze_model::{Code, Origin};

use super::policies;
use crate::problem::Problem;

/// What a rule says of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    pub retry: Arc<RetryPolicy>,
    pub timeouts: Timeouts,
}

impl Patience {
    /// Of rules that say nothing themselves.
    pub(super) fn of_policy(policy: Option<&TrafficPolicy>) -> Patience {
        let Some(policy) = policy else { return Patience::default() };
        let origin = policies::origin(policy);
        let retry = policy.spec.retry.as_ref().map(|spec| of_spec(spec, origin.at("spec.retry")));
        let timeouts = policy.spec.timeouts.as_ref().map(|spec| {
            let TimeoutsSpec { request, backend_request } = spec;
            timeouts(*request, *backend_request, origin.at("spec.timeouts"))
        });
        Patience { retry: retry.map(Arc::new).unwrap_or_default(), timeouts: timeouts.unwrap_or_default() }
    }

    /// Of a rule of an HTTPRoute. A value that cannot be has no effect, the rest of the rule has.
    pub(super) fn of_rule(
        self,
        rule: &HttpRouteRule,
        origin: &Origin,
        problems: &mut Vec<Problem>,
    ) -> Patience {
        let at = |field: &str| origin.at(format!("{}.{field}", origin.path));
        let retry = rule.retry.as_ref().map(|given| Arc::new(of_route(given, at("retry"), problems)));
        let timeouts = rule.timeouts.as_ref().map(|given| {
            let HttpRouteTimeouts { request, backend_request } = given;
            let too_long = is_longer(*backend_request, *request);
            problems.extend(too_long.then(|| invalid(at("timeouts.backendRequest"), LONGER)));
            timeouts(*request, backend_request.filter(|_| !too_long), at("timeouts"))
        });
        Patience { retry: retry.unwrap_or(self.retry), timeouts: timeouts.unwrap_or(self.timeouts) }
    }
}

/// A cluster's budget as a policy wants it.
pub(super) fn budget(spec: Option<&RetryBudgetSpec>) -> RetryBudget {
    let RetryBudgetSpec { percent, interval, min_retries_per_second } = spec.cloned().unwrap_or_default();
    let default = RetryBudget::default();
    RetryBudget {
        percent: percent.unwrap_or(default.percent),
        min_per_second: min_retries_per_second.unwrap_or(default.min_per_second),
        interval: interval.map_or(default.interval, |interval| interval.0),
    }
}

// Retries.

/// Both kinds of `retry` ask for connection errors to be retried (GEP-1731), so far as HTTP lets a proxy do
/// that unasked: idempotent methods only (RFC 9110, section 9.2.2).
const ASKED: Conditions = Conditions { unanswered: Unanswered::Idempotent, ..NO_CONDITIONS };
const NO_CONDITIONS: Conditions =
    Conditions { unanswered: Unanswered::Never, statuses: StatusSet::NONE, grpc: GrpcStatuses::NONE };

fn of_spec(spec: &RetrySpec, origin: Origin) -> RetryPolicy {
    let RetrySpec { attempts, codes, retry_on, backoff } = spec;
    let mut conditions = ASKED;
    let mut statuses: Vec<u16> = codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect();
    for word in retry_on {
        match word {
            RetryCondition::ServerError => statuses.extend(StatusSet::server_errors().iter()),
            RetryCondition::GatewayError => statuses.extend(StatusSet::gateway_errors().iter()),
            RetryCondition::Reset => conditions.unanswered = Unanswered::Always,
            RetryCondition::Cancelled => add(&mut conditions, GrpcStatuses::CANCELLED),
            RetryCondition::DeadlineExceeded => add(&mut conditions, GrpcStatuses::DEADLINE_EXCEEDED),
            RetryCondition::Internal => add(&mut conditions, GrpcStatuses::INTERNAL),
            RetryCondition::ResourceExhausted => add(&mut conditions, GrpcStatuses::RESOURCE_EXHAUSTED),
            RetryCondition::Unavailable => add(&mut conditions, GrpcStatuses::UNAVAILABLE),
        }
    }
    conditions.statuses = statuses.into_iter().collect();
    policy(*attempts, conditions, *backoff, origin)
}

fn add(conditions: &mut Conditions, status: GrpcStatuses) {
    conditions.grpc = conditions.grpc.with(status);
}

fn of_route(given: &HttpRouteRetry, origin: Origin, problems: &mut Vec<Problem>) -> RetryPolicy {
    let HttpRouteRetry { codes, attempts, backoff } = given;
    let mut statuses = Vec::new();
    for (index, code) in codes.iter().enumerate() {
        match u16::try_from(*code).ok().filter(|code| (400..600).contains(code)) {
            Some(status) => statuses.push(status),
            None => problems.push(invalid(
                origin.at(format!("{}.codes[{index}]", origin.path)),
                "must be an HTTP status from 400 to 599; write for example 503",
            )),
        }
    }
    let retries = attempts.map(u32::try_from).transpose().unwrap_or_else(|_| {
        let origin = origin.at(format!("{}.attempts", origin.path));
        problems.push(invalid(origin, "must be at least 0; write for example 2, or 0 for no retries"));
        None
    });
    let on = Conditions { statuses: statuses.into_iter().collect(), ..ASKED };
    policy(retries, on, *backoff, origin)
}

fn policy(
    attempts: Option<u32>,
    on: Conditions,
    backoff: Option<duration::Duration>,
    origin: Origin,
) -> RetryPolicy {
    let default = RetryPolicy::default();
    RetryPolicy {
        origin: Some(origin),
        retries: attempts.unwrap_or(default.retries),
        on,
        back_off: backoff.map_or(default.back_off, |backoff| back_off(backoff.0)),
        replay_limit: default.replay_limit,
    }
}

/// No retry before `least` (Gateway API `backoff`); as much again is drawn, which grows as the default does.
fn back_off(least: Duration) -> BackOff {
    if least.is_zero() {
        return BackOff::default();
    }
    BackOff { least, base: least, max: least.saturating_mul(10) }
}

// Timeouts.

pub(super) const LONGER: &str =
    "one try cannot take longer than `request`, all of them; make it shorter, or `request` longer";

/// Whether one try may take longer than the whole request.
pub(super) fn is_longer(
    backend_request: Option<duration::Duration>,
    request: Option<duration::Duration>,
) -> bool {
    let request = limit(request);
    limit(backend_request).is_some_and(|one| request.is_some_and(|all| one > all))
}

fn timeouts(
    request: Option<duration::Duration>,
    backend_request: Option<duration::Duration>,
    origin: Origin,
) -> Timeouts {
    Timeouts { origin: Some(origin), request: limit(request), per_try: limit(backend_request) }
}

/// A duration of 0 is no limit (GEP-1742).
fn limit(duration: Option<duration::Duration>) -> Option<Duration> {
    duration.map(|duration| duration.0).filter(|duration| !duration.is_zero())
}

fn invalid(origin: Origin, message: &str) -> Problem {
    Problem::new(Code::INVALID_VALUE, origin, message)
}
