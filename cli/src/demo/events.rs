//! What the sidecars did that a table of rates does not show: endpoints that they ejected, calls that they denied.

use std::collections::BTreeMap;

use serde_json::Value;

use super::edges;
use super::mesh::Mesh;
use crate::admin::Endpoint;

/// An endpoint that a sidecar sends nothing to for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ejected {
    pub(crate) pod: String,
    /// As the sidecar says it: `consecutive_gateway_failure`.
    pub(crate) reason: String,
}

/// One line for each, as things are now.
pub(crate) async fn lines(mesh: &Mesh) -> Vec<String> {
    let mut lines = Vec::new();
    for pod in &mesh.pods {
        // A sidecar that does not answer shows elsewhere.
        let clusters = Endpoint::Tcp(pod.card.admin).get_json("/clusters").await.unwrap_or_default();
        let said = |ejected: Ejected| format!("{} ejected {}: {}", pod.card.pod, ejected.pod, ejected.reason);
        lines.extend(ejected(&clusters).into_iter().map(said));
    }
    let readings: Vec<_> = mesh.readings().collect();
    let mut denied: BTreeMap<String, u64> = BTreeMap::new();
    for edge in edges::outside(&readings, &BTreeMap::new()) {
        *denied.entry(edge.to).or_default() += edge.denied;
    }
    let denied = denied.into_iter().filter(|(_, calls)| *calls > 0);
    lines.extend(denied.map(|(app, calls)| format!("{app} denied {calls} calls from outside the mesh")));
    lines
}

/// Every ejected endpoint of what a sidecar says at `/clusters`.
pub(crate) fn ejected(clusters: &Value) -> Vec<Ejected> {
    let clusters = clusters.as_object().into_iter().flat_map(|clusters| clusters.values());
    let endpoints = clusters.filter_map(|cluster| cluster["endpoints"].as_array()).flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ejected = endpoints.filter(|endpoint| endpoint["ejection"]["state"] == "ejected");
    ejected
        .map(|endpoint| Ejected {
            pod: text(&endpoint["workload"]["pod"]),
            reason: text(&endpoint["ejection"]["reason"]),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_who_is_ejected_now_is_named_with_the_reason() {
        let endpoint =
            |pod: &str, ejection: Value| json!({ "workload": { "pod": pod }, "ejection": ejection });
        let clusters = json!({ "cluster/shop/cart-v2/80": { "endpoints": [
            endpoint("cart-v2-0", Value::Null),
            endpoint("cart-v2-1", json!({ "state": "ejected", "reason": "consecutive_gateway_failure" })),
            endpoint("cart-v2-2", json!({ "state": "probing", "reason": "consecutive_5xx" })),
        ] } });
        let reason = "consecutive_gateway_failure".to_owned();
        assert_eq!(ejected(&clusters), [Ejected { pod: "cart-v2-1".to_owned(), reason }]);
        assert_eq!(ejected(&Value::Null), []);
    }
}
