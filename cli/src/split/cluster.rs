//! The TrafficSplits of a cluster: read, and changed if nobody else changes them meanwhile.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Found, Set, Written, announce, edit, no_backend, not_there, objection, text};
use crate::cluster::Cluster;
use crate::exit::Failure;

/// How often a change is made again that somebody else came before.
const TRIES: usize = 5;
/// Who changed it, as `managedFields` will say.
const FIELD_MANAGER: &str = "gauze-cli";

/// The splits of a namespace, else of all.
///
/// # Errors
/// They may not be listed, or the cluster does not have the kind.
pub(super) async fn splits(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Vec<Found>> {
    let list =
        cluster.ask("list TrafficSplits", api(cluster, namespace).list(&ListParams::default())).await?;
    let splits =
        list.items.into_iter().map(|split| Ok(Found { split: serde_json::to_value(split)?, file: None }));
    splits.collect()
}

fn api(cluster: &Cluster, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("split.smi-spec.io", "v1alpha4", "TrafficSplit");
    let resource = ApiResource::from_gvk(&kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    }
}

/// Sets weights of a split, and says what was and what is.
///
/// # Errors
/// There is no such split or backend; it should not be written, and nobody insists; the API server refuses.
pub(super) async fn set(
    cluster: &Cluster,
    namespace: Option<&str>,
    name: &str,
    set: &Set,
) -> anyhow::Result<Written> {
    for _ in 0..TRIES {
        let split = find(splits(cluster, namespace).await?, cluster, namespace, name)?;
        if let Some(objection) = objection::of(&split).filter(|_| !set.force) {
            return Err(Failure::Usage(format!("{objection}; --force writes it all the same")).into());
        }
        let place = format!("the split {name}");
        let wanted =
            edit::with_weights(&split, &set.weights).map_err(|problem| no_backend(&place, &problem))?;
        if let Some(written) = write(cluster, &split, &wanted, set.dry_run).await? {
            let more = if set.dry_run { "; nothing is written" } else { "" };
            announce(&split, &written, more);
            return Ok(Written {
                namespace: text(&written["metadata"]["namespace"]),
                name: name.to_owned(),
                generation: written["metadata"]["generation"].as_i64(),
                backends: written["spec"]["backends"].clone(),
            });
        }
    }
    let text = format!(
        "somebody else changed the split {name} each time, {TRIES} times: find out who, or try again"
    );
    Err(Failure::TimedOut(text).into())
}

/// The one split of that name.
fn find(found: Vec<Found>, cluster: &Cluster, namespace: Option<&str>, name: &str) -> Result<Value, Failure> {
    let place = namespace.map_or_else(|| cluster.name.clone(), |name| format!("namespace {name}"));
    let (mut named, others): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|found| found.name() == name);
    match (named.pop(), named.is_empty()) {
        (None, _) => Err(not_there(name, &place, &others)),
        (Some(one), true) => Ok(one.split),
        (Some(last), false) => {
            let in_each = named.iter().chain([&last]);
            let names: Vec<String> =
                in_each.map(|one| format!("{}/{name}", text(&one.split["metadata"]["namespace"]))).collect();
            Err(Failure::Usage(format!("{name} is in several namespaces; which one: {}?", names.join(", "))))
        }
    }
}

/// Writes the backends; none, if the split is not any more what was read.
async fn write(
    cluster: &Cluster,
    split: &Value,
    wanted: &Value,
    dry_run: bool,
) -> anyhow::Result<Option<Value>> {
    let metadata = &split["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    // The version makes it a change of what was read: a list is replaced whole.
    let patch = json!({
        "metadata": { "resourceVersion": metadata["resourceVersion"] },
        "spec": { "backends": wanted["spec"]["backends"] },
    });
    let params =
        PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api = api(cluster, Some(&namespace));
    let request = async {
        match api.patch(&name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(None),
            answer => answer.map(Some),
        }
    };
    let written = cluster.ask(&format!("change the TrafficSplit {namespace}/{name}"), request).await?;
    Ok(written.map(serde_json::to_value).transpose()?)
}

/// The object has changed since it was read.
const CONFLICT: u16 = 409;

/// The split as it stands now.
///
/// # Errors
/// It may not be read, or is gone.
pub(super) async fn read(cluster: &Cluster, written: &Written) -> anyhow::Result<Value> {
    let Written { namespace, name, .. } = written;
    let doing = format!("read the TrafficSplit {namespace}/{name}");
    let split = cluster.ask(&doing, api(cluster, Some(namespace)).get(name)).await?;
    Ok(serde_json::to_value(split)?)
}
