//! What our policies share: targets and status, with the names of GEP-713.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a policy is attached to, in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetReference {
    /// The API group of the target; empty for a Service.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// The kind of the target.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The name of one port of the Service. Without it the policy holds for all of its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// The status of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyStatus {
    // An API server prints only the first of several values in a column, so what a reader wants to see in one stands here.
    /// In short, for `kubectl get`: what the policy is for, as in `cart,web:http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub targets: Option<String>,
    /// In short, for `kubectl get`: True, False, or how many of its targets accept it, as in `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub accepted: Option<String>,
    /// In short, for `kubectl get`: how many of the pods that it concerns hold it, as in `37/40`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub programmed: Option<String>,
    /// One entry for each target and controller.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// The status of a policy at one of its targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The target, as it stands in `spec.targetRefs`.
    pub ancestor_ref: PolicyTargetReference,
    /// Who wrote this entry.
    #[schemars(length(max = 253))]
    pub controller_name: String,
    /// Accepted and Programmed.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
