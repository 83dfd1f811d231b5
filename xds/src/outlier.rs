//! Outlier detection: Envoy's `OutlierDetection`. Ejections for what a whole cluster does (success rate, failure
//! percentage) are refused where they are switched on; Envoy switches on the success rate unless told otherwise.
//!
//! Envoy lets an ejected endpoint come back when its time is over; gauze sends it one request first.

use std::num::NonZeroU32;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::google::protobuf;
use gauze_model::outlier::OutlierDetection;

use crate::path::{At as _, Fault, Read, refuse};
use crate::values::{duration, read_duration, uint};

// What Envoy does where nothing is said.
const CONSECUTIVE: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
const MAX_EJECTION_PERCENT: u32 = 10;

pub(crate) fn write(of: &OutlierDetection) -> cluster::OutlierDetection {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_failure,
        consecutive_local_origin_failure,
        split_external_local_origin_errors,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter,
        max_ejection_percent,
    } = *of;
    let limit = |limit: Option<NonZeroU32>| limit.and_then(|limit| uint(limit.get()));
    let enforcing = |limit: Option<NonZeroU32>| uint(if limit.is_some() { 100 } else { 0 });
    cluster::OutlierDetection {
        consecutive_5xx: limit(consecutive_5xx),
        enforcing_consecutive_5xx: enforcing(consecutive_5xx),
        consecutive_gateway_failure: limit(consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: enforcing(consecutive_gateway_failure),
        consecutive_local_origin_failure: limit(consecutive_local_origin_failure),
        enforcing_consecutive_local_origin_failure: enforcing(consecutive_local_origin_failure),
        split_external_local_origin_errors,
        interval: Some(duration(interval)),
        base_ejection_time: Some(duration(base_ejection_time)),
        max_ejection_time: Some(duration(max_ejection_time)),
        max_ejection_time_jitter: Some(duration(max_ejection_time_jitter)),
        max_ejection_percent: uint(max_ejection_percent),
        enforcing_success_rate: uint(0),
        enforcing_local_origin_success_rate: uint(0),
        enforcing_failure_percentage: uint(0),
        enforcing_failure_percentage_local_origin: uint(0),
        ..cluster::OutlierDetection::default()
    }
}

pub(crate) fn read(of: cluster::OutlierDetection) -> Read<OutlierDetection> {
    let cluster::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = of;
    refuse!(success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor);
    refuse!(failure_percentage_threshold, failure_percentage_minimum_hosts);
    refuse!(failure_percentage_request_volume, successful_active_health_check_uneject_host);
    refuse!(monitors, always_eject_one_host, detect_degraded_hosts);
    off(enforcing_success_rate, 100).at("enforcing_success_rate")?;
    let local_rate = if split_external_local_origin_errors { 100 } else { 0 };
    off(enforcing_local_origin_success_rate, local_rate).at("enforcing_local_origin_success_rate")?;
    off(enforcing_failure_percentage, 0).at("enforcing_failure_percentage")?;
    off(enforcing_failure_percentage_local_origin, 0).at("enforcing_failure_percentage_local_origin")?;
    let base_ejection_time =
        longer_than_0(base_ejection_time, BASE_EJECTION_TIME).at("base_ejection_time")?;
    Ok(OutlierDetection {
        consecutive_5xx: enforced(enforcing_consecutive_5xx, 100, consecutive_5xx)
            .at("enforcing_consecutive_5xx")?,
        consecutive_gateway_failure: enforced(
            enforcing_consecutive_gateway_failure,
            0,
            consecutive_gateway_failure,
        )
        .at("enforcing_consecutive_gateway_failure")?,
        consecutive_local_origin_failure: enforced(
            enforcing_consecutive_local_origin_failure,
            100,
            consecutive_local_origin_failure,
        )
        .at("enforcing_consecutive_local_origin_failure")?,
        split_external_local_origin_errors,
        interval: longer_than_0(interval, INTERVAL).at("interval")?,
        base_ejection_time,
        max_ejection_time: longest(max_ejection_time, base_ejection_time).at("max_ejection_time")?,
        max_ejection_time_jitter: max_ejection_time_jitter
            .map_or(Ok(Duration::ZERO), read_duration)
            .at("max_ejection_time_jitter")?,
        max_ejection_percent: percent(max_ejection_percent, MAX_EJECTION_PERCENT)
            .at("max_ejection_percent")?,
    })
}

/// What is not built must be switched off.
fn off(enforcing: Option<protobuf::UInt32Value>, default: u32) -> Read<()> {
    match enforcing.map_or(default, |enforcing| enforcing.value) {
        0 => Ok(()),
        _ => Err(Fault::beyond("not supported; must be 0")),
    }
}

/// A limit that holds always or never. Envoy never reaches a limit of 0 either.
fn enforced(
    enforcing: Option<protobuf::UInt32Value>,
    default: u32,
    limit: Option<protobuf::UInt32Value>,
) -> Read<Option<NonZeroU32>> {
    let limit = NonZeroU32::new(limit.map_or(CONSECUTIVE, |limit| limit.value));
    match enforcing.map_or(default, |enforcing| enforcing.value) {
        0 => Ok(None),
        100 => Ok(limit),
        _ => Err(Fault::beyond("is neither 0 nor 100: ejecting now and then is not supported")),
    }
}

fn longer_than_0(given: Option<protobuf::Duration>, default: Duration) -> Read<Duration> {
    match given.map_or(Ok(default), read_duration)? {
        Duration::ZERO => Err(Fault::new("must be longer than 0")),
        longer => Ok(longer),
    }
}

/// No shorter than the first ejection (so Envoy).
fn longest(given: Option<protobuf::Duration>, base: Duration) -> Read<Duration> {
    let longest = longer_than_0(given, MAX_EJECTION_TIME.max(base))?;
    if longest < base { Err(Fault::new("must not be shorter than base_ejection_time")) } else { Ok(longest) }
}

fn percent(given: Option<protobuf::UInt32Value>, default: u32) -> Read<u32> {
    match given.map_or(default, |given| given.value) {
        percent @ 0..=100 => Ok(percent),
        _ => Err(Fault::new("must be 100 at most")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> cluster::OutlierDetection {
        cluster::OutlierDetection { enforcing_success_rate: uint(0), ..cluster::OutlierDetection::default() }
    }

    #[test]
    fn where_nothing_is_said_it_is_as_envoy_has_it() {
        let wanted = OutlierDetection {
            consecutive_5xx: NonZeroU32::new(5),
            consecutive_gateway_failure: None,
            consecutive_local_origin_failure: NonZeroU32::new(5),
            split_external_local_origin_errors: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
        };
        assert_eq!(read(message()), Ok(wanted));
        let slow = cluster::OutlierDetection {
            base_ejection_time: Some(duration(Duration::from_secs(900))),
            ..message()
        };
        assert_eq!(read(slow).unwrap().max_ejection_time, Duration::from_secs(900));
    }

    #[test]
    fn what_is_not_built_is_refused_by_its_field() {
        type Change = fn(&mut cluster::OutlierDetection);
        let changes: [(&str, Change); 13] = [
            ("enforcing_success_rate", |of| of.enforcing_success_rate = None),
            ("enforcing_success_rate", |of| of.enforcing_success_rate = uint(100)),
            ("success_rate_stdev_factor", |of| of.success_rate_stdev_factor = uint(1900)),
            ("enforcing_local_origin_success_rate", |of| of.split_external_local_origin_errors = true),
            ("enforcing_failure_percentage", |of| of.enforcing_failure_percentage = uint(1)),
            ("failure_percentage_threshold", |of| of.failure_percentage_threshold = uint(85)),
            ("enforcing_consecutive_5xx", |of| of.enforcing_consecutive_5xx = uint(50)),
            ("enforcing_consecutive_gateway_failure", |of| {
                of.enforcing_consecutive_gateway_failure = uint(99)
            }),
            ("always_eject_one_host", |of| of.always_eject_one_host = crate::values::boolean(true)),
            ("max_ejection_percent", |of| of.max_ejection_percent = uint(101)),
            ("max_ejection_time", |of| of.max_ejection_time = Some(duration(Duration::from_secs(29)))),
            ("interval", |of| of.interval = Some(duration(Duration::ZERO))),
            ("base_ejection_time", |of| {
                of.base_ejection_time = Some(protobuf::Duration { seconds: -1, nanos: 0 })
            }),
        ];
        for (field, change) in changes {
            let mut of = message();
            change(&mut of);
            let rejection = read(of).unwrap_err().into_rejection(gauze_model::Kind::Cluster, "");
            assert_eq!(rejection.path, field);
        }
    }
}
