//! How a pod ends. Kubelet tells the app to end (SIGTERM) in the same moment in which everybody else begins to hear that
//! the pod is going, and no sidecar can change that order: whoever has not heard of it yet would find a closed door. So
//! a container without a preStop hook of its own gets one that waits (`sleep`, which kubelet does itself): callers go
//! elsewhere first.

use serde_json::{Value, json};

/// A pod that has less than this to end is left as it is: the wait would be too much of it.
const GRACE_LEAST: u64 = 10;
/// Kubernetes' default of `terminationGracePeriodSeconds`.
const GRACE_DEFAULT: u64 = 30;

/// Whether the containers of a pod wait before they end. A pod that ends by itself, as a Job's does, serves nobody.
pub(super) fn waits(spec: &Value, seconds: u64) -> bool {
    let is_service = spec["restartPolicy"].as_str().is_none_or(|policy| policy == "Always");
    let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(GRACE_DEFAULT);
    is_service && seconds > 0 && grace >= GRACE_LEAST.max(2 * seconds)
}

/// Gives a container the hook, unless it has one.
pub(super) fn wait(container: &mut Value, seconds: u64) {
    if !container["lifecycle"]["preStop"].is_object() {
        container["lifecycle"]["preStop"] = json!({ "sleep": { "seconds": seconds } });
    }
}
