//! The plugin for the Gateway API: it sets the weights of an HTTPRoute that the user wrote, and adds rules of its own
//! to it, by name.

use serde_json::{Value, json};

use super::{CANARY, NEW, OLD, RATE, REQUESTS, ROLLOUT, STABLE, STEPS, shop, switch_selector};
use crate::cluster::delivery::live::landed_route;
use crate::cluster::delivery::page;
use crate::cluster::delivery::roles;
use crate::cluster::delivery::tool::Tool;
use crate::harness::cluster::Cluster;
use crate::harness::eventually::eventually;

/// `managedRoutes`: the name of the rule that the plugin adds.
const MANAGED: &str = "testers";
/// labels.go: on the route while the canary has a weight, so that tools that sync it from Git leave its weights alone.
const IN_PROGRESS: &str = "rollouts.argoproj.io/gatewayapi-canary";

struct Plugin<'a> {
    tool: Tool<'a>,
}

impl Plugin<'_> {
    /// `retry.RetryOnConflict`: reads, changes, updates.
    async fn change(&self, change: impl Fn(&mut Value)) {
        let namespace = &self.tool.stage.namespace;
        let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{ROLLOUT}");
        eventually("the route is written", async || {
            let mut route = self.tool.get(&path).await.expect("the user's route");
            change(&mut route);
            self.tool.update(&path, &route).await
        })
        .await;
    }

    /// httproute.go `setHTTPRouteWeight`, labels.go `ensureInProgressLabel`.
    async fn set_weight(&self, canary: u64) {
        self.change(|route| {
            for rule in rules(route).iter_mut().filter(|rule| rule["name"] != MANAGED) {
                for backend in rule["backendRefs"].as_array_mut().expect("a list") {
                    let weight = if backend["name"] == CANARY { canary } else { 100 - canary };
                    backend["weight"] = json!(weight);
                }
            }
            match canary {
                0 => {
                    drop(route["metadata"]["labels"].as_object_mut().map(|labels| labels.remove(IN_PROGRESS)))
                }
                _ => route["metadata"]["labels"] = json!({ IN_PROGRESS: "in-progress" }),
            }
        })
        .await;
    }

    /// `setHTTPHeaderRoute`: a rule at the end with the matches of the weighted one, and this header. A prefix becomes
    /// a regular expression.
    async fn set_header_route(&self, name: &str, prefix: &str) {
        self.change(|route| {
            let rules = rules(route);
            let matches: Vec<Value> = rules[0]["matches"]
                .as_array()
                .expect("the server's default")
                .iter()
                .map(|given| {
                    let header =
                        json!({ "name": name, "type": "RegularExpression", "value": format!("{prefix}.*") });
                    json!({ "path": given["path"], "headers": [header] })
                })
                .collect();
            let backend = json!({ "group": "", "kind": "Service", "name": CANARY, "port": 80 });
            rules.retain(|rule| rule["name"] != MANAGED);
            rules.push(json!({ "name": MANAGED, "matches": matches, "backendRefs": [backend] }));
        })
        .await;
    }

    /// `removeHTTPManagedRoutes`.
    async fn remove_managed_routes(&self) {
        self.change(|route| rules(route).retain(|rule| rule["name"] != MANAGED)).await;
    }
}

fn rules(route: &mut Value) -> &mut Vec<Value> {
    route["spec"]["rules"].as_array_mut().expect("a list")
}

#[tokio::test]
async fn the_gateway_api_plugins_weights_and_header_rules_land_and_move_the_traffic() {
    let Some(cluster) = Cluster::with_gateway_api().await else { return };
    let stage = shop(cluster, "argo-gateway", ROLLOUT).await;
    let plugin = Plugin { tool: Tool::new(&stage, "argo-gateway", roles::GATEWAY_API_PLUGIN).await };
    switch_selector(&plugin.tool, STABLE, OLD).await;
    switch_selector(&plugin.tool, CANARY, NEW).await;
    stage.apply(&page::object(&stage.namespace, "HTTPRoute").to_string()).await; // the user's
    plugin.set_weight(0).await;
    landed_route(&stage, ROLLOUT).await;
    stage.begin_load(RATE).await;
    stage.count(REQUESTS).await.expect("plugin: at the start", "new", 0.0);

    // `setHeaderRoute`: testers see the canary before anybody else does.
    plugin.set_header_route("X-Tester", "yes").await;
    landed_route(&stage, ROLLOUT).await;
    let testers = stage.ask(ROLLOUT, 20, &["X-Tester=yes, indeed"]).await;
    assert!(testers.iter().all(|answer| answer.pod == "new"), "{testers:?}");
    stage.count(REQUESTS).await.expect("plugin: for testers", "new", 0.0);
    for canary in STEPS {
        plugin.set_weight(canary).await;
        landed_route(&stage, ROLLOUT).await;
        stage.count(REQUESTS).await.expect(&format!("plugin: {canary} to the canary"), "new", canary as f64);
        let route = stage.object("httproutes", ROLLOUT).await.expect("the user's route");
        assert_eq!(
            route["metadata"]["labels"],
            json!({ IN_PROGRESS: "in-progress" }),
            "its label is its own"
        );
    }
    plugin.remove_managed_routes().await;
    switch_selector(&plugin.tool, STABLE, NEW).await;
    plugin.set_weight(0).await;
    landed_route(&stage, ROLLOUT).await;
    let testers = stage.ask(ROLLOUT, 5, &["X-Tester=yes"]).await;
    assert!(testers.iter().all(|answer| answer.status == 200), "{testers:?}");
    stage.assert_nothing_lost().await;
    stage.strike().await;
}
