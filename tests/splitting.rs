//! Traffic moves by weight, at once, and nothing is lost while it does.

use std::time::Duration;

use crate::harness::client::{Protocol, call};
use crate::harness::eventually::{eventually, holds};
use crate::harness::load::Load;
use crate::harness::mesh::{Mesh, NAMESPACE, Sidecar, SidecarOptions};
use crate::harness::{App, objects};

/// `web` calls `cart`, whose traffic is split over `cart-v1` and `cart-v2`.
pub(crate) struct Canary {
    pub mesh: Mesh,
    pub apps: [App; 2],
    pub web: Sidecar,
    pub carts: [Sidecar; 2],
}

impl Canary {
    pub(crate) async fn start(mesh: Mesh, weights: [u32; 2]) -> Canary {
        let apps = [App::start("v1").await, App::start("v2").await];
        let v1 = SidecarOptions { version: "v1", ..Default::default() };
        let v2 = SidecarOptions { version: "v2", ..Default::default() };
        let carts = [
            mesh.pod("cart-v1-0", "cart", Some(&apps[0]), v1).await,
            mesh.pod("cart-v2-0", "cart", Some(&apps[1]), v2).await,
        ];
        let [root, v1, v2] = [mesh.service_address(), mesh.service_address(), mesh.service_address()];
        mesh.service("cart", root, "http", &[&carts[0], &carts[1]]);
        mesh.service("cart-v1", v1, "http", &[&carts[0]]);
        mesh.service("cart-v2", v2, "http", &[&carts[1]]);
        // Before `web`: once the control plane has a token for it, it has read the split too.
        mesh.apply("split.yaml", &split(weights));
        let web =
            mesh.pod("web-0", "web", None, SidecarOptions { dials: &[root], ..Default::default() }).await;
        let canary = Canary { mesh, apps, web, carts };
        for sidecar in [&canary.web, &canary.carts[0], &canary.carts[1]] {
            sidecar.ready().await;
        }
        canary
    }

    pub(crate) fn split(&self, weights: [u32; 2]) {
        self.mesh.apply("split.yaml", &split(weights));
    }

    pub(crate) fn load(&self, rate: u32) -> Load {
        Load::start("load", self.web.outbound[0], "cart", rate)
    }
}

fn split([v1, v2]: [u32; 2]) -> String {
    objects::split(NAMESPACE, "cart", "cart", &[("cart-v1", v1), ("cart-v2", v2)])
}

#[tokio::test]
async fn a_split_moves_within_a_second_of_the_edit_and_loses_nothing() {
    let canary = Canary::start(Mesh::start().await, [90, 10]).await;
    let load = canary.load(600);
    load.send_more(3000).await;
    let edited = load.elapsed();
    canary.split([50, 50]);
    let settled = edited + Duration::from_secs(1);
    while load.elapsed() < settled {
        load.send_more(10).await;
    }
    load.send_more(2500).await;
    let report = load.finish().await;
    report.assert_nothing_lost(&[&canary.apps[0], &canary.apps[1]]);
    let (after, of) = report.share("v2", settled);
    assert!(of >= 2000, "{of} requests");
    assert!((46.0..=54.0).contains(&after), "{after} % of {of} at v2 after the edit");
}

#[tokio::test]
async fn a_split_that_is_deleted_gives_the_root_its_own_endpoints_back() {
    let canary = Canary::start(Mesh::start().await, [0, 100]).await;
    canary.mesh.remove("split.yaml");
    eventually("v1 is reached again", async || {
        let answer = call(Protocol::Http1, canary.web.outbound[0], "cart", "/", "d").await;
        let answer = answer.map_err(|error| error.to_string())?;
        holds(answer.app() == "v1", answer.app().to_owned())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_gets_hardly_any_of_the_traffic() {
    let canary = Canary::start(Mesh::start().await, [0, 0]).await;
    // The app of v1 is gone, its sidecar is not: it answers fast, and must not look fast.
    let Canary { mesh, apps: [v1, v2], web, carts } = canary;
    drop(v1);
    mesh.remove("split.yaml");
    let mut failed = 0;
    for number in 0..200 {
        let answer = call(Protocol::Http1, web.outbound[0], "cart", "/", &format!("r{number}")).await;
        failed += u32::from(answer.expect("an answer").status != 200);
    }
    println!("{failed} of 200 met the endpoint that refuses");
    assert!(failed <= 20, "{failed} of 200 failed");
    assert_eq!(v2.count("r"), 200 - failed as usize);
    drop(carts);
}
