//! For whom a route is: all callers or those of a namespace, all ports of a Service or one, and only those who dial the
//! Service.

use std::net::SocketAddr;

use super::ROUTE;
use crate::harness::client::{Answer, Protocol, call};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::{Mesh, NAMESPACE, Sidecar, SidecarOptions};
use crate::harness::objects;
use crate::splitting::Canary;

const V2: &str = "  - backendRefs: [{name: cart-v2, port: 80, namespace: shop}]\n";

async fn ask(address: SocketAddr) -> Result<Answer, String> {
    call(Protocol::Http1, address, "cart", "/", "a").await.map_err(|error| error.to_string())
}

/// Waits until the answers at this address come from this app.
async fn leads_to(what: &str, address: SocketAddr, app: &str) {
    eventually(what, async || {
        let answer = ask(address).await?;
        holds(answer.app() == app, format!("{} {}", answer.status, answer.app()))
    })
    .await;
}

/// The apps that twenty requests met, each named once.
async fn apps_met(address: SocketAddr) -> Vec<String> {
    let mut met = Vec::new();
    for _ in 0..20 {
        met.push(ask(address).await.expect("an answer").app().to_owned());
    }
    met.sort();
    met.dedup();
    met
}

/// A caller in another namespace.
async fn caller_in(mesh: &Mesh, namespace: &str, dials: &[SocketAddr]) -> Sidecar {
    let options = SidecarOptions { namespace, dials, ..Default::default() };
    let caller = mesh.pod(&format!("{namespace}-caller"), "caller", None, options).await;
    caller.ready().await;
    caller
}

#[tokio::test]
async fn a_consumers_route_is_for_its_own_namespace_and_takes_the_place_of_the_producers() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let root = canary.root;
    let [near, far] =
        [caller_in(&canary.mesh, "near", &[root]).await, caller_in(&canary.mesh, "far", &[root]).await];
    for (whose, caller) in [("the owner's", &canary.web), ("a neighbour's", &near), ("another's", &far)] {
        leads_to(&format!("the split, for {whose} pod"), caller.outbound[0], "v1").await;
    }
    // Only for some paths: what it does not match is not carried, since the producer's rules are not asked.
    let consumer = ROUTE
        .replacen("namespace: shop", "namespace: near", 1)
        .replace("name: cart}", "name: cart, namespace: shop}")
        + "  - matches: [{path: {type: Exact, value: /}}]\n    backendRefs: [{name: cart-v2, port: 80, namespace: shop}]\n";
    canary.mesh.apply("consumer.yaml", &consumer);
    leads_to("the consumer's route", near.outbound[0], "v2").await;
    let other = call(Protocol::Http1, near.outbound[0], "cart", "/other", "a").await.expect("an answer");
    assert_eq!(other.status, 404, "what the consumer's route does not match");
    for caller in [&canary.web, &far] {
        assert_eq!(apps_met(caller.outbound[0]).await, ["v1"], "a consumer's route is for nobody else");
    }
    canary.mesh.apply("producer.yaml", &(ROUTE.to_owned() + V2));
    leads_to("the producer's route, for its own namespace", canary.web.outbound[0], "v2").await;
    leads_to("and for others", far.outbound[0], "v2").await;
    canary.mesh.apply("consumer.yaml", &consumer.replace("cart-v2", "cart-v1"));
    leads_to("the consumer's still comes first", near.outbound[0], "v1").await;
    canary.mesh.remove("consumer.yaml");
    leads_to("without it the producer's is for everybody", near.outbound[0], "v2").await;
}

#[tokio::test]
async fn a_route_with_a_port_is_for_that_port_alone() {
    let mesh = Mesh::start().await;
    let canary = Canary::start(mesh, [100, 0]).await;
    let at = |port| SocketAddr::new(canary.root.ip(), port);
    let carts = canary.carts.each_ref().map(|cart| (cart.pod.as_str(), cart.address));
    let second = "{name: admin, port: 81, targetPort: 81}, {name: http,";
    let service = objects::service(NAMESPACE, "cart", canary.root, "http").replace("{name: http,", second);
    let admin = objects::slice(NAMESPACE, "cart", "admin", &carts[..1])
        .replace("\n  name: cart-", "\n  name: cart-admin-");
    canary
        .mesh
        .apply("service-cart.yaml", &(service + &objects::slice(NAMESPACE, "cart", "http", &carts) + &admin));
    let caller = caller_in(&canary.mesh, "near", &[at(80), at(81)]).await;
    let [http, admin] = [caller.outbound[0], caller.outbound[1]];
    leads_to("the second port", admin, "v1").await;
    for (what, narrowed, led) in [
        ("by number", "name: cart, port: 81}", ["v1", "v2"]),
        ("by name", "name: cart, sectionName: http}", ["v2", "v1"]),
        ("every port", "name: cart}", ["v2", "v2"]),
        ("by both, which agree", "name: cart, port: 81, sectionName: admin}", ["v1", "v2"]),
        ("by both, which do not: no port", "name: cart, port: 80, sectionName: admin}", ["v1", "v1"]),
    ] {
        canary.mesh.apply("route.yaml", &(ROUTE.replace("name: cart}", narrowed) + V2));
        leads_to(&format!("{what}: http"), http, led[0]).await;
        leads_to(&format!("{what}: admin"), admin, led[1]).await;
    }
}

#[tokio::test]
async fn who_dials_pods_gets_no_route_and_no_split_and_the_same_caller_at_the_service_does() {
    let canary = Canary::start(Mesh::start().await, [0, 100]).await;
    // As an ingress controller that takes endpoints from EndpointSlices dials them, and as it does when it is told to
    // dial the Service (ingress-nginx `service-upstream`, Traefik `nativeLB`).
    let pods = canary.carts.each_ref().map(|cart| cart.address);
    let ingress = caller_in(&canary.mesh, "ingress", &[canary.root, pods[0], pods[1]]).await;
    let [service, first, second] = [ingress.outbound[0], ingress.outbound[1], ingress.outbound[2]];
    leads_to("the split, at the Service", service, "v2").await;
    leads_to("the first pod", first, "v1").await;
    for (what, apply) in [("a split", false), ("a route", true)] {
        if apply {
            canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + V2));
            eventually("the route has taken the place of the split", async || {
                let said = canary.mesh.ask("/objects").await.to_string();
                holds(said.contains("Overridden"), said)
            })
            .await;
        }
        assert_eq!(apps_met(service).await, ["v2"], "{what} is for who dials the Service");
        assert_eq!(apps_met(first).await, ["v1"], "{what} is not for who dials a pod");
        assert_eq!(apps_met(second).await, ["v2"], "{what} is not for who dials a pod");
    }
}
