use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use serde_json::Value;

use super::super::source::split_and_callers;
use super::{object, says};
use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::eventually::{eventually, holds, within};
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::load::Load;
use crate::harness::mesh::SidecarOptions;
use crate::harness::objects;

/// From the death of a leader to the next, on a busy machine: the Lease's life is 15 s.
const SUCCESSION: Duration = Duration::from_secs(60);

async fn version(mesh: &KubeMesh<'_>, name: &str) -> Value {
    object(mesh, "trafficsplit", name).await["metadata"]["resourceVersion"].take()
}

/// Waits until `Programmed` in the cluster says this, of this generation.
async fn programmed(mesh: &KubeMesh<'_>, expected: &str, generation: i64) {
    eventually(&format!("Programmed {expected} of generation {generation}"), async || {
        let status = object(mesh, "trafficsplit", "cart").await["status"].take();
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let condition = conditions.find(|condition| condition["type"] == "Programmed");
        let condition = condition.cloned().unwrap_or_default();
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let said = format!("{} {} {}", text("status"), text("reason"), text("message"));
        holds(said == expected && condition["observedGeneration"] == generation, condition)
    })
    .await;
}

#[tokio::test]
async fn statuses_count_the_proxies_of_all_replicas_and_a_new_leader_writes_nothing_that_stands_there() {
    let Some(server) = ApiServer::start().await else { return };
    let mesh = KubeMesh::start(&server).await.writing_statuses();
    let kubeconfig = server.kubeconfig();
    let [mut zero, mut one] =
        [mesh.replica("gauze-0", &kubeconfig, &[]).await, mesh.replica("gauze-1", &kubeconfig, &[]).await];
    zero.ready().await;
    one.ready().await;
    let app = App::start("cart").await;
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    let callers = split_and_callers(&mesh, &server, &cart, [&zero, &one]).await;
    programmed(&mesh, "True Programmed 2/2", 1).await;

    // Traffic is no change.
    let stands = version(&mesh, "cart").await;
    let load = Load::start("status", callers[0].outbound[0], "cart", 100);
    load.send_more(500).await;
    load.finish().await.assert_nothing_lost(&[&app]);
    assert_eq!(version(&mesh, "cart").await, stands, "something was written");

    // One of them hangs while the split changes.
    callers[1].process.freeze();
    server.apply(&objects::split(mesh.shop(), "cart", "cart", &[("cart-v1", 1), ("cart", 1)])).await;
    programmed(&mesh, "False Reconciling 1/2", 2).await;
    callers[1].process.thaw();
    programmed(&mesh, "True Programmed 2/2", 2).await;

    let stands = version(&mesh, "cart").await;
    let (leading, other) = match zero.metric("leader", "").await == 1.0 {
        true => (&mut zero, &one),
        false => (&mut one, &zero),
    };
    is_succeeded(&mesh, leading, other).await;
    // What the new leader writes comes after it has looked at everything.
    server.apply(&objects::split(mesh.shop(), "next", "next", &[("cart-v1", 1)])).await;
    says(&mesh, "trafficsplit", "next", "", "Accepted False TargetNotFound: ").await;
    programmed(&mesh, "True Programmed 2/2", 2).await;
    assert_eq!(version(&mesh, "cart").await, stands, "the new leader wrote what stood there");
    assert_eq!(other.metric("status_writes_total", "").await, 1.0);
}

/// The leader is killed, its pod goes, its sidecars find the other one, which leads.
async fn is_succeeded(mesh: &KubeMesh<'_>, leading: &mut Replica, other: &Replica) {
    mesh.front.point_to(&[other.address()]);
    leading.process.kill();
    let pods: Api<Pod> = Api::namespaced(mesh.client.clone(), &mesh.system.name);
    pods.delete(&leading.pod, &DeleteParams::default().grace_period(0)).await.expect("it is there");
    within(SUCCESSION, "the other leads, and has all proxies", async || {
        let leads = other.metric("leader", "").await == 1.0;
        let proxies = other.metric("connected_proxies", "").await;
        holds(leads && proxies == 3.0, (leads, proxies))
    })
    .await;
}
