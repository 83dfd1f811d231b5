//! How configuration reaches a proxy: on first use, at once, without disturbing what runs, and without the control plane for a while.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::harness::client::{Client, Protocol, call, request};
use crate::harness::eventually::{eventually, holds, within};
use crate::harness::mesh::{Mesh, SidecarOptions};
use crate::harness::{App, objects};
use crate::http::Pair;
use crate::splitting::Canary;

#[tokio::test]
async fn pushing_equal_or_reordered_endpoints_again_closes_no_connection_and_resets_no_load() {
    let canary = Canary::start(Mesh::start().await, [50, 50]).await;
    let load = canary.load(200);
    load.send_more(200).await;
    let connections = [canary.apps[0].connections(), canary.apps[1].connections()];
    let opened = canary.web.metric("gauze_dials_total", &["direction=\"outbound\"", "tls=\"mutual\""]).await;
    let root = "10.96.0.1:80".parse().expect("an address");
    for _ in 0..5 {
        canary.mesh.service("cart", root, "http", &[&canary.carts[1], &canary.carts[0]]);
        load.send_more(40).await;
        canary.mesh.service("cart", root, "http", &[&canary.carts[0], &canary.carts[1]]);
        load.send_more(40).await;
    }
    assert!(opened >= 2.0, "{opened} connections were counted");
    let again = [canary.apps[0].connections(), canary.apps[1].connections()];
    let opened_again =
        canary.web.metric("gauze_dials_total", &["direction=\"outbound\"", "tls=\"mutual\""]).await;
    let report = load.finish().await;
    report.assert_nothing_lost(&[&canary.apps[0], &canary.apps[1]]);
    assert_eq!(again, connections, "connections to the apps");
    assert_eq!(opened_again, opened, "connections between the sidecars");
}

#[tokio::test]
async fn of_ten_thousand_services_a_sidecar_holds_the_twenty_that_it_uses() {
    let mesh = Mesh::start().await;
    let app = App::start("cart").await;
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    let mut yaml = String::new();
    let mut addresses = Vec::new();
    for number in 0..10_000 {
        let address = mesh.service_address();
        addresses.push(address);
        yaml += &objects::service("shop", &format!("service-{number}"), address, "http");
        // Every five-hundredth leads to our pod, the others to pods of their own that nobody dials.
        let elsewhere = SocketAddr::from((Ipv4Addr::from(0x0a63_0000 + number), 8080));
        let pod = if number % 500 == 0 { ("cart-0", cart.address) } else { ("elsewhere", elsewhere) };
        yaml += &objects::slice("shop", &format!("service-{number}"), "http", &[pod]);
        yaml += "---\n";
    }
    let used: Vec<_> = addresses.iter().step_by(500).copied().collect();
    assert_eq!(used.len(), 20);
    let web = mesh.pod("web-0", "web", None, SidecarOptions { dials: &used, ..Default::default() }).await;
    web.ready().await;
    cart.ready().await;
    mesh.apply("many.yaml", &yaml);
    // Reading six megabytes of YAML takes its time, above all in a debug build.
    within(Duration::from_secs(180), "the last of the services is known", async || {
        let answer =
            call(Protocol::Http1, web.outbound[19], "x", "/", "probe").await.map_err(|e| e.to_string())?;
        holds(answer.app() == "cart", answer.text())
    })
    .await;
    for dialled in &web.outbound {
        let answer = call(Protocol::Http1, *dialled, "x", "/", "used").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let held: Value = serde_json::from_str(&web.admin("/config_dump").await).expect("JSON");
    let clusters = held["clusters"].as_object().map(|clusters| clusters.len());
    assert_eq!(clusters, Some(20), "{}", held["clusters"]);
    println!("resident memory of the sidecar: {} KiB", web.process.resident_memory() / 1024);
}

#[tokio::test]
async fn an_outage_of_the_control_plane_of_sixty_seconds_loses_nothing_and_a_change_made_meanwhile_is_live_in_two()
 {
    let mut canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let load = canary.load(200);
    load.send_more(400).await;
    canary.mesh.kill_control_plane();
    let down = load.elapsed();
    canary.split([0, 100]);
    while load.elapsed() < down + Duration::from_secs(60) {
        load.send_more(50).await;
    }
    assert_eq!(canary.apps[1].count("load"), 0, "nobody could have known yet");
    canary.mesh.start_control_plane().await;
    within(Duration::from_secs(2), "the change made meanwhile is live", async || {
        let seen = canary.apps[1].count("load");
        holds(seen > 0, seen)
    })
    .await;
    load.send_more(200).await;
    let report = load.finish().await;
    report.assert_nothing_lost(&[&canary.apps[0], &canary.apps[1]]);
}

#[tokio::test]
async fn a_bad_object_says_what_and_where_and_everything_else_keeps_updating() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let bad = "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: broken, namespace: shop}\n\
               spec:\n  service: cart-v1\n  backends:\n  - {service: cart-v1, weight: 1}\n  - {service: nowhere, weight: 1}\n";
    canary.mesh.apply("broken.yaml", bad);
    let said = eventually("the bad object says so", async || {
        let objects = canary.mesh.ask("/objects").await;
        let text = find(&objects, "TrafficSplit", "broken").map(ToString::to_string).unwrap_or_default();
        if text.contains("spec.backends[1]") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(said.contains("nowhere"), "{said}");
    canary.split([0, 100]);
    eventually("another split still moves", async || {
        let answer = call(Protocol::Http1, canary.web.outbound[0], "cart", "/", "m")
            .await
            .map_err(|e| e.to_string())?;
        holds(answer.app() == "v2", answer.app().to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_what_it_said_before() {
    let canary = Canary::start(Mesh::start().await, [0, 100]).await;
    canary.mesh.apply("split.yaml", "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\n  spec: [");
    eventually("the control plane reports the file", async || {
        let said = canary.mesh.ask("/objects").await.to_string();
        holds(said.contains("split.yaml"), said.chars().take(400).collect::<String>())
    })
    .await;
    for _ in 0..20 {
        let answer =
            call(Protocol::Http1, canary.web.outbound[0], "cart", "/", "kept").await.expect("an answer");
        assert_eq!(answer.app(), "v2");
    }
}

#[tokio::test]
async fn a_split_says_whether_it_is_live_in_every_proxy() {
    let canary = Canary::start(Mesh::start().await, [50, 50]).await;
    call(Protocol::Http1, canary.web.outbound[0], "cart", "/", "use").await.expect("an answer");
    eventually("the split is programmed", async || {
        let objects = canary.mesh.ask("/objects").await;
        let text = find(&objects, "TrafficSplit", "cart").map(ToString::to_string).unwrap_or_default();
        holds(text.contains("Programmed") && text.contains("1/1"), text)
    })
    .await;
}

#[tokio::test]
async fn an_open_connection_follows_a_change_with_its_next_request() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let mut client = Client::connect(Protocol::Http1, canary.web.outbound[0]).await.expect("a connection");
    let asked = || request(Protocol::Http1, "cart", "/", "open");
    assert_eq!(client.send(asked()).await.expect("an answer").app(), "v1");
    canary.split([0, 100]);
    eventually("the same connection reaches v2", async || {
        let answer = client.send(asked()).await.map_err(|error| error.to_string())?;
        holds(answer.app() == "v2", answer.app().to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_that_hangs_holds_up_nothing_that_is_in_use() {
    let mut canary = Canary::start(Mesh::start().await, [50, 50]).await;
    call(Protocol::Http1, canary.web.outbound[0], "cart", "/", "use").await.expect("an answer");
    canary.mesh.control_plane().freeze();
    let load = canary.load(200);
    load.send_more(500).await;
    let report = load.finish().await;
    report.assert_nothing_lost(&[&canary.apps[0], &canary.apps[1]]);
}

#[tokio::test]
async fn both_programs_end_cleanly_on_sigterm_and_finish_what_is_in_flight() {
    let mut pair = Pair::start("http").await;
    let dial = pair.dial();
    let slow = tokio::spawn(async move { call(Protocol::Http1, dial, "cart", "/slow/700", "slow").await });
    eventually("the slow request is under way", async || holds(pair.app.connections() > 0, "not yet")).await;
    assert!(pair.web.process.terminate().await.success());
    let answer = slow.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(pair.mesh.control_plane().terminate().await.success());
}

/// The object of this kind and name in an answer of `/objects`, wherever it stands.
pub(crate) fn find<'v>(value: &'v Value, kind: &str, name: &str) -> Option<&'v Value> {
    let is_it = value["kind"] == kind && (value["name"] == name || value["metadata"]["name"] == name);
    if is_it {
        return Some(value);
    }
    match value {
        Value::Array(items) => items.iter().find_map(|item| find(item, kind, name)),
        Value::Object(fields) => fields.values().find_map(|item| find(item, kind, name)),
        _ => None,
    }
}
