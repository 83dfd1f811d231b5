//! The API server as the source of all objects: read whole before anything is served, followed through outages,
//! bursts and nonsense.

use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::client::{self, Protocol};
use crate::harness::eventually::{eventually, holds};
use crate::harness::kube_mesh::KubeMesh;
use crate::harness::mesh::SidecarOptions;

#[tokio::test]
async fn pods_of_a_cluster_speak_mutual_tls_by_way_of_a_service() {
    let Some(server) = ApiServer::shared().await else { return };
    let mesh = KubeMesh::start(server).await;
    let _control_plane = mesh.control_plane().await;
    let app = App::start("cart").await;
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    let service = mesh.service("cart", &[&cart]).await;
    let options = SidecarOptions { dials: &[service], ..SidecarOptions::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    cart.ready().await;
    web.ready().await;
    eventually("an answer by way of the Service", async || {
        let answer = client::call(Protocol::Http1, web.outbound[0], "cart", "/echo", "id-1").await;
        let answer = answer.map_err(|error| error.to_string())?;
        holds(answer.app() == "cart", format!("{} {}", answer.status, answer.text()))
    })
    .await;
    let identity = format!("peer_identity=\"spiffe://cluster.local/ns/{}/sa/web\"", mesh.shop());
    cart.counts("gauze_requests_total", &["direction=\"inbound\"", "tls=\"mutual\"", &identity], 1.0).await;
}
