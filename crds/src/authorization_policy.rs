//! `AuthorizationPolicy` (gauze.dev/v1alpha1): who may call the pods of a namespace, and for what.

// KubeSchema repeats each struct inside a function, where nobody reads a field that is no part of the schema.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may call pods of this namespace, and for what. Deny comes before Allow; where no Allow policy selects a port, what is not denied is allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "gauze.dev",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    plural = "authorizationpolicies",
    shortname = "apol",
    category = "gauze",
    category = "mesh",
    namespaced,
    doc = "Who may call pods of this namespace, and for what. Deny comes before Allow; where no Allow policy selects a port, what is not denied is allowed.",
    status = "AuthorizationPolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.targets"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.accepted"),
    printcolumn(name = "Programmed", type_ = "string", json_path = ".status.programmed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.action == 'Allow' || (has(self.rules) && size(self.rules) > 0)")
    .message("a policy without rules that denies or audits has no effect: write at least one rule"))]
pub struct AuthorizationPolicySpec {
    /// The pods, in this namespace, that the policy is for. Without it: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(t, t.group == '' && (t.kind == 'Service' ? has(t.name) && !has(t.selector) : t.kind == 'Pod' && has(t.selector) && !has(t.name)))")
        .message("an AuthorizationPolicy targets `kind: Service` by `name`, or `kind: Pod` by `selector`, both of `group: \"\"`"))]
    pub target_refs: Option<Vec<AuthorizationTargetReference>>,
    /// What becomes of a call that matches a rule. Allow: it is let in, and what no Allow policy matches is not. Deny: it is refused, whatever else matches. Audit: it is only recorded. Default: Allow.
    #[serde(default)]
    pub action: AuthorizationAction,
    /// A call matches the policy if it matches one of these. An Allow policy without rules lets nobody in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rules: Vec<AuthorizationRule>,
    /// Why a reader could not understand all of it; whoever obeys it must take it for closed. Never part of the object.
    #[serde(skip)]
    #[schemars(skip)]
    pub unreadable: Option<Unreadable>,
}

/// What a reader did not understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The field, as in `spec.rules[0].from`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// Whether the targets are among what was not understood: then the policy is for the whole namespace.
    pub target_refs: bool,
}

/// What an AuthorizationPolicy is for, in its own namespace (GEP-713; selectors as in GEP-3779).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationTargetReference {
    /// The API group of the target; empty for Services and Pods.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Service: the pods behind it, at its target ports. Pod: the pods that the selector selects, at all ports.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The name of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Selects pods by their labels; an empty one selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,
}

/// Selects pods by their labels, of which all that is said must hold (Kubernetes' LabelSelector, with limits).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
    /// What else is said of labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<PodSelectorRequirement>,
}

/// What is said of one label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] == (has(self.values) && size(self.values) > 0)")
    .message("In and NotIn need `values`, Exists and DoesNotExist take none"))]
pub struct PodSelectorRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In and NotIn: its value is one of `values`, or none of them. Exists and DoesNotExist: it is there, or not.
    pub operator: PodSelectorOperator,
    /// The values of In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
// No doc comments on the variants: they would make a `oneOf` of the schema, which is not structural.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodSelectorOperator {
    #[default]
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// What becomes of a call that matches a rule.
// No doc comments on the variants: they would make a `oneOf` of the schema, which is not structural.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizationAction {
    #[default]
    Allow,
    Deny,
    Audit,
}

impl fmt::Display for AuthorizationAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Matches a call that comes from one of the sources and asks for one of the operations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.from) || has(self.to)")
    .message("a rule says `from`, `to`, or both; to let nobody in, write `action: Allow` without rules"))]
pub struct AuthorizationRule {
    /// Who calls. Without it: anybody, also from outside the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub from: Option<Vec<AuthorizationSource>>,
    /// What is asked for. Without it: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub to: Option<Vec<AuthorizationOperation>>,
}

/// Matches a caller of whom all of these hold. No Allow matches a caller without identity by any of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.identities) || has(self.notIdentities) || has(self.namespaces) || has(self.notNamespaces)")
    .message("a source says at least one of `identities`, `notIdentities`, `namespaces` and `notNamespaces`"))]
pub struct AuthorizationSource {
    /// One of these SPIFFE ids, as in spiffe://cluster.local/ns/shop/sa/web; or a part of it, as in spiffe://cluster.local/ns/shop/* or */sa/web; or * for anybody in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 512), regex(pattern = IDENTITY)))]
    pub identities: Option<Vec<String>>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 512), regex(pattern = IDENTITY)))]
    pub not_identities: Option<Vec<String>>,
    /// A ServiceAccount of one of these namespaces, of the same trust domain; shop-* and *-prod are possible too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 64), regex(pattern = NAMESPACE)))]
    pub namespaces: Option<Vec<String>>,
    /// Of none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 64), regex(pattern = NAMESPACE)))]
    pub not_namespaces: Option<Vec<String>>,
}

/// Matches what is asked for if all of these hold. On a connection that is not HTTP, no Allow matches by methods or paths, and a Deny matches by its other fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.methods) || has(self.notMethods) || has(self.paths) || has(self.notPaths) || has(self.ports) || has(self.notPorts)")
    .message("an operation says at least one of `methods`, `notMethods`, `paths`, `notPaths`, `ports` and `notPorts`"))]
pub struct AuthorizationOperation {
    /// One of these HTTP methods, in capitals, as in GET; or a part of it, as in P*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 64), regex(pattern = METHOD)))]
    pub methods: Option<Vec<String>>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 64), regex(pattern = METHOD)))]
    pub not_methods: Option<Vec<String>>,
    /// One of these HTTP paths, as in /items; or a part of it, as in /items/* or *.json. Written as servers read it: decoded, without query, parameters, doubled slashes and dot segments. A request's path is judged in every way in which a server may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 1024), regex(pattern = PATH)))]
    pub paths: Option<Vec<String>>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 1024), regex(pattern = PATH)))]
    pub not_paths: Option<Vec<String>>,
    /// One of these ports of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 65535)))]
    pub ports: Option<Vec<i32>>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 65535)))]
    pub not_ports: Option<Vec<i32>>,
}

// Patterns, not rules: an API server reckons what a rule may cost for each of the strings that there may be.

const IDENTITY: &str = r"^([*]|spiffe://[^*]*[*]?|[*][^*]+)$";
const NAMESPACE: &str = "^([*]|[a-z0-9-]+[*]?|[*][a-z0-9-]+)$";
const METHOD: &str = "^([*]|[A-Z-]+[*]?|[*][A-Z-]+)$";
/// Segments that are neither empty nor `.` nor `..`; nothing encoded, no parameters, no query.
const PATH: &str =
    r"^([*]|(/([^/*?#%;\\.]|\.[^/*?#%;\\.]|\.\.[^/*?#%;\\])[^/*?#%;\\]*)*/?[*]?|[*][^*?#%;\\]+)$";

/// The status of an AuthorizationPolicy (GEP-713).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorizationPolicyStatus {
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
    pub ancestors: Vec<AuthorizationAncestorStatus>,
}

/// The status of an AuthorizationPolicy at one of its targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationAncestorStatus {
    /// The target, as it stands in `spec.targetRefs`; of a policy without targets its namespace.
    pub ancestor_ref: AuthorizationTargetReference,
    /// Who wrote this entry.
    #[schemars(length(max = 253))]
    pub controller_name: String,
    /// Accepted and Programmed.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
