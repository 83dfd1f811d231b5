//! `websockets`, on both sides: after the upgrade a connection is no longer HTTP, and must live as long as both sides want.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{Between, access_line, ask, python, script, serve};
use crate::harness::client::{Protocol, call};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::NAMESPACE;
use crate::harness::process::Process;

#[tokio::test]
async fn websockets_carry_messages_pings_and_closes_both_ways_at_once() {
    let Some(python) = python() else { return };
    let server = serve(python, "websocket_server.py", &[]).await;
    let app = server.address("app");
    for port_name in ["http", "any"] {
        let between = Between::start(app, port_name, 80).await;
        for (way, address) in between.ways() {
            let told = ask(python, "websocket_client.py", &[&address.to_string(), &app.to_string()]).await;
            let wanted = json!({
                "messages": [101, "shop.v1", [true, true, true, true, true, true], "in several frames"],
                "pings": "ponged",
                "both_ways_at_once": [true, true],
                "client_closes": [4001, "bye"],
                "client_vanishes": [1006, ""],
                "server_closes": [4002, "enough"],
                "refused": [401, "private", "go away\n"],
            });
            assert_eq!(told, wanted, "{way}, port `{port_name}`");
        }
    }
}

#[tokio::test]
async fn a_websocket_outlives_a_policy_that_lets_it_in_and_is_told_of_once_at_its_end() {
    let Some(python) = python() else { return };
    let server = serve(python, "websocket_server.py", &[]).await;
    let app = server.address("app");
    let between = Between::start(app, "http", 80).await;
    let go = between.mesh.directory().join(".go");
    for (way, address) in between.ways() {
        let mut command = Command::new(python);
        command.arg("-u").arg(script("websocket_client.py")).args([address.to_string(), app.to_string()]);
        command.arg(&go);
        let client = Process::spawn("websocket_client.py", command).await;
        between.mesh.apply("policy.yaml", &allow_only("/echo"));
        eventually("the policy holds", async || {
            let answer = call(Protocol::Http1, address, "store", "/other", "").await;
            holds(answer.as_ref().is_ok_and(|answer| answer.status == 403), format!("{:?}", answer.ok()))
        })
        .await;
        fs::write(&go, "").expect("the folder is ours");
        let heard =
            eventually("the client goes on", async || client.new_lines().pop().ok_or("nothing yet")).await;
        assert_eq!(heard, "after", "{way}");
        fs::remove_file(&go).expect("it was made");
        between.mesh.remove("policy.yaml");
        eventually("the policy is gone", async || {
            let answer = call(Protocol::Http1, address, "store", "/other", "").await;
            holds(answer.as_ref().is_ok_and(|answer| answer.status != 403), format!("{:?}", answer.ok()))
        })
        .await;
    }
    let is_it = |line: &Value| line["path"] == "/echo";
    let line = access_line(&between.web, "the connection", is_it).await;
    let told = ["protocol", "method", "status", "error", "tls"].map(|key| line[key].clone());
    assert_eq!(json!(told), json!(["http/1.1", "GET", 101, null, "mutual"]));
    between.web.counts("gauze_requests_total", &["code=\"101\"", "error=\"\""], 1.0).await;
}

fn allow_only(path: &str) -> String {
    format!(
        "apiVersion: gauze.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: allow, namespace: {NAMESPACE}}}\n\
         spec:\n  rules:\n  - to:\n    - paths: [{path}]\n"
    )
}
