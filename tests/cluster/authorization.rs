//! Who may call an injected pod: by ServiceAccount, changed while connections are open, and shown by `gauze get`.

use super::traffic::{ask, shop};
use crate::harness::cluster::{Cluster, demo_app};
use crate::harness::eventually;
use crate::harness::eventually::holds;

const NAMESPACE: &str = "guarded";

/// Lets these ServiceAccounts call the pods of Service `cart`.
async fn allow(cluster: &Cluster, accounts: &[&str]) {
    let identities: Vec<String> = accounts
        .iter()
        .map(|account| format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}"))
        .collect();
    let policy = format!(
        "apiVersion: gauze.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: cart, namespace: {NAMESPACE}}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: cart}}]\n  rules: [{{from: [{{identities: {identities:?}}}]}}]\n"
    );
    cluster.apply(&policy).await;
}

/// Waits until exactly these callers are let in.
async fn let_in(cluster: &Cluster, when: &str, expected: &[&str]) {
    eventually(when, async || {
        let mut let_in = Vec::new();
        for caller in ["batch", "plain", "web"] {
            let_in.extend(ask(cluster, NAMESPACE, caller).await.is_ok().then_some(caller));
        }
        holds(let_in == expected, format!("let in: {let_in:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_policy_lets_one_service_account_in_and_no_other_and_a_change_of_it_is_live() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    shop(cluster, NAMESPACE).await;
    let calls = format!("--calls=cart.{NAMESPACE}=cart.{NAMESPACE}:80");
    cluster.apply(&demo_app(NAMESPACE, "batch", &[&calls])).await;
    cluster.pods_ready(NAMESPACE).await;
    let_in(cluster, "without a policy everybody is let in", &["batch", "plain", "web"]).await;

    allow(cluster, &["web"]).await;
    let_in(cluster, "only web is let in", &["web"]).await;
    let said = eventually("the policy is live in cart", async || {
        let said = cluster.gauze(&["get", "authorizationpolicy", "-n", NAMESPACE]).await?;
        holds(said.contains("1/1"), &said)?;
        Ok::<_, String>(said)
    })
    .await;
    assert!(said.contains("AuthorizationPolicy  guarded    cart  True"), "{said}");

    allow(cluster, &["default"]).await;
    let_in(cluster, "web is not any more, and batch is", &["batch"]).await;
    // Its probes come from the node, outside the mesh, and are no calls.
    cluster.pods_ready(NAMESPACE).await;

    let namespace = format!("--namespace={NAMESPACE}");
    cluster.kubectl(&["delete", "authorizationpolicy", "cart", &namespace]).await.expect("it is there");
    let_in(cluster, "without the policy everybody is let in again", &["batch", "plain", "web"]).await;
}
