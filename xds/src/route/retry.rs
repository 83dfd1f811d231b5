//! How requests are tried again and how long they may take: Envoy's `RetryPolicy`, and the timeouts of its
//! `RouteAction`.
//!
//! What Envoy has no field for stands in the route's metadata: whose settings they are, the least wait, and that only
//! idempotent requests are tried again without a response (which Envoy then does not do). What was not delivered is
//! always tried again, so `connect-failure`, `refused-stream` and `reset-before-request` say nothing new.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate};
use envoy_types::pb::envoy::config::route::v3::route_action::MaxStreamDuration;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::google::protobuf;
use envoy_types::util::pack_any;
use gauze_model::Origin;
use gauze_model::retry::{
    BackOff, Conditions, GrpcStatuses, REPLAY_LIMIT, RetryPolicy, StatusSet, Unanswered,
};
use gauze_model::timeouts::Timeouts;

use crate::metadata::{Facts, origin_of, origin_value, string, string_of};
use crate::path::{At as _, Fault, Read, each, refuse, required, same};
use crate::values::{duration, read_duration, uint, unpack};

/// Envoy's `RouteAction.timeout` where none is given.
const ENVOY_TIMEOUT: Duration = Duration::from_secs(15);

/// Envoy's `num_retries` where none is given.
const ENVOY_RETRIES: u32 = 1;

/// How often Envoy looks for a host that was not tried yet (as Istio).
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// The facts in a route's metadata.
const RETRY: &str = "retry";
const TIMEOUTS: &str = "timeouts";
const LEAST_WAIT: &str = "retry_least_wait_ns";
const IDEMPOTENT: &str = "retry_unanswered";

/// How often and how long a request is tried that a rule forwards.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pub(super) retry: Arc<RetryPolicy>,
    pub(super) timeouts: Timeouts,
}

/// What a route says of it outside its action.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Beside {
    retry: Option<Origin>,
    timeouts: Option<Origin>,
    least: Duration,
    idempotent: bool,
    replay_limit: Option<u32>,
}

pub(super) fn write_facts(mut facts: Facts, retry: &RetryPolicy, timeouts: &Timeouts) -> Facts {
    if let Some(origin) = &retry.origin {
        facts = facts.with(RETRY, origin_value(origin));
    }
    if let Some(origin) = &timeouts.origin {
        facts = facts.with(TIMEOUTS, origin_value(origin));
    }
    if !retry.back_off.least.is_zero() {
        facts = facts.with(LEAST_WAIT, string(retry.back_off.least.as_nanos().to_string()));
    }
    if retry.on.unanswered == Unanswered::Idempotent {
        facts = facts.with(IDEMPOTENT, string("idempotent".to_owned()));
    }
    facts
}

pub(super) fn read_facts(facts: &mut Facts, replay_limit: Option<protobuf::UInt32Value>) -> Read<Beside> {
    let retry = facts.take(RETRY, origin_of)?;
    let timeouts = facts.take(TIMEOUTS, origin_of)?;
    let least = facts.take(LEAST_WAIT, |value| string_of(value).and_then(|text| read_nanoseconds(&text)))?;
    let idempotent = facts.take(IDEMPOTENT, |value| match string_of(value)?.as_str() {
        "idempotent" => Ok(()),
        other => Err(Fault::new(format!("`{other}` is not `idempotent`"))),
    })?;
    Ok(Beside {
        retry,
        timeouts,
        least: least.unwrap_or_default(),
        idempotent: idempotent.is_some(),
        replay_limit: replay_limit.map(|limit| limit.value),
    })
}

/// Only what is forwarded can be tried again.
pub(super) fn refuse_beside(beside: &Beside) -> Read<()> {
    let is_forwarded_only = *beside == Beside::default();
    if is_forwarded_only { Ok(()) } else { Err(Fault::new("retries of what is not forwarded")) }
}

fn read_nanoseconds(text: &str) -> Read<Duration> {
    text.parse().map(Duration::from_nanos).map_err(|_| Fault::new("not a number of nanoseconds"))
}

// Timeouts.

/// The fields of a `RouteAction` that are about time.
pub(super) struct Times {
    pub(super) timeout: Option<protobuf::Duration>,
    pub(super) max_stream_duration: Option<MaxStreamDuration>,
}

/// `grpc-timeout` is obeyed up to the route's own timeout; Envoy must be told to.
pub(super) fn write_times(timeouts: &Timeouts) -> Times {
    let request = Some(duration(timeouts.request.unwrap_or_default())); // 0: none; Envoy's default is 15 s
    let grpc = MaxStreamDuration { grpc_timeout_header_max: request, ..MaxStreamDuration::default() };
    Times { timeout: request, max_stream_duration: Some(grpc) }
}

fn read_request_timeout(times: Times) -> Read<Option<Duration>> {
    let Times { timeout, max_stream_duration } = times;
    let request = timeout.map_or(Ok(ENVOY_TIMEOUT), read_duration).at("timeout")?;
    if let Some(given) = max_stream_duration {
        read_grpc_timeout(given, request).at("max_stream_duration")?;
    }
    Ok((!request.is_zero()).then_some(request))
}

fn read_grpc_timeout(given: MaxStreamDuration, request: Duration) -> Read<()> {
    let MaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } =
        given;
    refuse!(max_stream_duration, grpc_timeout_header_offset);
    same(&grpc_timeout_header_max, &Some(duration(request))).at("grpc_timeout_header_max")
}

// Retries.

pub(super) fn write(retry: &RetryPolicy, per_try: Option<Duration>) -> route::RetryPolicy {
    let RetryPolicy { origin: _, retries, on, back_off, replay_limit: _ } = retry;
    let BackOff { least: _, base, max } = back_off;
    route::RetryPolicy {
        retry_on: write_conditions(on),
        num_retries: uint(*retries),
        per_try_timeout: per_try.map(duration),
        retry_host_predicate: vec![previous_hosts()],
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        retriable_status_codes: on.statuses.iter().map(u32::from).collect(),
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(duration(*base)),
            max_interval: Some(duration(*max)),
        }),
        ..route::RetryPolicy::default()
    }
}

pub(super) fn read(policy: Option<route::RetryPolicy>, times: Times, beside: &Beside) -> Read<Patience> {
    let request = read_request_timeout(times)?;
    let (mut retry, per_try) = policy.map_or_else(|| Ok(none()), read_policy).at("retry_policy")?;
    if beside.idempotent && retry.on.unanswered == Unanswered::Never {
        retry.on.unanswered = Unanswered::Idempotent;
    }
    retry.back_off.least = beside.least;
    retry.origin.clone_from(&beside.retry);
    retry.replay_limit = beside.replay_limit.unwrap_or(REPLAY_LIMIT);
    let timeouts = Timeouts { origin: beside.timeouts.clone(), request, per_try };
    Ok(Patience { retry: Arc::new(retry), timeouts })
}

/// Without a policy nothing is tried again (so Envoy).
fn none() -> (RetryPolicy, Option<Duration>) {
    (RetryPolicy { retries: 0, ..RetryPolicy::default() }, None)
}

fn read_policy(policy: route::RetryPolicy) -> Read<(RetryPolicy, Option<Duration>)> {
    let route::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts: _, // all endpoints are looked at
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = policy;
    refuse!(per_try_idle_timeout, retry_priority, retry_options_predicates, rate_limited_retry_back_off);
    refuse!(retriable_headers, retriable_request_headers, refresh_cluster_on_retry);
    each(retry_host_predicate, read_predicate).at("retry_host_predicate")?;
    let codes = each(retriable_status_codes, read_status).at("retriable_status_codes")?;
    let retries = num_retries.map_or(ENVOY_RETRIES, |retries| retries.value);
    let per_try = per_try_timeout.map(read_duration).transpose().at("per_try_timeout")?;
    let policy = RetryPolicy {
        retries: if retry_on.is_empty() { 0 } else { retries },
        on: read_conditions(&retry_on, codes)?,
        back_off: read_back_off(retry_back_off).at("retry_back_off")?,
        ..RetryPolicy::default()
    };
    Ok((policy, per_try.filter(|timeout| !timeout.is_zero())))
}

fn read_back_off(given: Option<RetryBackOff>) -> Read<BackOff> {
    let Some(RetryBackOff { base_interval, max_interval }) = given else {
        return Ok(BackOff::default());
    };
    let base = required(base_interval).and_then(read_duration).at("base_interval")?;
    let max = max_interval.map(read_duration).transpose().at("max_interval")?;
    let max = max.unwrap_or(base.saturating_mul(10)); // so Envoy
    if max < base {
        return Err(Fault::new("shorter than `base_interval`").at("max_interval"));
    }
    Ok(BackOff { least: Duration::ZERO, base, max })
}

/// Another endpoint than before, which is how retries choose theirs.
fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(PreviousHostsPredicate {}))),
    }
}

fn read_predicate(predicate: RetryHostPredicate) -> Read<()> {
    let RetryHostPredicate { name: _, config_type } = predicate; // the type says which it is
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        return Err(Fault::new("missing").at("typed_config"));
    };
    unpack::<PreviousHostsPredicate>(&config).map(|PreviousHostsPredicate {}| ()).at("typed_config")
}

// Conditions.

const STATUS_CODES: &str = "retriable-status-codes";

fn write_conditions(on: &Conditions) -> String {
    let Conditions { unanswered, statuses, grpc } = on;
    let mut words = vec!["connect-failure", "refused-stream"];
    if *unanswered == Unanswered::Always {
        words.push("reset");
    }
    if !statuses.is_empty() {
        words.push(STATUS_CODES);
    }
    words.extend(grpc.words());
    words.join(",")
}

/// Envoy's words. Its `5xx` and `gateway-error` take in requests without a response.
fn read_conditions(words: &str, codes: Vec<u16>) -> Read<Conditions> {
    let (mut on, mut named) = (Conditions::default(), false);
    let mut statuses = Vec::new();
    for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "connect-failure" | "refused-stream" | "reset-before-request" => {}
            "reset" => on.unanswered = Unanswered::Always,
            "5xx" => {
                on.unanswered = Unanswered::Always;
                statuses.extend(StatusSet::server_errors().iter());
            }
            "gateway-error" => {
                on.unanswered = Unanswered::Always;
                statuses.extend(StatusSet::gateway_errors().iter());
            }
            "retriable-4xx" => statuses.push(409), // the only one (so Envoy)
            STATUS_CODES => named = true,
            grpc => {
                let status = GrpcStatuses::of_word(grpc).ok_or_else(|| unknown_word(grpc))?;
                on.grpc = on.grpc.with(status);
            }
        }
    }
    if !codes.is_empty() && !named {
        let problem = format!("has no effect unless `retry_on` names `{STATUS_CODES}`");
        return Err(Fault::new(problem).at("retriable_status_codes"));
    }
    on.statuses = statuses.into_iter().chain(codes).collect();
    Ok(on)
}

fn unknown_word(word: &str) -> Fault {
    Fault::beyond(format!("`{word}` is not supported")).at("retry_on")
}

fn read_status(code: u32) -> Read<u16> {
    let status = u16::try_from(code).ok().filter(|code| (100..600).contains(code));
    status.ok_or_else(|| Fault::new(format!("{code} is not an HTTP status")))
}
