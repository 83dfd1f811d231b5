//! Traffic moves by weight, at once, and nothing is lost while it does.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::client::{Client, Protocol, call, request, with_header};
use crate::harness::eventually::{eventually, holds};
use crate::harness::load::Load;
use crate::harness::mesh::{Mesh, NAMESPACE, Sidecar, SidecarOptions};
use crate::harness::{App, objects};

/// `web` calls `cart`, whose traffic is split over `cart-v1` and `cart-v2`.
pub(crate) struct Canary {
    pub mesh: Mesh,
    /// Where `cart` is dialled.
    pub root: SocketAddr,
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
        let canary = Canary { mesh, apps, web, carts, root };
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
async fn whatever_becomes_of_a_split_no_request_is_lost() {
    let canary = Canary::start(Mesh::start().await, [50, 50]).await;
    canary.mesh.service("empty", canary.mesh.service_address(), "http", &[]);
    let of = |name: &str, backends: &[(&str, u32)]| objects::split(NAMESPACE, name, "cart", backends);
    let load = canary.load(300);
    load.send_more(300).await;
    for (what, split) in [
        ("all weights are 0", split([0, 0])),
        ("a backend does not exist", of("cart", &[("cart-v1", 1), ("gone", 9)])),
        ("a backend has no endpoint", of("cart", &[("empty", 9), ("cart-v2", 1)])),
        ("nobody can take a share", of("cart", &[("empty", 1), ("gone", 1)])),
        ("the root is its own backend", of("cart", &[("cart", 1), ("cart-v2", 1)])),
        ("a backend is named twice", of("cart", &[("cart-v1", 1), ("cart-v1", 1)])),
        (
            "two splits of one root",
            of("cart", &[("cart-v1", 1)]) + "---\n" + &of("another", &[("cart-v2", 1)]),
        ),
        (
            "a group of requests that is not there",
            split([1, 1]) + "  matches: [{kind: HTTPRouteGroup, name: gone}]\n",
        ),
    ] {
        println!("{what}");
        canary.mesh.apply("split.yaml", &split);
        load.send_more(200).await;
    }
    canary.mesh.remove("split.yaml");
    load.send_more(200).await;
    load.finish().await.assert_nothing_lost(&[&canary.apps[0], &canary.apps[1]]);
}

/// Who answers a request for this path, with this value of `x-beta`.
async fn answerer(canary: &Canary, path: &str, beta: &'static str) -> Result<String, String> {
    let asked = with_header(request(Protocol::Http1, "cart", path, "m"), "x-beta", beta);
    let mut client =
        Client::connect(Protocol::Http1, canary.web.outbound[0]).await.map_err(|e| e.to_string())?;
    client.send(asked).await.map(|answer| answer.app().to_owned()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn with_matches_only_requests_of_the_groups_are_split_and_the_groups_may_come_and_go() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    // The root has v1 alone, so that who answers says which way was taken.
    canary.mesh.service("cart", canary.root, "http", &[&canary.carts[0]]);
    canary.mesh.apply(
        "split.yaml",
        &(split([0, 1])
            + "  matches: [{kind: HTTPRouteGroup, name: paths}, {kind: HTTPRouteGroup, name: beta}]\n"),
    );
    canary.mesh.apply(
        "beta.yaml",
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {name: beta, namespace: shop}\n\
         spec: {matches: [{name: beta, methods: [GET], headers: {x-beta: 'yes|1'}}]}\n",
    );
    let goes = async |path: &str, beta: &'static str, app: &str| {
        eventually(&format!("{path} with x-beta {beta} goes to {app}"), async || {
            let answered = answerer(&canary, path, beta).await?;
            holds(answered == app, answered)
        })
        .await;
    };
    goes("/", "yes", "v2").await;
    for (path, beta, app) in
        [("/", "no", "v1"), ("/", "yes!", "v1"), ("/next/item", "no", "v1"), ("/", "1", "v2")]
    {
        assert_eq!(answerer(&canary, path, beta).await.as_deref(), Ok(app), "{path} {beta}");
    }
    let paths = "apiVersion: specs.smi-spec.io/v1alpha1\nkind: HTTPRouteGroup\nmetadata: {name: paths, namespace: shop}\n\
                 matches: [{name: next, pathRegex: /next, methods: ['*']}]\n";
    canary.mesh.apply("paths.yaml", paths);
    goes("/next/item", "no", "v2").await;
    for (path, beta, app) in [("/nextdoor", "no", "v2"), ("/was/next", "no", "v1"), ("/", "1", "v2")] {
        assert_eq!(answerer(&canary, path, beta).await.as_deref(), Ok(app), "{path} {beta}");
    }
    canary.mesh.remove("beta.yaml");
    goes("/", "yes", "v1").await;
    assert_eq!(answerer(&canary, "/next", "yes").await.as_deref(), Ok("v2"));
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_gets_hardly_any_of_the_traffic() {
    let canary = Canary::start(Mesh::start().await, [0, 0]).await;
    // The app of v1 is gone, its sidecar is not: it answers fast, and must not look fast.
    let Canary { mesh, apps: [v1, v2], web, carts, .. } = canary;
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
