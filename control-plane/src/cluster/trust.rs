//! The ConfigMap `gauze-trust`: the roots of the mesh, where pods can mount them. The leader keeps it in every
//! namespace whose pods are injected; the webhook, before it lets a first one in. None is ever removed: a pod
//! that mounts it could not start again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use gauze_model::Code;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{MANAGER, reason};
use crate::inject::INJECT;
use crate::push::Push;
use crate::translate;
use crate::world::{Object, World};

/// The ConfigMap and its key.
pub(crate) const NAME: &str = "gauze-trust";
const ROOTS: &str = "roots.pem";

/// Writes going on at once.
const WRITES_MAX: usize = 8;
/// How long the API server may take for one write; it waits 10 s for the webhook that waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the leader gathers changes before it looks again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it waits to learn what is there already.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits after a write that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the roots where pods need them. A clone shares all.
#[derive(Clone)]
pub(crate) struct Trust(Arc<Shared>);

struct Shared {
    client: Client,
    roots: String,
    /// The namespaces whose ConfigMap was seen to be as it should be.
    good: Mutex<BTreeSet<String>>,
    /// One of them was changed by others.
    spoilt: Notify,
}

/// Why a namespace has no roots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("{code}: ConfigMap {0}/{NAME} cannot be written: {1}", code = Code::ROOTS_NOT_WRITTEN)]
    Refused(String, String),
    #[error("{code}: ConfigMap {0}/{NAME} cannot be written: no answer in {WRITE_TIMEOUT:?}", code = Code::ROOTS_NOT_WRITTEN)]
    NoAnswer(String),
}

impl Trust {
    /// `roots` in PEM.
    pub(crate) fn new(client: Client, roots: String) -> Trust {
        Trust(Arc::new(Shared { client, roots, good: Mutex::default(), spoilt: Notify::new() }))
    }

    /// Sees to it that pods of this namespace find the roots; costs nothing if they do already.
    ///
    /// # Errors
    /// The API server refuses the write or does not answer.
    pub(crate) async fn ensure(&self, namespace: &str) -> Result<(), TrustError> {
        if self.good().contains(namespace) {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.0.client.clone(), namespace);
        // By force: under this name it is ours, whoever edited it.
        let parameters = PatchParams::apply(MANAGER).force();
        let manifest = manifest(&self.0.roots);
        let patch = Patch::Apply(&manifest);
        match timeout(WRITE_TIMEOUT, api.patch(NAME, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                info!(namespace, "wrote the roots ({NAME})");
                Ok(())
            }
            Ok(Err(error)) => Err(TrustError::Refused(namespace.to_owned(), reason(&error))),
            Err(_) => Err(TrustError::NoAnswer(namespace.to_owned())),
        }
    }

    /// Follows the ConfigMaps of this name in all namespaces, for ever.
    pub(crate) async fn watch(self) {
        let api: Api<ConfigMap> = Api::all(self.0.client.clone());
        let only = Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = std::pin::pin!(watcher(api, only).default_backoff());
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.see(event, &mut listed),
                Err(error) => debug!(%error, "cannot watch {NAME}"),
            }
        }
    }

    fn see(&self, event: Event<ConfigMap>, listed: &mut BTreeSet<String>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(map) => drop(self.is_good(&map).then(|| listed.insert(namespace_of(&map)))),
            Event::InitDone => {
                *self.good() = std::mem::take(listed);
                self.0.spoilt.notify_one();
            }
            Event::Apply(map) if self.is_good(&map) => drop(self.good().insert(namespace_of(&map))),
            Event::Apply(map) | Event::Delete(map) => {
                self.good().remove(&namespace_of(&map));
                self.0.spoilt.notify_one();
            }
        }
    }

    /// Writes what is missing whenever this replica leads, for ever.
    pub(crate) async fn keep(self, push: Arc<Push>, mut leader: watch::Receiver<bool>) {
        let mut changes = push.changes();
        // What is good already need not be written; but if it cannot be listed, it can perhaps be written.
        let _ = timeout(LIST_TIMEOUT, self.0.spoilt.notified()).await;
        while leader.wait_for(|leads| *leads).await.is_ok() {
            changes.mark_unchanged();
            let missing: Vec<String> = {
                let good = self.good();
                wanted(&push.world()).into_iter().filter(|namespace| !good.contains(namespace)).collect()
            };
            let failed = self.write(missing).await;
            tokio::select! {
                _ = changes.changed() => {}
                () = self.0.spoilt.notified() => {}
                () = sleep(RETRY), if failed => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether any could not be written.
    async fn write(&self, namespaces: Vec<String>) -> bool {
        let writes = namespaces.into_iter().map(|namespace| async move {
            let written = self.ensure(&namespace).await;
            written.inspect_err(|error| warn!("{error}")).is_err()
        });
        stream::iter(writes).buffer_unordered(WRITES_MAX).any(|failed| async move { failed }).await
    }

    fn is_good(&self, map: &ConfigMap) -> bool {
        map.data.as_ref().and_then(|data| data.get(ROOTS)) == Some(&self.0.roots)
    }

    fn good(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namespaces whose pods need the roots: those labelled for injection, and those of pods of the mesh.
fn wanted(world: &World) -> BTreeSet<String> {
    let labelled =
        world.objects().filter_map(Object::as_namespace).filter(|namespace| is_labelled(namespace));
    let labelled = labelled.map(|namespace| namespace.name_any());
    let meshed = world.pods().filter(|pod| translate::is_meshed(pod)).filter_map(|pod| pod.namespace());
    let ends = |name: &String| world.namespace(name).is_some_and(|namespace| is_ending(namespace));
    labelled.chain(meshed).filter(|name| !ends(name)).collect()
}

fn is_labelled(namespace: &Namespace) -> bool {
    namespace.labels().get(INJECT).is_some_and(|value| value == "enabled")
}

/// Nothing can be created in it any more.
fn is_ending(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn namespace_of(map: &ConfigMap) -> String {
    map.namespace().unwrap_or_default()
}

fn manifest(roots: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/managed-by": MANAGER}},
        "data": {ROOTS: roots},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::MeshSettings;
    use serde_json::{Value, from_value};

    fn namespace(name: &str, inject: &str, deleted: Option<&str>) -> Object {
        let metadata = json!({"name": name, "labels": {INJECT: inject}, "deletionTimestamp": deleted});
        Object::Namespace(Arc::new(from_value(json!({"metadata": metadata})).unwrap()))
    }

    fn pod(namespace: &str, init_containers: Value) -> Object {
        let pod = json!({
            "metadata": {"namespace": namespace, "name": "web-0"},
            "spec": {"initContainers": init_containers, "containers": []}
        });
        Object::Pod(Arc::new(from_value(pod).unwrap()))
    }

    #[test]
    fn roots_are_wanted_where_pods_are_injected_or_may_be() {
        let sidecar = json!([{"name": "gauze-proxy", "image": "gauze-proxy", "restartPolicy": "Always"}]);
        let world = World::of(
            MeshSettings::default(),
            [
                namespace("labelled", "enabled", None),
                namespace("meshed", "disabled", None),
                namespace("plain", "disabled", None),
                namespace("ending", "enabled", Some("2026-11-22T00:00:00Z")),
                pod("meshed", sidecar.clone()),
                pod("unseen", sidecar.clone()),
                pod("ending", sidecar),
                pod("plain", json!([{"name": "gauze-proxy", "image": "something"}])),
            ],
        );
        assert_eq!(wanted(&world), ["labelled", "meshed", "unseen"].map(str::to_owned).into());
    }
}
