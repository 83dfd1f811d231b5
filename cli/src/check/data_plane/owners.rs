//! What a pod belongs to, and the command that makes it anew: only new pods meet the injection webhook.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// The commands that make these pods anew.
pub(super) fn restart<'p>(pods: impl Iterator<Item = &'p Pod>) -> String {
    let mut restarted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut others = 0;
    for pod in pods {
        match workload(pod) {
            Some(workload) => drop(restarted.entry(pod::namespace(pod)).or_default().insert(workload)),
            None => others += 1,
        }
    }
    let mut commands: Vec<String> = restarted
        .into_iter()
        .map(|(namespace, workloads)| {
            let workloads: Vec<String> = workloads.into_iter().collect();
            format!("kubectl -n {namespace} rollout restart {}", workloads.join(" "))
        })
        .collect();
    if others > 0 {
        commands.push("delete pods and jobs that nothing restarts, and create them again".to_owned());
    }
    commands.join("; ")
}

/// `deployment/web`: what `kubectl rollout restart` understands.
fn workload(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.clone().find(|owner| owner.controller == Some(true))?;
    let name = owner.name.as_str();
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = pod.metadata.labels.as_ref()?.get("pod-template-hash")?;
            Some(format!("deployment/{}", name.strip_suffix(hash.as_str())?.trim_end_matches('-')))
        }
        "StatefulSet" => Some(format!("statefulset/{name}")),
        "DaemonSet" => Some(format!("daemonset/{name}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::facts::example::{object, pod};
    use super::*;

    #[test]
    fn each_workload_is_restarted_once_and_what_has_none_is_said_apart() {
        let mut database = pod("shop/db-0");
        database["metadata"]["ownerReferences"][0]["kind"] = json!("StatefulSet");
        database["metadata"]["ownerReferences"][0]["name"] = json!("db");
        let mut job = pod("jobs/import-2x");
        job["metadata"]["ownerReferences"][0]["kind"] = json!("Job");
        let pods: Vec<Pod> = [pod("shop/web-1"), pod("shop/web-2"), database, job].map(object).into();
        let expected = "kubectl -n shop rollout restart deployment/web statefulset/db; \
                        delete pods and jobs that nothing restarts, and create them again";
        assert_eq!(restart(pods.iter()), expected);
    }
}
