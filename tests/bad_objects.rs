//! Objects of ours that say what cannot be. The API server refuses them (`apiserver::kubectl`), and so that a directory
//! is no easier on its user, the control plane tells the same of a file.

use serde_json::Value;

use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::Mesh;
use crate::harness::objects;

/// One object: what is wrong with it in a sentence, its kind and `spec`, and the words of the API server and of the
/// control plane of a directory that say so.
pub(crate) struct Bad {
    pub what: &'static str,
    kind: &'static str,
    spec: &'static str,
    pub refusal: &'static str,
    told: &'static str,
}

const TRAFFIC: &str = "TrafficPolicy";
const AUTHORIZATION: &str = "AuthorizationPolicy";
const SPLIT: &str = "TrafficSplit";

const fn bad(
    what: &'static str,
    kind: &'static str,
    spec: &'static str,
    refusal: &'static str,
    told: &'static str,
) -> Bad {
    Bad { what, kind, spec, refusal, told }
}

/// Said of them all: `targetRefs` of a TrafficPolicy are added where a row names none.
pub(crate) const BAD_OBJECTS: &[Bad] = &[
    bad(
        "a TrafficPolicy is for Services",
        TRAFFIC,
        "targetRefs: [{group: apps, kind: Deployment, name: cart}], connectTimeout: 1s",
        "a TrafficPolicy targets Services: write `group: \"\"` and `kind: Service`",
        "write `group: \"\"` and `kind: Service`",
    ),
    bad(
        "it is for one at least",
        TRAFFIC,
        "targetRefs: [], connectTimeout: 1s",
        "spec.targetRefs in body should have at least 1 items",
        "name at least one Service",
    ),
    bad(
        "it says something",
        TRAFFIC,
        "",
        "a policy that says nothing has no effect; write `balance`, `connectTimeout`",
        "a policy that says nothing has no effect; write `balance`, `connectTimeout`",
    ),
    bad(
        "a duration is no fraction",
        TRAFFIC,
        "connectTimeout: 1.5s",
        "`1.5s` is not a duration; write for example 500ms, 10s or 1h30m",
        "`1.5s` is not a duration; write for example 500ms, 10s or 1h30m",
    ),
    bad(
        "a duration is no word",
        TRAFFIC,
        "timeouts: {request: soon}",
        "`soon` is not a duration; write for example 500ms, 10s or 1h30m",
        "`soon` is not a duration; write for example 500ms, 10s or 1h30m",
    ),
    bad(
        "a connection takes time",
        TRAFFIC,
        "connectTimeout: 0s",
        "connectTimeout must be longer than 0; write for example 500ms",
        "must be longer than 0; write for example 500ms",
    ),
    bad(
        "an algorithm is one that there is",
        TRAFFIC,
        "balance: {type: Fastest}",
        "Unsupported value: \"Fastest\": supported values: \"PeakEwma\"",
        "`PeakEwma`, `RoundRobin`, `LeastRequest`, `Random`",
    ),
    bad(
        "settings belong to their algorithm",
        TRAFFIC,
        "balance: {type: Random, peakEwma: {decay: 1s}}",
        "`peakEwma` belongs to `type: PeakEwma`; remove it, or change the type",
        "belongs to `type: PeakEwma`; remove it, or change the type",
    ),
    bad(
        "what decays takes time",
        TRAFFIC,
        "balance: {type: PeakEwma, peakEwma: {decay: 0s}}",
        "decay must be longer than 0; write for example 10s",
        "must be longer than 0; write for example 10s",
    ),
    bad(
        "a limit lets something through",
        TRAFFIC,
        "limits: {requests: 0}",
        "spec.limits.requests in body should be greater than or equal to 1",
        "must be at least 1",
    ),
    bad(
        "a percentage is 100 at most",
        TRAFFIC,
        "outlierDetection: {maxEjectionPercent: 101}",
        "spec.outlierDetection.maxEjectionPercent in body should be less than or equal to 100",
        "must be 100 at most",
    ),
    bad(
        "an ejection lasts",
        TRAFFIC,
        "outlierDetection: {baseEjectionTime: 0s}",
        "baseEjectionTime must be longer than 0; write for example 30s",
        "must be longer than 0; write for example 30s",
    ),
    bad(
        "the longest ejection is not shorter than the first",
        TRAFFIC,
        "outlierDetection: {maxEjectionTime: 10s}",
        "maxEjectionTime must not be shorter than baseEjectionTime, which is 30s if it is not written",
        "must not be shorter than baseEjectionTime, which is 30s if it is not written",
    ),
    bad(
        "ten retries are enough",
        TRAFFIC,
        "retry: {attempts: 11}",
        "spec.retry.attempts in body should be less than or equal to 10",
        "must be at most 10; write for example 2",
    ),
    bad(
        "what succeeded is not tried again",
        TRAFFIC,
        "retry: {codes: [200]}",
        "spec.retry.codes[0] in body should be greater than or equal to 400",
        "must be HTTP statuses from 400 to 599; write for example [502, 503]",
    ),
    bad(
        "a try takes no longer than all tries",
        TRAFFIC,
        "timeouts: {request: 1s, backendRequest: 2s}",
        "`backendRequest`, one try, cannot be longer than `request`, all of them",
        "one try cannot take longer than `request`, all of them",
    ),
    bad(
        "a budget counts whole seconds",
        TRAFFIC,
        "retryBudget: {interval: 1500ms}",
        "interval must be whole seconds from 1s to 60s; write for example 10s",
        "must be whole seconds from 1s to 60s; write for example 10s",
    ),
    bad("a field that there is not", TRAFFIC, "retries: 3", "unknown field \"spec.retries\"", "spec.retries"),
    bad(
        "who is denied is said",
        AUTHORIZATION,
        "action: Deny",
        "a policy without rules that denies or audits has no effect: write at least one rule",
        "a policy without rules that denies or audits has no effect",
    ),
    bad(
        "an AuthorizationPolicy is for Services and pods",
        AUTHORIZATION,
        "targetRefs: [{group: '', kind: Deployment, name: cart}]",
        "an AuthorizationPolicy targets `kind: Service` by `name`, or `kind: Pod` by `selector`, both of `group: \"\"`",
        "spec.targetRefs",
    ),
    bad(
        "pods are selected and not named",
        AUTHORIZATION,
        "targetRefs: [{group: '', kind: Pod, name: cart-0}]",
        "an AuthorizationPolicy targets `kind: Service` by `name`, or `kind: Pod` by `selector`, both of `group: \"\"`",
        "spec.targetRefs",
    ),
    bad(
        "a rule says something",
        AUTHORIZATION,
        "rules: [{}]",
        "a rule says `from`, `to`, or both; to let nobody in, write `action: Allow` without rules",
        "spec.rules[0]",
    ),
    bad(
        "a source says something",
        AUTHORIZATION,
        "rules: [{from: [{}]}]",
        "a source says at least one of `identities`, `notIdentities`, `namespaces` and `notNamespaces`",
        "spec.rules[0].from[0]",
    ),
    bad(
        "an operation says something",
        AUTHORIZATION,
        "rules: [{to: [{}]}]",
        "an operation says at least one of `methods`, `notMethods`, `paths`, `notPaths`, `ports` and `notPorts`",
        "spec.rules[0].to[0]",
    ),
    bad(
        "an identity begins with spiffe",
        AUTHORIZATION,
        "rules: [{from: [{identities: [cluster.local/ns/shop/sa/web]}]}]",
        "spec.rules[0].from[0].identities[0]",
        "spec.rules[0].from[0].identities[0]",
    ),
    bad(
        "a share is not negative",
        SPLIT,
        "service: cart, backends: [{service: cart, weight: -1}]",
        "weight must be 0 or more",
        "weight of 0 or more",
    ),
    bad(
        "somebody gets a share",
        SPLIT,
        "service: cart, backends: []",
        "spec.backends in body should have at least 1 items",
        "backends",
    ),
];

impl Bad {
    /// The object, under a name that is made of `what`.
    pub(crate) fn yaml(&self, namespace: &str) -> String {
        let version = if self.kind == SPLIT { "split.smi-spec.io/v1alpha4" } else { "gauze.dev/v1alpha1" };
        let targets = match self.kind == TRAFFIC && !self.spec.contains("targetRefs") {
            true => "targetRefs: [{group: '', kind: Service, name: cart}], ",
            false => "",
        };
        let (kind, name, spec) = (self.kind, self.name(), self.spec);
        let metadata = format!("{{name: {name}, namespace: {namespace}}}");
        format!("{{apiVersion: {version}, kind: {kind}, metadata: {metadata}, spec: {{{targets}{spec}}}}}\n")
    }

    fn name(&self) -> String {
        self.what.replace(' ', "-").to_lowercase()
    }
}

#[tokio::test]
async fn the_control_plane_tells_of_a_file_what_the_api_server_refuses_of_an_object() {
    let mesh = Mesh::start().await;
    mesh.apply("cart.yaml", &objects::service("shop", "cart", mesh.service_address(), "http"));
    for bad in BAD_OBJECTS {
        mesh.apply(&format!("{}.yaml", bad.name()), &bad.yaml("shop"));
    }
    for bad in BAD_OBJECTS {
        eventually(bad.what, async || {
            let said = told(&mesh.ask("/objects").await, bad);
            holds(said.contains(bad.told), said)
        })
        .await;
    }
}

/// All that is said of an object, in conditions and as problems, unless it is in force as if nothing were wrong.
fn told(objects: &Value, bad: &Bad) -> String {
    let mut said = Vec::new();
    collect(objects, &bad.name(), &mut said);
    said.join("\n")
}

/// The smallest values that name the object.
fn collect(value: &Value, name: &str, said: &mut Vec<String>) {
    let parts: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => match fields.values().any(|field| field == name || field["name"] == name) {
            true => return said.push(value.to_string().replace("\\\"", "\"")),
            false => fields.values().collect(),
        },
        _ => return,
    };
    parts.into_iter().for_each(|part| collect(part, name, said));
}
