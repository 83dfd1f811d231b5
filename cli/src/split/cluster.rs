//! The TrafficSplits of a cluster: read here, changed by kubectl.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::{Value, json};

use super::edit::{self, EditProblem};
use super::{Found, text};
use crate::cluster::Cluster;
use crate::exit::Failure;

/// The splits of the namespace that the user named, else of all.
///
/// # Errors
/// They may not be listed, or the cluster does not have the kind.
pub(super) async fn splits(cluster: &Cluster) -> anyhow::Result<Vec<Found>> {
    let kind = GroupVersionKind::gvk("split.smi-spec.io", "v1alpha4", "TrafficSplit");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match &cluster.namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    };
    let list = cluster.ask("list TrafficSplits", api.list(&ListParams::default())).await?;
    let splits =
        list.items.into_iter().map(|split| Ok(Found { split: serde_json::to_value(split)?, file: None }));
    splits.collect()
}

/// What to do in place of what is asked: the whole command, since a patch replaces the list of backends.
pub(super) fn how_to_set(
    splits: &[Found],
    namespace: Option<&str>,
    name: &str,
    weights: &[(String, u32)],
) -> Failure {
    let is_it = |split: &Value| {
        split["metadata"]["name"] == name
            && namespace.is_none_or(|namespace| split["metadata"]["namespace"] == namespace)
    };
    let Some(Found { split, .. }) = splits.iter().find(|found| is_it(&found.split)) else {
        let names: Vec<String> = splits.iter().map(|found| text(&found.split["metadata"]["name"])).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Failure::Usage(format!("there is no TrafficSplit {name}; those are: {names}"));
    };
    match edit::with_weights(split, weights) {
        Ok(wanted) => {
            let patch = json!({ "spec": { "backends": wanted["spec"]["backends"] } });
            let namespace = text(&split["metadata"]["namespace"]);
            Failure::Usage(format!(
                "gauze does not write into clusters yet; this does:\n\
                 kubectl -n {namespace} patch trafficsplit {name} --type merge -p '{patch}'"
            ))
        }
        Err(EditProblem::NoBackend { wanted, backends }) => Failure::Usage(format!(
            "the split {name} has no backend {wanted}; it has {}",
            backends.join(", ")
        )),
        Err(EditProblem::NotHere | EditProblem::NotInPlace) => {
            Failure::Usage(format!("the split {name} cannot be changed like this"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_named_keeps_every_backend() {
        let split = json!({
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "service": "cart", "backends": [
                { "service": "cart-v1", "weight": 90 }, { "service": "cart-v2", "weight": 10 },
            ] },
        });
        let splits = [Found { split, file: None }];
        let said = |name: &str, backend: &str| {
            how_to_set(&splits, None, name, &[(backend.to_owned(), 50)]).to_string()
        };
        let expected = r#"kubectl -n shop patch trafficsplit cart --type merge -p '{"spec":{"backends":[{"service":"cart-v1","weight":90},{"service":"cart-v2","weight":50}]}}'"#;
        assert!(said("cart", "v2").ends_with(expected), "{}", said("cart", "v2"));
        assert!(said("cart", "v3").contains("it has cart-v1, cart-v2"));
        assert!(said("carrot", "v1").contains("those are: cart"));
    }
}
