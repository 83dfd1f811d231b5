//! The API server itself can do what the other tests rely on.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};

use crate::harness::apiserver::{ApiServer, NODE, client};
use crate::harness::eventually;

#[tokio::test]
async fn the_server_enforces_the_rules_of_authorization_policies() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("authorization").await;
    let policy = |spec: &str| {
        format!(
            "{{apiVersion: gauze.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: cart, namespace: {}}}, \
             spec: {{{spec}}}}}",
            namespace.name
        )
    };
    let rule = |rule: &str| format!("rules: [{{{rule}}}]");
    let targets = "an AuthorizationPolicy targets `kind: Service` by `name`, or `kind: Pod` by `selector`";
    for (spec, refusal) in [
        ("action: Custom".to_owned(), "spec.action"),
        ("action: Deny".to_owned(), "a policy without rules that denies or audits has no effect"),
        ("targetRefs: [{kind: Deployment, name: cart}]".to_owned(), targets),
        ("targetRefs: [{kind: Service}]".to_owned(), targets),
        ("targetRefs: [{kind: Pod, name: cart-0}]".to_owned(), targets),
        (
            "targetRefs: [{kind: Pod, selector: {matchExpressions: [{key: app, operator: In}]}}]".to_owned(),
            "In and NotIn need `values`",
        ),
        (rule(""), "a rule says `from`, `to`, or both"),
        (rule("from: [{}]"), "a source says at least one of"),
        (rule("to: [{}]"), "an operation says at least one of"),
        (rule("from: []"), "spec.rules[0].from"),
        (rule("from: [{identities: [cluster.local/ns/shop/sa/web]}]"), "spec.rules[0].from[0].identities[0]"),
        (rule("from: [{notIdentities: ['*/sa/*']}]"), "spec.rules[0].from[0].notIdentities[0]"),
        (rule("from: [{namespaces: [Shop]}]"), "spec.rules[0].from[0].namespaces[0]"),
        (rule("to: [{methods: [get]}]"), "spec.rules[0].to[0].methods[0]"),
        (rule("to: [{paths: [/%61dmin]}]"), "spec.rules[0].to[0].paths[0]"),
        (rule("to: [{notPaths: ['//admin']}]"), "spec.rules[0].to[0].notPaths[0]"),
        (rule("to: [{paths: [/a/../b]}]"), "spec.rules[0].to[0].paths[0]"),
        (rule("to: [{ports: [70000]}]"), "spec.rules[0].to[0].ports[0]"),
        (rule("when: []"), "unknown field \"spec.rules[0].when\""),
    ] {
        let said = server.refusal(&policy(&spec)).await;
        assert!(said.contains(refusal), "{spec}: {said}");
    }
    for spec in [
        "",
        "targetRefs: [{kind: Service, name: cart}, {kind: Pod, selector: {}}], rules: []",
        "action: Deny, rules: [{from: [{identities: ['*', '*/sa/web', 'spiffe://cluster.local/ns/*'], notNamespaces: [bank-1, 'x*', '*-y']}], \
         to: [{methods: [GET, 'P*'], notPaths: [/, /.well-known/*, /items, '*.json', '*'], ports: [80], notPorts: [65535]}]}]",
        "action: Audit, rules: [{to: [{ports: [1]}]}]",
    ] {
        server.apply(&policy(spec)).await;
    }
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
