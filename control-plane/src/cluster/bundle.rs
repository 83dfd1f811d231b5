//! By whom the API server knows our webhooks: the roots of the mesh, in the `caBundle` of each object that sends it to us.
//! The chart renders none, and an upgrade may empty it, so the leader watches the objects and writes what is missing.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use gauze_crds::traffic_split;
use gauze_model::Code;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use k8s_openapi::ByteString;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration as Configuration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
use kube::Api;
use kube::api::{self, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{Cluster, MANAGER};

/// How long a leader rests after a write that failed.
const RETRY: Duration = Duration::from_secs(2);

/// An object that sends the API server to a webhook of ours.
pub(crate) trait Sends: kube::Resource<Scope = ClusterResourceScope, DynamicType = ()>
where
    Self: Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Without it something of ours does not work; else it may be missing, or somebody else's.
    const IS_OURS: bool;

    /// What is to be written, if anything: the roots wherever it sends to us and has others or none. What makes it ours
    /// is tested first, so that an object which has changed meanwhile is not written to.
    fn missing(&self, system_namespace: &str, roots: &str) -> Option<Patch>;
}

/// Keeps the roots (PEM) in the object of this name, for ever.
pub(crate) async fn keep<K: Sends>(cluster: Cluster, name: String, roots: String) {
    let api: Api<K> = Api::all(cluster.client.clone());
    let mut leader = cluster.leader();
    let mut changes = std::pin::pin!(watch_object(api.clone(), &name).default_backoff());
    let mut current: Option<K> = None;
    loop {
        let leads = *leader.borrow_and_update();
        let ours = current.as_ref().filter(|_| leads);
        let patch = ours.and_then(|current| current.missing(&cluster.namespace, &roots));
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(seen)) => current = present(seen, &name),
                Some(Err(error)) => failed::<K>(&name, &error.to_string()),
                None => return,
            },
            changed = leader.changed() => if changed.is_err() { return },
            written = write(&api, &name, patch.clone().unwrap_or_default()), if patch.is_some() => {
                current = written.or(current);
            }
        }
    }
}

fn present<K: Sends>(seen: Option<K>, name: &str) -> Option<K> {
    match &seen {
        Some(_) => {}
        None if K::IS_OURS => failed::<K>(name, "there is no such object"),
        None => debug!(name, "there is no such object"),
    }
    seen
}

/// Writes, and returns what stands there now.
async fn write<K: Sends>(api: &Api<K>, name: &str, patch: Patch) -> Option<K> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(name, &parameters, &api::Patch::<()>::Json(patch)).await {
        Ok(written) => {
            info!(kind = %K::kind(&()), name, "wrote the caBundle of our webhook");
            Some(written)
        }
        Err(error) => {
            failed::<K>(name, &error.to_string());
            sleep(RETRY).await;
            None
        }
    }
}

fn failed<K: Sends>(name: &str, error: &str) {
    let kind = K::kind(&());
    warn!(code = %Code::BUNDLE_NOT_WRITTEN, %kind, name, error, "cannot keep the caBundle of our webhook");
}

impl Sends for Configuration {
    const IS_OURS: bool = true;

    /// All of its webhooks are ours.
    fn missing(&self, _: &str, roots: &str) -> Option<Patch> {
        let webhooks = self.webhooks.iter().flatten().enumerate();
        let lacking = webhooks.filter(|(_, webhook)| !has(webhook.client_config.ca_bundle.as_ref(), roots));
        let operations: Vec<PatchOperation> = lacking
            .flat_map(|(index, webhook)| {
                let index = index.to_string();
                [
                    test(&["webhooks", &index, "name"], webhook.name.clone().into()),
                    add(&["webhooks", &index, "clientConfig", "caBundle"], roots),
                ]
            })
            .collect();
        let is_needed = !operations.is_empty();
        is_needed.then_some(Patch(operations))
    }
}

impl Sends for Definition {
    const IS_OURS: bool = false;

    /// Only if it is converted by our Service: another release may have brought a definition of the same name.
    fn missing(&self, system_namespace: &str, roots: &str) -> Option<Patch> {
        let webhook = self.spec.conversion.as_ref()?.webhook.as_ref()?;
        let client = webhook.client_config.as_ref()?;
        if !traffic_split::converts(client, system_namespace) || has(client.ca_bundle.as_ref(), roots) {
            return None;
        }
        let at = ["spec", "conversion", "webhook", "clientConfig"];
        let service = serde_json::to_value(&client.service).ok()?;
        let operations = [
            test(&[&at[..], &["service"]].concat(), service),
            add(&[&at[..], &["caBundle"]].concat(), roots),
        ];
        Some(Patch(operations.into()))
    }
}

fn has(bundle: Option<&ByteString>, roots: &str) -> bool {
    bundle.is_some_and(|bundle| bundle.0 == roots.as_bytes())
}

fn test(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

fn add(path: &[&str], roots: &str) -> PatchOperation {
    let value = json!(ByteString(roots.as_bytes().to_vec()));
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = "gauze-system";

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
        let patch =
            configuration(&[None, Some("ours"), Some("of a former root")]).missing(SYSTEM, "ours").unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        assert_eq!(value, json!(configuration(&[Some("ours"); 3])));
    }

    #[test]
    fn nothing_is_written_where_nothing_is_missing() {
        assert_eq!(configuration(&[Some("ours")]).missing(SYSTEM, "ours"), None);
        assert_eq!(configuration(&[]).missing(SYSTEM, "ours"), None);
    }

    #[test]
    fn a_list_that_has_changed_meanwhile_is_not_written_to() {
        let patch = configuration(&[None, None]).missing(SYSTEM, "ours").unwrap();
        let mut value = json!(configuration(&[None, None]));
        value["webhooks"][0]["name"] = "another".into();
        assert!(json_patch::patch(&mut value, &patch).is_err());
    }

    #[test]
    fn a_definition_that_we_convert_gets_its_bundle() {
        let definition = traffic_split::definition(SYSTEM);
        let mut value = json!(definition);
        let patch = definition.missing(SYSTEM, "ours").unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        let mut expected = json!(definition);
        expected["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] =
            json!(ByteString(b"ours".to_vec()));
        assert_eq!(value, expected);
        let written: Definition = serde_json::from_value(value).unwrap();
        assert_eq!(written.missing(SYSTEM, "ours"), None);
        assert_eq!(written.missing(SYSTEM, "ours of tomorrow").map(|patch| patch.len()), Some(2));
    }

    #[test]
    fn a_definition_that_is_not_ours_is_left_alone() {
        let mut none = traffic_split::definition(SYSTEM);
        none.spec.conversion = None;
        assert_eq!(none.missing(SYSTEM, "ours"), None);
        assert_eq!(traffic_split::definition("another-mesh").missing(SYSTEM, "ours"), None);
        let mut url = json!(traffic_split::definition(SYSTEM));
        url["spec"]["conversion"]["webhook"]["clientConfig"] = json!({ "url": "https://localhost/convert" });
        let url: Definition = serde_json::from_value(url).unwrap();
        assert_eq!(url.missing(SYSTEM, "ours"), None);
    }
}
