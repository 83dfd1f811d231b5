//! The API server itself can do what the other tests rely on.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};

use crate::harness::apiserver::{ApiServer, NODE, client};
use crate::harness::eventually;

#[tokio::test]
async fn the_server_enforces_the_rules_of_our_definitions() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("rules").await;
    let policy = |kind: &str, field: &str| {
        format!(
            "{{apiVersion: gauze.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: cart, namespace: {}}}, \
             spec: {{targetRefs: [{{group: \"\", kind: {kind}, name: cart}}]{field}}}}}",
            namespace.name
        )
    };
    for (kind, field, refusal) in [
        ("Deployment", "", "a TrafficPolicy targets Services"),
        ("Service", ", connectTimeout: soon", "spec.connectTimeout"),
        ("Service", ", connectTimeout: 0s", "connectTimeout must be longer than 0"),
        ("Service", ", retries: 3", "unknown field \"spec.retries\""),
    ] {
        let said = server.refusal(&policy(kind, field)).await;
        assert!(said.contains(refusal), "{kind}{field}: {said}");
    }
    server.apply(&policy("Service", ", connectTimeout: 1s")).await;
}

#[tokio::test]
async fn a_token_for_gauze_is_believed_for_gauze_alone() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("tokens").await;
    let arguments = ["create", "token", "default", "--audience", "gauze", "--namespace", &namespace.name];
    let token = eventually("the ServiceAccount", async || server.kubectl(&arguments).await).await;
    let reviews: Api<TokenReview> = Api::all(server.client().await);
    let review = |audience: &str| TokenReview {
        spec: TokenReviewSpec { token: token.trim().to_owned(), audiences: Some(vec![audience.to_owned()]) },
        ..TokenReview::default()
    };
    for (audience, believed) in [("gauze", true), ("other", false)] {
        let answer = reviews.create(&PostParams::default(), &review(audience)).await.expect("an answer");
        let status = answer.status.expect("a status");
        assert_eq!(status.authenticated.unwrap_or(false), believed, "{audience}: {status:?}");
    }
}

#[tokio::test]
async fn an_account_may_do_only_what_its_roles_allow_also_after_the_server_was_killed() {
    let Some(server) = ApiServer::start().await else { return };
    let namespace = server.namespace("accounts").await;
    eventually("the ServiceAccount", async || {
        server.kubectl(&["get", "serviceaccount", "default", "--namespace", &namespace.name]).await
    })
    .await;
    let kubeconfig = server.kubeconfig_for(&namespace.name, "default").await;
    server.stop_apiserver().await;
    let pods: Api<Pod> = Api::namespaced(client(&kubeconfig).await, &namespace.name);
    pods.list(&ListParams::default()).await.expect_err("nobody is there");
    server.start_apiserver().await;
    let refused =
        eventually("the server answers again", async || match pods.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) => Ok(status.code),
            other => Err(format!("{other:?}")),
        })
        .await;
    assert_eq!(refused, 403);
}

#[tokio::test]
async fn a_watch_begins_with_all_objects_and_says_when_they_were_all() {
    let Some(server) = ApiServer::shared().await else { return };
    let nodes: Api<Node> = Api::all(server.client().await);
    let parameters = WatchParams { send_initial_events: true, ..WatchParams::default() };
    let events = nodes.watch(&parameters, "0").await.expect("streaming lists are served");
    let events: Vec<_> = events.take(2).try_collect().await.expect("no error");
    let [WatchEvent::Added(node), WatchEvent::Bookmark(mark)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(node.metadata.name.as_deref(), Some(NODE));
    assert!(mark.metadata.annotations.contains_key("k8s.io/initial-events-end"));
}
