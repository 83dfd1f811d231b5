//! By whom the API server knows our webhook: the roots of the mesh, in the `caBundle` of its configuration. The chart
//! renders none, and an upgrade may empty it, so the leader watches the object and writes what is missing.

use std::time::Duration;

use futures_util::StreamExt;
use gauze_model::Code;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration as Configuration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use serde_json::json;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Cluster, MANAGER};

/// How long a leader rests after a write that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the roots (PEM) in the configuration of this name, for ever.
pub(crate) async fn keep(cluster: Cluster, name: String, roots: String) {
    let api: Api<Configuration> = Api::all(cluster.client.clone());
    let mut leader = cluster.leader();
    let mut changes = std::pin::pin!(watch_object(api.clone(), &name).default_backoff());
    let mut current = None;
    loop {
        let leads = *leader.borrow_and_update();
        let patch = current.as_ref().filter(|_| leads).and_then(|current| missing(current, &roots));
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(seen)) => current = present(seen, &name),
                Some(Err(error)) => failed(&name, &error.to_string()),
                None => return,
            },
            changed = leader.changed() => if changed.is_err() { return },
            written = write(&api, &name, patch.clone().unwrap_or_default()), if patch.is_some() => {
                current = written.or(current);
            }
        }
    }
}

fn present(seen: Option<Configuration>, name: &str) -> Option<Configuration> {
    if seen.is_none() {
        failed(name, "there is no such object");
    }
    seen
}

/// Writes, and returns what stands there now.
async fn write(api: &Api<Configuration>, name: &str, patch: json_patch::Patch) -> Option<Configuration> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(name, &parameters, &Patch::<Configuration>::Json(patch)).await {
        Ok(written) => {
            info!(configuration = name, "wrote the caBundle of the injection webhook");
            Some(written)
        }
        Err(error) => {
            failed(name, &error.to_string());
            sleep(RETRY).await;
            None
        }
    }
}

fn failed(name: &str, error: &str) {
    warn!(code = %Code::BUNDLE_NOT_WRITTEN, configuration = name, error, "cannot keep the webhook's caBundle");
}

/// What is to be written, if anything: the roots into each webhook of the object that has others or none. Each is
/// named first, so that a list which has changed meanwhile is not written to.
fn missing(configuration: &Configuration, roots: &str) -> Option<json_patch::Patch> {
    let webhooks = configuration.webhooks.iter().flatten().enumerate();
    let lacking = webhooks.filter(|(_, webhook)| {
        webhook.client_config.ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != roots.as_bytes())
    });
    let operations: Vec<PatchOperation> = lacking
        .flat_map(|(index, webhook)| {
            let index = index.to_string();
            let at =
                |field: &[&str]| PointerBuf::from_tokens([&["webhooks", index.as_str()], field].concat());
            [
                PatchOperation::Test(TestOperation {
                    path: at(&["name"]),
                    value: webhook.name.clone().into(),
                }),
                PatchOperation::Add(AddOperation {
                    path: at(&["clientConfig", "caBundle"]),
                    value: json!(ByteString(roots.as_bytes().to_vec())),
                }),
            ]
        })
        .collect();
    let is_needed = !operations.is_empty();
    is_needed.then_some(json_patch::Patch(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> Configuration {
        let webhooks: Vec<_> = bundles
            .iter()
            .enumerate()
            .map(|(index, bundle)| {
                let bundle = bundle.map(|bundle| json!(ByteString(bundle.as_bytes().to_vec())));
                json!({
                    "name": format!("{index}.gauze.dev"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "clientConfig": { "url": "https://127.0.0.1", "caBundle": bundle },
                })
            })
            .collect();
        serde_json::from_value(json!({ "metadata": { "name": "gauze-injector" }, "webhooks": webhooks }))
            .unwrap()
    }

    #[test]
    fn a_bundle_that_is_missing_or_of_another_root_is_written_and_no_other_field() {
        let mut value = json!(configuration(&[None, Some("ours"), Some("of a former root")]));
        let patch = missing(&configuration(&[None, Some("ours"), Some("of a former root")]), "ours").unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        assert_eq!(value, json!(configuration(&[Some("ours"); 3])));
    }

    #[test]
    fn nothing_is_written_where_nothing_is_missing() {
        assert_eq!(missing(&configuration(&[Some("ours")]), "ours"), None);
        assert_eq!(missing(&configuration(&[]), "ours"), None);
    }

    #[test]
    fn a_list_that_has_changed_meanwhile_is_not_written_to() {
        let patch = missing(&configuration(&[None, None]), "ours").unwrap();
        let mut value = json!(configuration(&[None, None]));
        value["webhooks"][0]["name"] = "another".into();
        assert!(json_patch::patch(&mut value, &patch).is_err());
    }
}
