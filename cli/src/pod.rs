//! What commands want to know of a pod, whether it stands in a file or in a cluster.

use gauze_control_plane::translate::is_meshed;
use k8s_openapi::api::core::v1::Pod;

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// What the pod's app is called, as in metrics; without a label: the pod itself.
pub(crate) fn app(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    let label = ["app.kubernetes.io/name", "app"].iter().find_map(|key| labels?.get(*key));
    label.map_or_else(|| name(pod), String::as_str)
}

/// It has not ended, and nobody has asked it to.
pub(crate) fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Its condition `Ready` is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|found| found.type_ == "Ready" && found.status == "True")
}

/// It lives, and has the sidecar.
pub(crate) fn has_live_sidecar(pod: &Pod) -> bool {
    is_alive(pod) && is_meshed(pod)
}
