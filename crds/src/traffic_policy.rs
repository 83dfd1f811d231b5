//! `TrafficPolicy` (gauze.dev/v1alpha1): how clients treat a Service.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{Duration, LONGER_THAN_0};
use crate::outlier_detection::OutlierDetectionSpec;
use crate::policy::{PolicyStatus, PolicyTargetReference};
use crate::retry::{RetryBudgetSpec, RetrySpec, TimeoutsSpec};

/// How clients inside the mesh balance over, limit and connect to the endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "gauze.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    plural = "trafficpolicies",
    shortname = "tpol",
    category = "gauze",
    category = "mesh",
    namespaced,
    doc = "How clients inside the mesh balance over, limit and connect to the endpoints of a Service.",
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.targets"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.accepted"),
    printcolumn(name = "Programmed", type_ = "string", json_path = ".status.programmed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.balance) || has(self.connectTimeout) || has(self.limits) || has(self.outlierDetection) || has(self.retry) || has(self.retryBudget) || has(self.timeouts)")
    .message("a policy that says nothing has no effect; write `balance`, `connectTimeout`, `limits`, `outlierDetection`, `retry`, `retryBudget` or `timeouts`"))]
pub struct TrafficPolicySpec {
    /// The Services, in this namespace, that the policy is for. If two policies name the same Service, the older one holds.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(t, t.group == '' && t.kind == 'Service')")
        .message("a TrafficPolicy targets Services: write `group: \"\"` and `kind: Service`"))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// How an endpoint is chosen. Default: PeakEwma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceSpec>,
    /// How much one client's proxy sends at once. What exceeds a limit is answered 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// When an endpoint that fails gets no traffic for a while. Default: after 5 gateway failures in a row, for 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetectionSpec>,
    /// When requests are tried again, unless their route says so itself. Default: twice, what did not reach the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// How much is tried again. What exceeds it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudgetSpec>,
    /// How long requests may take, unless their route says so itself. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsSpec>,
    /// How long a connection may take to be made. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(LONGER_THAN_0)
        .message("connectTimeout must be longer than 0; write for example 500ms"))]
    pub connect_timeout: Option<Duration>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'PeakEwma' || !has(self.peakEwma)")
    .message("`peakEwma` belongs to `type: PeakEwma`; remove it, or change the type"))]
pub struct BalanceSpec {
    /// The algorithm. PeakEwma: of two endpoints drawn, the one with the lower recent latency times requests in flight. LeastRequest: of two drawn, the one with fewer requests in flight. RoundRobin: in turn. Random: any.
    #[serde(rename = "type")]
    pub balance_type: BalanceType,
    /// Settings of `type: PeakEwma`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_ewma: Option<PeakEwmaSpec>,
}

/// The algorithm.
// No doc comments on the variants: they would make a `oneOf` of the schema, which is not structural.
// PeakEwma: two draws, the lighter by recent latency times requests in flight.
// RoundRobin: in turn. LeastRequest: two draws, the one with fewer requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BalanceType {
    #[default]
    PeakEwma,
    RoundRobin,
    LeastRequest,
    Random,
}

/// Settings of `type: PeakEwma`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct PeakEwmaSpec {
    /// What an endpoint is believed to take before it was measured. Default: 30ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Duration>,
    /// How long a peak of latency is remembered. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(LONGER_THAN_0).message("decay must be longer than 0; write for example 10s"))]
    pub decay: Option<Duration>,
}

/// How much one client's proxy sends to one Service port at once (Envoy's circuit breakers).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitsSpec {
    // OpenAPI knows no `uint32`, and Helm and kubectl warn of it.
    /// Connections open at once. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub connections: Option<u32>,
    /// Requests that wait for a connection at once. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub pending: Option<u32>,
    /// Requests in flight at once. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32), extend("format" = "int64"))]
    pub requests: Option<u32>,
}
