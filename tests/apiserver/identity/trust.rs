//! The ConfigMap `gauze-trust`: there where injected pods mount it, and as it should be, whoever edits it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::Desk;
use crate::harness::apiserver::ApiServer;
use crate::harness::eventually;
use crate::harness::eventually::holds;

#[tokio::test]
async fn the_roots_are_where_pods_are_injected_and_are_put_back_whatever_becomes_of_them() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let (labelled, plain) = (server.namespace("labelled").await, server.namespace("plain").await);
    let maps = |namespace: &str| Api::<ConfigMap>::namespaced(desk.mesh.client.clone(), namespace);
    let there = async |namespace: &str, when: &str| {
        let expected = BTreeMap::from([("roots.pem".to_owned(), desk.port.roots.clone())]);
        eventually(&format!("gauze-trust of {namespace}, {when}"), async || {
            let map = maps(namespace).get("gauze-trust").await.map_err(|error| error.to_string())?;
            holds(map.data.as_ref() == Some(&expected), format!("{:?}", map.data))?;
            Ok::<_, String>(map)
        })
        .await
    };

    server
        .kubectl(&["label", "namespace", &labelled.name, "gauze.dev/inject=enabled"])
        .await
        .expect("a label");
    let map = there(&labelled.name, "labelled for injection").await;
    let label = map.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
    assert_eq!(label.map(String::as_str), Some("gauze"));
    desk.pod("web-0", "web").await;
    there(desk.mesh.shop(), "with a meshed pod").await;

    let edited = json!({"data": {"roots.pem": "somebody else's", "more": "of it"}});
    let patched =
        maps(&labelled.name).patch("gauze-trust", &PatchParams::default(), &Patch::Merge(&edited)).await;
    patched.expect("anybody with the right may edit it");
    eventually("the roots are right again", async || {
        let map = maps(&labelled.name).get("gauze-trust").await.map_err(|error| error.to_string())?;
        let roots = map.data.as_ref().and_then(|data| data.get("roots.pem")).cloned();
        holds(roots.as_ref() == Some(&desk.port.roots), format!("{roots:?}"))
    })
    .await;
    maps(&labelled.name).delete("gauze-trust", &DeleteParams::default()).await.expect("it is there");
    there(&labelled.name, "deleted").await;
    assert!(
        maps(&plain.name).get_opt("gauze-trust").await.expect("an answer").is_none(),
        "nobody needs it there"
    );
}

#[tokio::test]
async fn a_namespace_that_is_no_longer_labelled_keeps_its_roots() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let labelled = server.namespace("labelled").await;
    let maps = Api::<ConfigMap>::namespaced(desk.mesh.client.clone(), &labelled.name);
    server
        .kubectl(&["label", "namespace", &labelled.name, "gauze.dev/inject=enabled"])
        .await
        .expect("a label");
    eventually("gauze-trust", async || maps.get("gauze-trust").await.map_err(|error| error.to_string()))
        .await;
    server.kubectl(&["label", "namespace", &labelled.name, "gauze.dev/inject-"]).await.expect("a label");
    // Whatever the leader does about it, it has done when another namespace has its roots.
    desk.pod("web-0", "web").await;
    let others = Api::<ConfigMap>::namespaced(desk.mesh.client.clone(), desk.mesh.shop());
    eventually("the other's gauze-trust", async || {
        others.get("gauze-trust").await.map_err(|error| error.to_string())
    })
    .await;
    assert!(maps.get("gauze-trust").await.is_ok(), "a pod that mounts it could not start again without");
}
