use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

use super::{answers, split_and_callers};
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

/// From the last answer of a replica to saying that nothing is known: 10 s, and what a busy machine adds.
const UNHEARD: Duration = Duration::from_secs(30);
/// Until a sidecar notices that its replica hangs: the pings of its stream.
const ELSEWHERE: Duration = Duration::from_secs(90);

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

/// Status and message of the condition `Programmed` of the split in this namespace, as this replica says it.
async fn programmed(replica: &Replica, namespace: &str) -> String {
    let answer = replica.ask("/objects").await;
    let mut objects = answer["objects"].as_array().into_iter().flatten();
    let split = objects.find(|object| object["kind"] == "TrafficSplit" && object["namespace"] == namespace);
    let conditions = split.map(|split| &split["parents"][0]["conditions"]).and_then(|all| all.as_array());
    let condition = conditions.into_iter().flatten().find(|condition| condition["type"] == "Programmed");
    let text = |field| condition.and_then(|condition| condition[field].as_str()).unwrap_or_default();
    format!("{} {}", text("status"), text("message"))
}

#[tokio::test]
async fn whether_a_rule_is_live_is_counted_over_all_replicas_whichever_is_asked() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let kubeconfig = server.kubeconfig();
    let [zero, one] =
        [mesh.replica("gauze-0", &kubeconfig, &[]).await, mesh.replica("gauze-1", &kubeconfig, &[]).await];
    zero.ready().await;
    one.ready().await;
    let app = App::start("cart").await;
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    let _callers = split_and_callers(&mesh, server, &cart, [&zero, &one]).await;
    for replica in [&zero, &one] {
        eventually(&format!("{} knows of both callers", replica.pod), async || {
            let said = programmed(replica, mesh.shop()).await;
            holds(said == "True 2/2", said)
        })
        .await;
    }

    let (leading, other) = match leader(&[&zero, &one], SUCCESSION).await {
        0 => (&zero, &one),
        _ => (&one, &zero),
    };
    other.process.freeze();
    within(UNHEARD, "one replica hangs, so nobody knows", async || {
        let said = programmed(leading, mesh.shop()).await;
        let expected = format!("without the proxies of {}, which cannot be asked", other.pod);
        holds(said.starts_with("Unknown ") && said.ends_with(&expected), said)
    })
    .await;
    // The metric is told with the next round of questions.
    eventually("the metric tells of it", async || {
        let unheard = leading.metric("replicas_unheard", "").await;
        holds(unheard == 1.0, unheard)
    })
    .await;

    // Its pod is gone, and its sidecar finds the other one.
    mesh.front.point_to(&[leading.address()]);
    let pods: Api<Pod> = Api::namespaced(mesh.client.clone(), &mesh.system.name);
    pods.delete(&other.pod, &DeleteParams::default().grace_period(0)).await.expect("it is there");
    within(ELSEWHERE, "all callers are counted again", async || {
        let said = programmed(leading, mesh.shop()).await;
        holds(said == "True 2/2", said)
    })
    .await;
}
