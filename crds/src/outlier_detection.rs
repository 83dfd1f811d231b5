//! `outlierDetection` of a `TrafficPolicy`: when an endpoint gets no traffic for a while.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{Duration, LONGER_THAN_0};

/// When an endpoint that fails gets no traffic for a while (Envoy's outlier detection). Each client's proxy sees
/// for itself. The last endpoint of a port is never ejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxEjectionTime) || duration(self.maxEjectionTime) >= (has(self.baseEjectionTime) ? duration(self.baseEjectionTime) : duration('30s'))")
    .message("maxEjectionTime must not be shorter than baseEjectionTime, which is 30s if it is not written"))]
pub struct OutlierDetectionSpec {
    // OpenAPI knows no `uint32`, and Helm and kubectl warn of it.
    /// Eject after so many answers of 500 to 599 in a row; gateway failures count too. 0: never. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub consecutive_5xx: Option<u32>,
    /// Eject after so many gateway failures in a row: 502, 503, 504, gRPC UNAVAILABLE and DEADLINE_EXCEEDED, and,
    /// unless they are split, local-origin failures. 0: never. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub consecutive_gateway_failure: Option<u32>,
    /// Count local-origin failures (no connection, a reset, a time-out) apart from what the endpoint answers.
    /// Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// Eject after so many local-origin failures in a row, where they are split. 0: never. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub consecutive_local_origin_failure: Option<u32>,
    /// For each of these that an endpoint goes without an ejection, its next one is one base time shorter. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(LONGER_THAN_0)
        .message("interval must be longer than 0; write for example 10s"))]
    pub interval: Option<Duration>,
    /// How long the first ejection lasts; the n-th lasts n times as long. Then one request decides whether the
    /// endpoint comes back. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(LONGER_THAN_0)
        .message("baseEjectionTime must be longer than 0; write for example 30s"))]
    pub base_ejection_time: Option<Duration>,
    /// The longest ejection. Default: 300s, or baseEjectionTime if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(LONGER_THAN_0)
        .message("maxEjectionTime must be longer than 0; write for example 300s"))]
    pub max_ejection_time: Option<Duration>,
    /// Up to this is added to each ejection by chance, so that clients do not all come back at once. Default: 3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_time_jitter: Option<Duration>,
    /// The part of the endpoints that may be ejected at once, rounded down. 0: none. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("format" = "int32"))]
    pub max_ejection_percent: Option<u32>,
}
