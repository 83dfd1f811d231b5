//! The API server as the source of all objects: read whole before anything is served, followed through outages,
//! bursts and nonsense.

mod kinds; // custom kinds that come, go and are nonsense
mod replicas; // two of them: who leads, and who lags

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::client::{self, Protocol};
use crate::harness::eventually::{eventually, holds, within};
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::load::Load;
use crate::harness::mesh::{Sidecar, SidecarOptions};
use crate::harness::objects;

/// Waits until a request of this sidecar's app is answered by that app.
pub(super) async fn answers(web: &Sidecar, app: &str) {
    eventually(&format!("an answer of {app}"), async || {
        let answer = client::call(Protocol::Http1, web.outbound[0], "cart", "/echo", "first").await;
        let answer = answer.map_err(|error| error.to_string())?;
        holds(answer.app() == app, format!("{} {} {}", answer.status, answer.app(), answer.text()))
    })
    .await;
}

/// Splits `cart`, whose pod this is, and starts a caller of it at each of these replicas.
pub(super) async fn split_and_callers(
    mesh: &KubeMesh<'_>,
    server: &ApiServer,
    cart: &Sidecar,
    replicas: [&Replica; 2],
) -> Vec<Sidecar> {
    let service = mesh.service("cart", &[cart]).await;
    mesh.service("cart-v1", &[cart]).await;
    server.apply(&objects::split(mesh.shop(), "cart", "cart", &[("cart-v1", 1)])).await;
    let mut callers = Vec::new();
    for (name, replica) in ["web-0", "web-1"].into_iter().zip(replicas) {
        mesh.front.point_to(&[replica.address()]);
        let options = SidecarOptions { dials: &[service], ..SidecarOptions::default() };
        let web = mesh.pod(name, "web", None, options).await;
        web.ready().await;
        answers(&web, "cart").await;
        callers.push(web);
    }
    callers
}

#[tokio::test]
async fn pods_of_a_cluster_speak_mutual_tls_by_way_of_a_service() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let control_plane = mesh.control_plane().await;
    let app = App::start("cart").await;
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    let service = mesh.service("cart", &[&cart]).await;
    let options = SidecarOptions { dials: &[service], ..SidecarOptions::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    cart.ready().await;
    web.ready().await;
    answers(&web, "cart").await;
    // Beside those that were set, and that hold the other ServiceCIDR of this cluster.
    let networks = &control_plane.ask("/about").await["mesh"]["meshNetworks"];
    assert_eq!(*networks, json!(["10.0.0.0/8", "127.0.0.0/8", "fd00:96::/112"]));
    let identity = format!("peer_identity=\"spiffe://cluster.local/ns/{}/sa/web\"", mesh.shop());
    cart.counts("gauze_requests_total", &["direction=\"inbound\"", "tls=\"mutual\"", &identity], 1.0).await;
}

#[tokio::test]
async fn nothing_is_served_before_all_objects_are_read() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let (relay, kubeconfig) = mesh.relay().await;
    relay.cut();
    let replica = mesh.replica("gauze-0", &kubeconfig, &[]).await;
    assert_eq!(replica.page("/live").await.status, 200);
    // Long enough to have tried.
    eventually("a failed watch", async || {
        let failures = replica.metric("watch_failures_total", "kind=\"Pod\"").await;
        holds(failures > 1.0, failures)
    })
    .await;
    let (status, text) = replica.readiness().await;
    assert_eq!(status, 503, "{text}");
    assert_eq!(replica.metric("watched_objects", "").await, 0.0);
    relay.mend();
    replica.ready().await;
    assert!(replica.metric("watched_objects", "kind=\"Pod\"").await >= 1.0);
}

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn sixty_seconds_without_api_server_and_expired_watches_cost_no_request_and_no_endpoint() {
    let Some(server) = ApiServer::start().await else { return };
    let mesh = KubeMesh::start(&server).await;
    let (relay, kubeconfig) = mesh.relay().await;
    let replica = mesh.replica("gauze-0", &kubeconfig, &[]).await;
    replica.ready().await;
    let apps = [App::start("cart-0").await, App::start("cart-1").await, App::start("cart-2").await];
    let none = SidecarOptions::default();
    let [zero, one] = [
        mesh.pod("cart-0", "cart", Some(&apps[0]), none).await,
        mesh.pod("cart-1", "cart", Some(&apps[1]), none).await,
    ];
    let service = mesh.service("cart", &[&zero, &one]).await;
    let options = SidecarOptions { dials: &[service], ..none };
    let web = mesh.pod("web-0", "web", None, options).await;
    let two = mesh.pod("cart-2", "cart", Some(&apps[2]), none).await;
    for pod in [&zero, &one, &two, &web] {
        pod.ready().await;
    }
    let load = Load::start("outage", web.outbound[0], "cart", 60);
    load.send_more(50).await;

    server.stop_apiserver().await;
    let stopped = Instant::now();
    eventually("that the API server is away is seen", async || {
        let away = replica.metric("api_server_away", "").await;
        let problems = replica.problems().await;
        holds(away == 1.0 && problems == ["// M1012"], (away, problems))
    })
    .await;
    assert_eq!(replica.readiness().await.0, 200, "nobody else is fresh");
    tokio::time::sleep(OUTAGE.saturating_sub(stopped.elapsed())).await;

    // Before the control plane sees the API server again, an endpoint goes and another comes; and the API server,
    // begun anew, no longer knows where the watches were (410).
    relay.cut();
    server.start_apiserver().await;
    println!("away for {:?} (at least {OUTAGE:?})", stopped.elapsed());
    mesh.remove_endpoint("cart", "cart-1").await;
    mesh.delete_pod("cart-1").await;
    mesh.endpoint("cart", &two).await;
    relay.mend();
    let back = Instant::now();
    within(Duration::from_secs(15), "the new endpoint is used", async || {
        holds(apps[2].count("outage") > 0, apps[2].count("outage"))
    })
    .await;
    eventually("all is said to be well", async || {
        let away = replica.metric("api_server_away", "").await;
        let problems = replica.problems().await;
        holds(away == 0.0 && problems.is_empty(), (away, problems))
    })
    .await;
    println!("well after {:?}", back.elapsed());
    let since = load.elapsed();
    load.send_more(120).await;
    let report = load.finish().await;
    report.assert_nothing_lost(&[&apps[0], &apps[1], &apps[2]]);
    let by_app = report.by_app(since);
    assert_eq!(by_app.keys().collect::<Vec<_>>(), ["cart-0", "cart-2"], "{by_app:?}");
    let restarts = replica.metric("watch_restarts_total", "").await;
    assert!(restarts >= 1.0, "no watch had expired");
    println!("{} requests, {restarts} watches had expired", report.outcomes.len());
}

/// Services of the burst, each with [`ENDPOINTS`].
const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 5;
/// Of them created while the control plane hears nothing, to be heard at once: quickly enough for it not to notice.
const HELD: usize = 100;
/// Objects that are created at the same time.
const AT_ONCE: usize = 64;

#[tokio::test]
async fn a_thousand_services_and_five_thousand_endpoints_at_once_are_taken_up_in_few_steps() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let (relay, kubeconfig) = mesh.relay().await;
    let replica = mesh.replica("gauze-0", &kubeconfig, &[]).await;
    replica.ready().await;
    let app = App::start("cart").await;
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    let service = mesh.service("cart", &[&cart]).await;
    let options = SidecarOptions { dials: &[service], ..SidecarOptions::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    cart.ready().await;
    web.ready().await;
    answers(&web, "cart").await;
    let load = Load::start("burst", web.outbound[0], "cart", 30);
    let updates = replica.metric("world_updates_total", "").await;
    let spent = replica.metric("world_update_duration_seconds_sum", "").await;
    let events = replica.metric("watch_events_total", "").await;

    let began = Instant::now();
    for first in (0..SERVICES).step_by(HELD) {
        // However slow the API server is, what it says comes at once.
        relay.hold();
        let creations = (first..first + HELD).map(|number| create(&mesh, number));
        futures_util::stream::iter(creations).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        relay.mend();
        eventually("everything is known", async || {
            let objects = replica.ask("/objects").await;
            let ours = objects["objects"].as_array().into_iter().flatten().filter(|object| {
                object["namespace"] == mesh.shop()
                    && object["name"].as_str().is_some_and(|name| name.starts_with("burst-"))
            });
            let count = ours.count();
            holds(count == 2 * (first + HELD), format!("{count} objects"))
        })
        .await;
    }
    let known = began.elapsed();
    let updates = replica.metric("world_updates_total", "").await - updates;
    let spent = replica.metric("world_update_duration_seconds_sum", "").await - spent;
    let events = replica.metric("watch_events_total", "").await - events;
    println!(
        "{SERVICES} Services and {} endpoints: created and known in {known:?}; {events} watch events became {updates} \
         updates of the world, which took {spent:.3} s together",
        SERVICES * ENDPOINTS
    );
    assert!(updates < events / 4.0, "{updates} updates for {events} events");
    let report = load.finish().await;
    report.assert_nothing_lost(&[&app]);
}

async fn create(mesh: &KubeMesh<'_>, number: usize) {
    let name = format!("burst-{number}");
    let services: Api<Service> = Api::namespaced(mesh.client.clone(), mesh.shop());
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    let service = serde_json::from_value(service).expect("well-formed");
    services.create(&PostParams::default(), &service).await.expect("the API server takes it");
    let slices: Api<EndpointSlice> = Api::namespaced(mesh.client.clone(), mesh.shop());
    let endpoints: Vec<_> = (0..ENDPOINTS)
        .map(|index| json!({"addresses": [format!("10.{}.{}.{}", 128 + index, number / 250, 1 + number % 250)]}))
        .collect();
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    });
    let slice = serde_json::from_value(slice).expect("well-formed");
    slices.create(&PostParams::default(), &slice).await.expect("the API server takes it");
}
