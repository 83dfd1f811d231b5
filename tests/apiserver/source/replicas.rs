use std::time::Duration;

use super::answers;
use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::eventually::{eventually, holds, within};
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::load::Load;
use crate::harness::mesh::SidecarOptions;

/// From the death of a leader to the next: the Lease's life, its renewal, and a call or two.
const SUCCESSION: Duration = Duration::from_secs(25);
/// From the last packet of the API server to being known as lagging: 5 s, and the question to the others.
const NOTICE: Duration = Duration::from_secs(12);

/// Waits until exactly one of these leads; returns which.
async fn leader(replicas: &[&Replica], bound: Duration) -> usize {
    within(bound, "one replica leads", async || {
        let mut leading = Vec::new();
        for (index, replica) in replicas.iter().enumerate() {
            if replica.metric("leader", "").await == 1.0 {
                leading.push(index);
            }
        }
        match leading.as_slice() {
            [one] => Ok(*one),
            others => Err(format!("{others:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn one_of_two_replicas_leads_and_the_other_follows_when_it_is_killed_or_told_to_stop() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let kubeconfig = server.kubeconfig();
    let [mut zero, mut one] =
        [mesh.replica("gauze-0", &kubeconfig, &[]).await, mesh.replica("gauze-1", &kubeconfig, &[]).await];
    zero.ready().await;
    one.ready().await;
    let (first, second) = match leader(&[&zero, &one], SUCCESSION).await {
        0 => (&mut zero, &mut one),
        _ => (&mut one, &mut zero),
    };
    first.process.kill();
    assert_eq!(second.metric("leader", "").await, 0.0, "a Lease lives on");
    leader(&[second], SUCCESSION).await;

    let third = mesh.replica("gauze-2", &kubeconfig, &[]).await;
    third.ready().await;
    assert_eq!(third.metric("leader", "").await, 0.0);
    second.process.terminate().await;
    leader(&[&third], Duration::from_secs(8)).await;
}

#[tokio::test]
async fn a_replica_that_lags_sends_its_proxies_to_one_that_does_not() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let (relay, through) = mesh.relay().await;
    let lagging = mesh.replica("gauze-0", &through, &[]).await;
    let fresh = mesh.replica("gauze-1", &server.kubeconfig(), &[]).await;
    lagging.ready().await;
    fresh.ready().await;
    mesh.front.point_to(&[lagging.address(), fresh.address()]);
    let apps = [App::start("cart-0").await, App::start("cart-1").await];
    let none = SidecarOptions::default();
    let zero = mesh.pod("cart-0", "cart", Some(&apps[0]), none).await;
    let one = mesh.pod("cart-1", "cart", Some(&apps[1]), none).await;
    let service = mesh.service("cart", &[&zero]).await;
    let web = mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..none }).await;
    for pod in [&zero, &one, &web] {
        pod.ready().await;
    }
    answers(&web, "cart-0").await;
    assert!(lagging.metric("connected_proxies", "").await >= 3.0);
    let load = Load::start("lag", web.outbound[0], "cart", 30);

    // No connection breaks: nothing comes any more.
    relay.hold();
    within(NOTICE, "the lag is noticed", async || {
        let (status, text) = lagging.readiness().await;
        holds(status == 503 && text.contains("old"), text)
    })
    .await;
    assert_eq!(fresh.readiness().await.0, 200);
    // As the Service of the control plane does with one that is not ready.
    mesh.front.point_to(&[fresh.address()]);
    eventually("its streams are closed, and open elsewhere", async || {
        let streams = [&lagging, &fresh].map(|replica| replica.metric("connected_proxies", ""));
        let streams = futures_util::future::join_all(streams).await;
        holds(streams == [0.0, 3.0], streams)
    })
    .await;
    mesh.endpoint("cart", &one).await;
    eventually("a change is seen by way of the other", async || {
        holds(apps[1].count("lag") > 0, apps[1].count("lag"))
    })
    .await;

    relay.mend();
    lagging.ready().await;
    load.finish().await.assert_nothing_lost(&[&apps[0], &apps[1]]);
}
