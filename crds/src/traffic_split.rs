//! SMI `TrafficSplit` (split.smi-spec.io): the traffic of a Service, shared out among others. One type
//! reads v1alpha1 to v1alpha4; what is generated from it is v1alpha4, the one that is stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod versions; // the definition, with all that is served
mod weight; // a share, in the notation of every version

pub use versions::{CONVERT_PATH, NAME, STORED, converts, definition};
pub use weight::{WEIGHT_MAX, Weight};

/// Shares out the traffic of a Service among other Services by weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "split.smi-spec.io",
    version = "v1alpha4",
    kind = "TrafficSplit",
    shortname = "ts",
    category = "gauze",
    category = "mesh",
    namespaced,
    doc = "Shares out the traffic of a Service among other Services by weight.",
    status = "TrafficSplitStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Split", type_ = "string", json_path = ".status.split"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.accepted"),
    printcolumn(name = "Programmed", type_ = "string", json_path = ".status.programmed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct TrafficSplitSpec {
    /// The root: the Service, in this namespace, whose traffic is shared out. `cart`, `cart.shop` and
    /// `cart.shop.svc.cluster.local` mean the same.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Who gets how much. A backend must have a port of the same number as the root.
    #[schemars(length(min = 1, max = 64))]
    pub backends: Vec<SplitBackend>,
    /// HTTPRouteGroups that say which requests are shared out: those that match any of them. All others go to the endpoints of the root itself. Without it: every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub matches: Option<Vec<SplitMatch>>,
}

/// One share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SplitBackend {
    /// A Service in this namespace; it may be the root itself, and it may not exist yet.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// The share, relative to the sum of all: a whole number of 0 or more.
    #[x_kube(
        validation = Rule::new("self >= 0.0").message("weight must be 0 or more; write for example 90"),
        validation = Rule::new("double(int(self)) == self")
            .message("weight must be a whole number; for finer shares write larger numbers, as 995 and 5")
    )]
    pub weight: Weight,
}

/// A reference to an HTTPRouteGroup in this namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitMatch {
    /// The API group; `specs.smi-spec.io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub api_group: Option<String>,
    /// HTTPRouteGroup.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The status of a split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct TrafficSplitStatus {
    /// The split in short, for `kubectl get`: `cart-v1=90 cart-v2=10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub split: Option<String>,
    /// In short, for `kubectl get`: True or False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub accepted: Option<String>,
    /// In short, for `kubectl get`: how many of the pods that it concerns hold it, as in `37/40`; Overridden by a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub programmed: Option<String>,
    /// Accepted, ResolvedRefs and Programmed.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
