//! What the leader writes into the statuses of users' objects, what it leaves alone there, and how seldom it writes.
//! Each test has an API server of its own: several meshes on one would say different things of the same objects.

mod leaders; // several replicas, one writer
mod refusing; // a proxy that refuses

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::source::answers;
use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::eventually::{eventually, holds};
use crate::harness::gateway_api::gateway_api_crds;
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::mesh::{Sidecar, SidecarOptions};
use crate::harness::objects;

/// The status as it stands in the cluster.
async fn status(mesh: &KubeMesh<'_>, kind: &str, name: &str) -> Value {
    object(mesh, kind, name).await["status"].take()
}

async fn object(mesh: &KubeMesh<'_>, kind: &str, name: &str) -> Value {
    let arguments = ["get", kind, name, "--namespace", mesh.shop(), "-o", "json"];
    let json = mesh.server.kubectl(&arguments).await.expect("it is there");
    serde_json::from_str(&json).expect("kubectl prints JSON")
}

/// `Accepted True Accepted: accepted; …` of each condition of this entry (or split).
fn in_short(entry: &Value) -> String {
    let conditions = entry["conditions"].as_array().into_iter().flatten().map(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        format!("{} {} {}: {}", text("type"), text("status"), text("reason"), text("message"))
    });
    conditions.collect::<Vec<_>>().join("; ")
}

/// Waits until the conditions at `pointer` of an object's status begin like this.
async fn says(mesh: &KubeMesh<'_>, kind: &str, name: &str, pointer: &str, expected: &str) {
    eventually(&format!("{kind} {name} says {expected}"), async || {
        let status = status(mesh, kind, name).await;
        let said = status.pointer(pointer).map(in_short).unwrap_or_default();
        holds(said.starts_with(expected), said)
    })
    .await;
}

/// Waits until there is just one event that begins like this: `TrafficSplit/cart Warning NoEndpoints …`.
async fn tells(mesh: &KubeMesh<'_>, expected: &str) {
    let columns = r#"jsonpath={range .items[*]}{.regarding.kind}/{.regarding.name} {.type} {.reason} {.note}{"\n"}{end}"#;
    let arguments = ["get", "events.events.k8s.io", "--namespace", mesh.shop(), "-o", columns];
    eventually(&format!("an event: {expected}"), async || {
        let told = mesh.server.kubectl(&arguments).await?;
        let count = told.lines().filter(|line| line.starts_with(expected)).count();
        if count == 1 { Ok(()) } else { Err(told) }
    })
    .await;
}

const ROUTE: &str = "{group: '', kind: Service, name: pay, port: 80}";

fn route(shop: &str, parents: &str, backend: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: pay, namespace: {shop}}}, \
         spec: {{parentRefs: [{parents}], rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]}}}}"
    )
}

fn policy(shop: &str, kind: &str, target: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: gauze.dev/v1alpha1, kind: {kind}, metadata: {{name: {target}, namespace: {shop}}}, \
         spec: {{targetRefs: [{{kind: Service, name: {target}}}]{rest}}}}}"
    )
}

/// `cart` with two versions, `pay`, and a caller of both.
async fn shop(mesh: &KubeMesh<'_>, app: &App) -> [Sidecar; 2] {
    let none = SidecarOptions::default();
    let cart = mesh.pod("cart-0", "cart", Some(app), none).await;
    let mut dials = Vec::new();
    for service in ["cart", "cart-v1", "cart-v2", "pay"] {
        dials.push(mesh.service(service, &[&cart]).await);
    }
    let web = mesh.pod("web-0", "web", None, SidecarOptions { dials: &[dials[0], dials[3]], ..none }).await;
    cart.ready().await;
    web.ready().await;
    [cart, web]
}

#[tokio::test]
async fn every_kind_says_in_the_cluster_what_became_of_it_and_gauze_get_says_the_same() {
    let Some(definitions) = gateway_api_crds("standard") else { return };
    let Some(server) = ApiServer::start().await else { return };
    server.define(&definitions).await;
    let mesh = KubeMesh::start(&server).await.writing_statuses();
    let replica = mesh.control_plane().await;
    let app = App::start("cart").await;
    let [_cart, web] = shop(&mesh, &app).await;
    let shop = mesh.shop().to_owned();

    server.apply(&objects::split(&shop, "cart", "cart", &[("cart-v1", 90), ("cart-v2", 10)])).await;
    answers(&web, "cart").await;
    says(&mesh, "trafficsplit", "cart", "", "Accepted True Accepted: accepted; ResolvedRefs True ResolvedRefs: all references resolve; Programmed True Programmed: 1/1").await;
    let columns = server.kubectl(&["get", "trafficsplit", "--namespace", &shop]).await.expect("it is there");
    let (head, row) = columns.split_once('\n').expect("a head and a row");
    for (name, value) in [("SPLIT", "cart-v1=90 cart-v2=10"), ("PROGRAMMED", "1/1")] {
        let at = head.find(name).unwrap_or_else(|| panic!("no {name}: {columns}"));
        assert!(row[at..].starts_with(value), "{name}: {columns}");
    }

    // What is wrong, and that it is mended.
    for (kind, rest) in [("TrafficPolicy", ", connectTimeout: 2s"), ("AuthorizationPolicy", "")] {
        server.apply(&policy(&shop, kind, "late", rest)).await;
        let expected = "Accepted False TargetNotFound: spec.targetRefs[0]: there is no Service `late`";
        says(&mesh, kind, "late", "/ancestors/0", expected).await;
    }
    for kind in ["TrafficPolicy", "AuthorizationPolicy"] {
        let said = "Warning TargetNotFound late: spec.targetRefs[0]: there is no Service `late`";
        tells(&mesh, &format!("{kind}/late {said}")).await;
    }
    mesh.service("late", &[]).await;
    for kind in ["TrafficPolicy", "AuthorizationPolicy"] {
        says(
            &mesh,
            kind,
            "late",
            "/ancestors/0",
            "Accepted True Accepted: accepted; Programmed True NotUsedYet: 0/0",
        )
        .await;
        tells(&mesh, &format!("{kind}/late Normal Accepted late: accepted")).await;
    }

    server.apply(&route(&shop, ROUTE, "nobody")).await;
    says(
        &mesh,
        "httproute",
        "pay",
        "/parents/0",
        "Accepted True Accepted: accepted; ResolvedRefs False BackendNotFound: ",
    )
    .await;
    tells(&mesh, "HTTPRoute/pay Warning BackendNotFound pay: spec.rules[0].backendRefs[0]").await;
    let entry = status(&mesh, "httproute", "pay").await["parents"][0].take();
    let echoed = json!({"group": "", "kind": "Service", "name": "pay", "port": 80});
    assert_eq!((&entry["parentRef"], &entry["controllerName"]), (&echoed, &json!("gauze.dev/control-plane")));
    assert_eq!(entry["conditions"][0]["observedGeneration"], 1);
    is_what_gauze_get_says(&mesh, &replica).await;
}

/// All statuses in the cluster, but for times, against the answer that `gauze get` prints.
async fn is_what_gauze_get_says(mesh: &KubeMesh<'_>, replica: &Replica) {
    eventually("the cluster holds what `gauze get` says", async || {
        let answer = replica.ask("/objects").await;
        let objects = answer["objects"].as_array().into_iter().flatten();
        let mut compared = 0;
        for said in objects.filter(|object| object["parents"].as_array().is_some_and(|all| !all.is_empty())) {
            let text = |field: &str| said[field].as_str().unwrap_or_default();
            let mut stands = status(mesh, text("kind"), text("name")).await;
            let entries = match text("kind") {
                "TrafficSplit" => json!([{"conditions": stands["conditions"]}]),
                "HTTPRoute" => stands["parents"].take(),
                _ => stands["ancestors"].take(),
            };
            let stands = entries.as_array().into_iter().flatten().cloned().map(as_gauze_get_says_it);
            let stands = Value::Array(stands.collect());
            holds(said["parents"] == stands, format!("{}\n{stands}", said["parents"]))?;
            compared += 1;
        }
        holds(compared == 4, format!("{compared} objects"))
    })
    .await;
}

fn as_gauze_get_says_it(mut entry: Value) -> Value {
    for condition in entry["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().expect("a condition").remove("lastTransitionTime");
    }
    let entry = entry.as_object_mut().expect("an entry");
    entry.remove("controllerName");
    for reference in ["parentRef", "ancestorRef"] {
        if let Some(value) = entry.remove(reference) {
            entry.insert("reference".to_owned(), value);
        }
    }
    json!(entry)
}

/// How often another controller and its user write while we do.
const ROUNDS: i64 = 20;

#[tokio::test]
async fn what_another_controller_says_of_a_route_stays_byte_for_byte_while_both_write() {
    let Some(definitions) = gateway_api_crds("standard") else { return };
    let Some(server) = ApiServer::start().await else { return };
    server.define(&definitions).await;
    let mesh = KubeMesh::start(&server).await.writing_statuses();
    let _replica = mesh.control_plane().await;
    mesh.service("pay", &[]).await;
    let shop = mesh.shop().to_owned();
    let gateway = "{name: gateway}";
    server.apply(&route(&shop, &format!("{gateway}, {ROUTE}"), "pay")).await;
    says(&mesh, "httproute", "pay", "/parents/0", "Accepted True").await;
    let parents = async || status(&mesh, "httproute", "pay").await["parents"].take();
    assert_eq!(parents().await.as_array().map(Vec::len), Some(1), "the gateway is not ours");

    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let routes: Api<DynamicObject> =
        Api::namespaced_with(mesh.client.clone(), &shop, &ApiResource::from_gvk(&kind));
    for round in 1..=ROUNDS {
        // A change of the object is a change of what we say; theirs comes at the same time.
        let change = json!({"spec": {"hostnames": [format!("pay-{round}.example.com")]}});
        let changed = routes.patch("pay", &PatchParams::default(), &Patch::Merge(&change)).await;
        assert!(changed.is_ok_and(|route| route.metadata.generation == Some(round + 1)));
        say_as_another(&routes, round).await;
    }
    let last = ROUNDS + 1;
    eventually("both have said what they had to say", async || {
        let parents = parents().await;
        let theirs = parents.as_array().into_iter().flatten().find(|one| one["controllerName"] == THEIR_NAME);
        holds(theirs == Some(&their_entry(ROUNDS)), parents.to_string())?;
        let ours = parents.as_array().into_iter().flatten().find(|one| one["controllerName"] != THEIR_NAME);
        let observed = ours.map(|ours| ours["conditions"][0]["observedGeneration"].clone());
        holds(observed == Some(json!(last)), parents.to_string())
    })
    .await;

    // No parent of the route is ours any more.
    server.apply(&route(&shop, gateway, "pay")).await;
    eventually("what we said is gone, and only that", async || {
        let parents = parents().await;
        holds(parents == json!([their_entry(ROUNDS)]), parents)
    })
    .await;
}

const THEIR_NAME: &str = "example.com/gateway";

/// What another controller says of its parent; not as we would.
fn their_entry(round: i64) -> Value {
    json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"},
        "controllerName": THEIR_NAME,
        "conditions": [{
            "type": "example.com/Rounds", "status": "Unknown", "reason": "Counting", "message": format!("round {round}"),
            "observedGeneration": round, "lastTransitionTime": "2020-02-02T02:02:02Z",
        }],
    })
}

/// As controllers do: reads, changes its own entry, writes back, and begins anew when somebody else wrote meanwhile.
async fn say_as_another(routes: &Api<DynamicObject>, round: i64) {
    eventually("another controller writes", async || {
        let mut route = routes.get("pay").await.expect("it is there");
        let parents = route.data["status"]["parents"].as_array_mut().expect("we wrote before");
        parents.retain(|entry| entry["controllerName"] != THEIR_NAME);
        parents.push(their_entry(round));
        let body = serde_json::to_vec(&route).expect("it was read");
        routes
            .replace_status(
                "pay",
                &PostParams::default(),
                &serde_json::from_slice(&body).expect("it was written"),
            )
            .await
    })
    .await;
}
