//! What a TrafficPolicy says about ejecting endpoints.

use std::num::NonZeroU32;

use gauze_crds::duration::Duration;
use gauze_crds::outlier_detection::OutlierDetectionSpec;
use gauze_model::outlier::OutlierDetection;

/// As the policy wants it; what it does not say is as by default.
pub(super) fn outlier_detection(spec: &OutlierDetectionSpec) -> OutlierDetection {
    let OutlierDetectionSpec {
        consecutive_5xx,
        consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter,
        max_ejection_percent,
    } = spec;
    let default = OutlierDetection::default();
    let count = |given: &Option<u32>, default| given.map_or(default, NonZeroU32::new);
    let time = |given: &Option<Duration>, default| given.map_or(default, |given| given.0);
    let base_ejection_time = time(base_ejection_time, default.base_ejection_time);
    OutlierDetection {
        consecutive_5xx: count(consecutive_5xx, default.consecutive_5xx),
        consecutive_gateway_failure: count(consecutive_gateway_failure, default.consecutive_gateway_failure),
        consecutive_local_origin_failure: count(
            consecutive_local_origin_failure,
            default.consecutive_local_origin_failure,
        ),
        split_external_local_origin_errors: split_external_local_origin_errors
            .unwrap_or(default.split_external_local_origin_errors),
        interval: time(interval, default.interval),
        base_ejection_time,
        max_ejection_time: time(max_ejection_time, default.max_ejection_time.max(base_ejection_time)),
        max_ejection_time_jitter: time(max_ejection_time_jitter, default.max_ejection_time_jitter),
        max_ejection_percent: max_ejection_percent.unwrap_or(default.max_ejection_percent),
    }
}

/// The first thing in it that cannot be: its field, and how to put it right.
pub(super) fn invalid(spec: &OutlierDetectionSpec) -> Option<(&'static str, &'static str)> {
    let is_zero = |time: Option<Duration>| time.is_some_and(|time| time.0.is_zero());
    if is_zero(spec.interval) {
        Some(("outlierDetection.interval", "must be longer than 0; write for example 10s"))
    } else if is_zero(spec.base_ejection_time) {
        Some(("outlierDetection.baseEjectionTime", "must be longer than 0; write for example 30s"))
    } else if is_zero(spec.max_ejection_time) {
        Some(("outlierDetection.maxEjectionTime", "must be longer than 0; write for example 300s"))
    } else if is_shorter_than_base(spec) {
        Some((
            "outlierDetection.maxEjectionTime",
            "must not be shorter than baseEjectionTime, which is 30s if it is not written",
        ))
    } else if spec.max_ejection_percent.is_some_and(|percent| percent > 100) {
        Some(("outlierDetection.maxEjectionPercent", "must be 100 at most"))
    } else {
        None
    }
}

fn is_shorter_than_base(spec: &OutlierDetectionSpec) -> bool {
    let base = spec.base_ejection_time.map_or(OutlierDetection::default().base_ejection_time, |base| base.0);
    spec.max_ejection_time.is_some_and(|longest| longest.0 < base)
}
