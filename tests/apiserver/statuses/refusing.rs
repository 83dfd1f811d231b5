use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use super::super::source::answers;
use super::{object, says, shop, tells};
use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::enrolment::TlsPort;
use crate::harness::kube_mesh::KubeMesh;
use crate::harness::mesh::free_address;
use crate::harness::objects;
use crate::harness::refuser::{Complaint, Refuser};

#[tokio::test]
async fn what_a_proxy_refuses_is_told_with_its_pod_and_the_field_and_that_it_is_mended() {
    let Some(server) = ApiServer::start().await else { return };
    let mesh = KubeMesh::start(&server).await.writing_statuses();
    let replica = mesh.control_plane().await;
    let app = App::start("cart").await;
    let [_cart, web] = shop(&mesh, &app).await;
    server.apply(&objects::split(mesh.shop(), "cart", "cart", &[("cart-v1", 90), ("cart-v2", 10)])).await;
    answers(&web, "cart").await;
    let good = "Accepted True Accepted: accepted; ResolvedRefs True ResolvedRefs: all references resolve; Programmed ";
    says(&mesh, "trafficsplit", "cart", "", &format!("{good}True Programmed: 1/1")).await;

    let pod = mesh.bare_pod(mesh.shop(), "web-9", "web", free_address(), true).await;
    let uid = pod.metadata.uid.expect("the API server gives one");
    let token = mesh.token("web-9", &uid, "web", "gauze").await;
    let split = object(&mesh, "trafficsplit", "cart").await;
    let split_uid = split["metadata"]["uid"].as_str().expect("it has one");
    let origin = ["TrafficSplit", mesh.shop(), "cart", split_uid, "1", "spec.backends[1]"];
    let complaint = Complaint { origin, problem: "is too much for me" };
    let (name, pod) = (format!("routes/{}/cart/80", mesh.shop()), format!("{}/web-9", mesh.shop()));
    let port = TlsPort { address: replica.address(), roots: roots(&mesh).await };
    let refuser = Refuser::start(&port, &pod, &token, &name, &complaint).await;
    let said = format!("1/2; {pod} refused it: spec.backends[1]: is too much for me");
    says(&mesh, "trafficsplit", "cart", "", &format!("{good}False PartiallyProgrammed: {said}")).await;
    tells(&mesh, &format!("TrafficSplit/cart Warning PartiallyProgrammed {said}")).await;

    drop(refuser);
    mesh.delete_pod("web-9").await;
    says(&mesh, "trafficsplit", "cart", "", &format!("{good}True Programmed: 1/1")).await;
    tells(&mesh, "TrafficSplit/cart Normal Programmed 1/1").await;
}

async fn roots(mesh: &KubeMesh<'_>) -> String {
    let secrets: Api<Secret> = Api::namespaced(mesh.client.clone(), &mesh.system.name);
    let data = secrets.get("gauze-root").await.expect("it is there").data.expect("it is whole");
    String::from_utf8(data["tls.crt"].0.clone()).expect("PEM is text")
}
