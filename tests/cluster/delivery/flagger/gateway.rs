//! The router for provider `gatewayapi:v1`: an HTTPRoute whose parent is the apex Service.

use serde_json::{Value, json};

use super::{APEX, CANARY, Flagger, PRIMARY, RATE, REQUESTS, STEPS, podinfo};
use crate::cluster::delivery::live::landed_route;
use crate::cluster::delivery::page;
use crate::cluster::delivery::stage::Stage;
use crate::harness::cluster::Cluster;
use crate::harness::eventually::{eventually, holds};

/// The cookie by which Flagger knows a client of the canary.
const COOKIE: &str = "flagger-cookie=LXMHqbFPyT";

/// gateway_api.go.
struct GatewayApiRouter<'a> {
    flagger: Flagger<'a>,
    /// `gatewayRefs`, as Flagger's tutorial for Linkerd writes them.
    parent: Value,
}

impl GatewayApiRouter<'_> {
    fn collection(&self) -> String {
        format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes", self.flagger.namespace())
    }

    fn path(&self) -> String {
        format!("{}/{APEX}", self.collection())
    }

    /// `makeBackendRef`.
    fn backend(&self, name: &str, weight: u64) -> Value {
        json!({ "group": "", "kind": "Service", "name": name, "port": 80, "weight": weight })
    }

    fn backends(&self, canary: u64) -> Value {
        json!([self.backend(PRIMARY, 100 - canary), self.backend(CANARY, canary)])
    }

    fn weighted(&self, canary: u64) -> Value {
        json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "backendRefs": self.backends(canary),
        })
    }

    /// `Reconcile`.
    async fn create(&self) {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": self.flagger.metadata(APEX),
            "spec": { "parentRefs": [self.parent], "rules": [self.weighted(0)] },
        });
        self.flagger.tool.create(&self.collection(), &route).await;
    }

    /// `GetRoutes`: `Err` where Flagger would not go on, because a parent has not accepted this generation yet.
    async fn routes(&self) -> Result<(u64, u64), String> {
        let route = self.flagger.tool.get(&self.path()).await.expect("it was created");
        let accepted = |parent: &Value| {
            let mut conditions = parent["conditions"].as_array().expect("a list").iter();
            conditions.all(|condition| {
                condition["type"] != "Accepted"
                    || condition["status"] == "True"
                        && condition["observedGeneration"].as_u64()
                            >= route["metadata"]["generation"].as_u64()
            })
        };
        let parents = route["status"]["parents"].as_array().into_iter().flatten();
        for parent in parents.filter(|parent| parent["parentRef"] == route["spec"]["parentRefs"][0]) {
            holds(accepted(parent), format!("the parent is not ready: {parent}"))?;
        }
        let rules = route["spec"]["rules"].as_array().expect("a list");
        let backends = rules.last().expect("a rule")["backendRefs"].as_array().expect("a list").iter();
        let weight = |backend: &Value| backend["weight"].as_u64().expect("a weight");
        let weights: Vec<u64> = backends.map(weight).collect();
        Ok((weights[0], weights[1]))
    }

    /// `SetRoutes`: an update of what was just read; after a conflict Flagger tries again at its next interval.
    async fn set_rules(&self, rules: Value) {
        eventually("the rules are written", async || {
            let mut route = self.flagger.tool.get(&self.path()).await.expect("it was created");
            route["spec"]["rules"] = rules.clone();
            self.flagger.tool.update(&self.path(), &route).await
        })
        .await;
    }

    /// `getSessionAffinityRouteRules`: who has the cookie stays at the canary; who comes there by weight is given it.
    fn sticky(&self, canary: u64) -> Value {
        let mut weighted = self.weighted(canary);
        weighted["backendRefs"][1]["filters"] = set_cookie(&format!("{COOKIE}; Max-Age=86400"));
        json!([{ "matches": cookie_matches(), "backendRefs": self.backends(100) }, weighted])
    }

    /// The same when the canary has no weight any more: the cookie of its clients is taken away.
    fn unstick(&self) -> Value {
        let filters = set_cookie(&format!("{COOKIE}; Max-Age=-1"));
        json!([
            { "matches": cookie_matches(), "filters": filters, "backendRefs": self.backends(0) },
            self.weighted(0),
        ])
    }

    /// What blue/green with `mirror: true` adds.
    fn mirrored(&self) -> Value {
        let mut rule = self.weighted(0);
        let target = json!({ "group": "", "kind": "Service", "name": CANARY, "port": 80 });
        rule["filters"] = json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": target } }]);
        json!([rule])
    }
}

fn cookie_matches() -> Value {
    let value = format!(".*{}.*", COOKIE.replace('=', ".*"));
    json!([{ "headers": [{ "type": "RegularExpression", "name": "Cookie", "value": value }] }])
}

fn set_cookie(cookie: &str) -> Value {
    json!([{
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": { "add": [{ "name": "Set-Cookie", "value": cookie }] },
    }])
}

async fn router(stage: &Stage) -> GatewayApiRouter<'_> {
    let parent = page::value(&stage.namespace, "/spec/service/gatewayRefs/0");
    let router = GatewayApiRouter { flagger: Flagger::new(stage).await, parent };
    router.flagger.create_services().await;
    router.create().await;
    landed_route(stage, APEX).await;
    router
}

#[tokio::test]
async fn flaggers_http_routes_land_step_by_step_and_move_the_traffic() {
    let Some(cluster) = Cluster::with_gateway_api().await else { return };
    tokio::join!(release(cluster), release_with_affinity(cluster));
}

async fn release(cluster: &'static Cluster) {
    let stage = podinfo(cluster, "flagger-gateway").await;
    let router = router(&stage).await;
    stage.begin_load(RATE).await;
    stage.count(REQUESTS).await.expect("gatewayapi:v1: created", "canary", 0.0);
    for canary in STEPS {
        router.set_rules(json!([router.weighted(canary)])).await;
        landed_route(&stage, APEX).await;
        assert_eq!(router.routes().await, Ok((100 - canary, canary)));
        let step = format!("gatewayapi:v1: {canary} to the canary");
        stage.count(REQUESTS).await.expect(&step, "canary", canary as f64);
    }
    // Requests are not mirrored yet: the filter has no effect, the status says so, and Flagger goes on.
    router.set_rules(router.mirrored()).await;
    let told = landed_route(&stage, APEX).await;
    assert!(told.contains("spec.rules[0].filters[0]") && told.contains("mirror"), "{told}");
    assert_eq!(router.routes().await, Ok((100, 0)));
    stage.count(REQUESTS).await.expect("gatewayapi:v1: mirrored", "canary", 0.0);
    stage.assert_nothing_lost().await;
    stage.strike().await;
}

async fn release_with_affinity(cluster: &'static Cluster) {
    let stage = podinfo(cluster, "flagger-affinity").await;
    let router = router(&stage).await;
    stage.begin_load(0).await; // requests are sent beside it
    router.set_rules(router.sticky(20)).await;
    landed_route(&stage, APEX).await;
    assert_eq!(router.routes().await, Ok((80, 20)));
    let given = [format!("{COOKIE}; Max-Age=86400")];
    let answers = stage.ask(APEX, 100, &[]).await;
    for answer in &answers {
        let expected = if answer.pod == "canary" { &given[..] } else { &[] };
        assert_eq!(answer.set_cookie, expected, "who comes to the canary is given its cookie: {answer:?}");
    }
    assert!(answers.iter().any(|answer| answer.pod == "canary"), "{answers:?}");
    let sticky = stage.ask(APEX, 50, &[&format!("Cookie=theme=dark; {COOKIE}")]).await;
    assert!(sticky.iter().all(|answer| answer.pod == "canary"), "who has the cookie stays: {sticky:?}");

    router.set_rules(router.unstick()).await;
    landed_route(&stage, APEX).await;
    let taken = vec![format!("{COOKIE}; Max-Age=-1")];
    let answers = stage.ask(APEX, 20, &[&format!("Cookie={COOKIE}")]).await;
    assert!(
        answers.iter().all(|answer| answer.pod == "primary" && answer.set_cookie == taken),
        "the cookie is taken away: {answers:?}"
    );
    stage.strike().await;
}
