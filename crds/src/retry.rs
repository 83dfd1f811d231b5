//! What a TrafficPolicy says of retries and timeouts.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// How clients try requests again. What did not reach the app is always tried again, and requests with an
/// idempotent method also when no response came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    // OpenAPI knows no `uint32`, and Helm and kubectl warn of it.
    /// How often a request is tried again; 0: never. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10), extend("format" = "int64"))]
    pub attempts: Option<u32>,
    /// HTTP statuses of responses upon which a request is tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 400, max = 599)))]
    pub codes: Vec<i64>,
    // Not `on`, which kubectl reads as a boolean (YAML 1.1).
    /// More on which a request is tried again: `5xx` and `gateway-error` (502, 503, 504) are statuses, `reset` is no
    /// response whatever the method, the others are gRPC statuses, looked for in trailers too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub retry_on: Vec<RetryCondition>,
    /// The least wait before a request is tried again; it grows with each retry. Default: a random time below
    /// 25ms, 50ms, 100ms, up to 250ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

/// A word of Envoy's `retry_on`.
// No doc comments on the variants: they would make a `oneOf` of the schema, which is not structural.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryCondition {
    #[serde(rename = "5xx")]
    ServerError,
    #[serde(rename = "gateway-error")]
    GatewayError,
    #[serde(rename = "reset")]
    Reset,
    #[serde(rename = "cancelled")]
    Cancelled,
    #[serde(rename = "deadline-exceeded")]
    DeadlineExceeded,
    #[serde(rename = "internal")]
    Internal,
    #[serde(rename = "resource-exhausted")]
    ResourceExhausted,
    #[serde(rename = "unavailable")]
    Unavailable,
}

/// How long a request may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)"
).message("`backendRequest`, one try, cannot be longer than `request`, all of them"))]
pub struct TimeoutsSpec {
    /// The whole request, with all tries; 0s: no limit. Default: no limit. A shorter `grpc-timeout` of the call holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// Each try; 0s: no limit. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// How much one client's proxy retries of all it sends to one Service port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudgetSpec {
    /// Retries, of the requests of the last `interval`. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("format" = "int64"))]
    pub percent: Option<u32>,
    /// Whole seconds, 1s to 60s. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(
        "!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('1s') && duration(self) <= duration('60s') && duration(self).getMilliseconds() % 1000 == 0"
    ).message("interval must be whole seconds from 1s to 60s; write for example 10s"))]
    pub interval: Option<Duration>,
    /// Retries that are allowed beside, each second on average. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub min_retries_per_second: Option<u32>,
}
