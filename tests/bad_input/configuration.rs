//! Objects that cannot be what they say. Each is told with its code and field, costs only itself, and leaves what
//! served before and what stands beside it as they were.

use serde_json::Value;

use super::stage::{Port, Stage, answers, say};
use crate::harness::eventually::{eventually, holds};
use crate::harness::objects;

struct Row {
    what: &'static str,
    /// One object of this name, or more.
    yaml: String,
    code: &'static str,
    /// The field that is named.
    field: &'static str,
    /// What a request for `/bad` gets that it would carry; `None`: what it got before.
    answer: Option<u16>,
}

const ROUTE: &str =
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bad, namespace: shop}\n";
const PARENT: &str = "parentRefs: [{group: '', kind: Service, name: cart, port: 80}]";

/// A route of `cart` with this rule, and one behind it for all else.
fn route(rule: &str) -> String {
    format!("{ROUTE}spec: {{{PARENT}, rules: [{rule}, {{backendRefs: [{{name: cart, port: 80}}]}}]}}\n")
}

fn split(spec: &str) -> String {
    format!(
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {{name: bad, namespace: shop}}\nspec: {spec}\n"
    )
}

const HERE: &str = "matches: [{path: {type: PathPrefix, value: /bad}}]";

fn rows() -> Vec<Row> {
    let row = |what, yaml, code, field, answer| Row { what, yaml, code, field, answer };
    let rule = |rest: &str| route(&format!("{{{HERE}, {rest}}}"));
    let pattern = |text: &str| {
        let matches = format!("matches: [{{path: {{type: RegularExpression, value: '{text}'}}}}]");
        route(&format!("{{{matches}, backendRefs: [{{name: cart, port: 80}}]}}"))
    };
    let twice = route("{backendRefs: [{name: cart, port: 80}]}");
    vec![
        row(
            "a field that nobody knows",
            rule("backendRefs: [{name: cart, port: 80, wieght: 5}]"),
            "M1002",
            "spec.rules[0].backendRefs[0]",
            None,
        ),
        row(
            "a list where a word is meant",
            rule("backendRefs: [{name: [cart], port: 80}]"),
            "M1003",
            "spec.rules[0].backendRefs[0].name",
            None,
        ),
        row(
            "a word where a number is meant",
            rule("backendRefs: [{name: cart, port: http}]"),
            "M1003",
            "spec.rules[0].backendRefs[0].port",
            None,
        ),
        row(
            "a number that is too large",
            rule("backendRefs: [{name: cart, port: 99999999999}]"),
            "M1006",
            "spec.rules[0].backendRefs[0].port",
            None,
        ),
        row(
            "a kind that there is not",
            "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolcy\nmetadata: {name: bad, namespace: shop}\n"
                .to_owned(),
            "M1004",
            "",
            None,
        ),
        row("YAML that is none", "kind: [".to_owned(), "M1001", "", None),
        row("YAML of aliases that name one another", bomb(), "M1001", "", None),
        row(
            "weights of 0",
            rule("backendRefs: [{name: cart, port: 80, weight: 0}]"),
            "M5105",
            "spec.rules[0].backendRefs",
            Some(500),
        ),
        row(
            "a backend that does not exist",
            rule("backendRefs: [{name: nowhere, port: 80}]"),
            "M5101",
            "spec.rules[0].backendRefs[0]",
            Some(500),
        ),
        row(
            "a port that the backend has not",
            rule("backendRefs: [{name: cart, port: 81}]"),
            "M5102",
            "spec.rules[0].backendRefs[0]",
            Some(500),
        ),
        row(
            "a split of weights of 0",
            split("{service: cart, backends: [{service: cart, weight: 0}]}"),
            "M5105",
            "spec.backends",
            None,
        ),
        row(
            "a split of what does not exist",
            split("{service: nowhere, backends: [{service: cart, weight: 1}]}"),
            "M5001",
            "spec.service",
            None,
        ),
        row(
            "a pattern that would be large",
            pattern("/(a{1000}){1000}"),
            "M5204",
            "spec.rules[0].matches[0].path",
            None,
        ),
        row(
            "a pattern that looks ahead",
            pattern("/(?=bad)"),
            "M5204",
            "spec.rules[0].matches[0].path",
            None,
        ),
        row(
            "a pattern that refers back",
            pattern("/(b)ad\\1"),
            "M5204",
            "spec.rules[0].matches[0].path",
            None,
        ),
        row("half a pattern", pattern("/(bad"), "M5204", "spec.rules[0].matches[0].path", None),
        row("two objects of one name", format!("{twice}---\n{twice}"), "M1007", "", None),
    ]
}

/// Nine lists, each of nine times the one before.
fn bomb() -> String {
    let mut yaml = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for at in 1..9 {
        let before = format!("*a{}, ", at - 1).repeat(9);
        yaml += &format!("a{at}: &a{at} [{}]\n", before.trim_end_matches(", "));
    }
    yaml
}

#[tokio::test]
async fn an_object_that_cannot_be_is_told_by_code_and_field_and_costs_only_itself() {
    let mut stage = Stage::start("http").await;
    let ask = b"GET /bad HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
    for (number, row) in rows().into_iter().enumerate() {
        let what = row.what;
        stage.mesh.apply("bad.yaml", &row.yaml);
        eventually(what, async || {
            let said = stage.mesh.ask("/objects").await.to_string();
            holds(
                said.contains(row.code) && said.contains(row.field),
                said.chars().take(2000).collect::<String>(),
            )
        })
        .await;
        let wanted = row.answer.unwrap_or(200);
        eventually(&format!("{what}: what it carries"), async || {
            let answers = answers(&say(stage.address(Port::Outbound), ask).await);
            holds(answers.len() == 1 && answers[0].0 == wanted, answers)
        })
        .await;
        // Whatever stands beside it goes on changing.
        let beside = format!("beside-{number}");
        let address = stage.mesh.service_address();
        stage.mesh.apply("beside.yaml", &objects::service("shop", &beside, address, "http"));
        eventually(&format!("{what}: what stands beside it changes"), async || {
            let world = stage.mesh.ask("/objects").await;
            holds(names(&world, &beside) || world_knows(&stage, &beside).await, beside.clone())
        })
        .await;
        stage.mesh.remove("bad.yaml");
        eventually(&format!("{what}: it is gone"), async || {
            let said = stage.mesh.ask("/objects").await.to_string();
            holds(!said.contains(row.code), said.chars().take(2000).collect::<String>())
        })
        .await;
    }
    let log = stage.mesh.control_plane().log();
    assert!(!log.contains("panicked"), "{log}");
    stage.check().await;
}

async fn world_knows(stage: &Stage, name: &str) -> bool {
    names(&stage.mesh.ask("/world").await, name)
}

fn names(value: &Value, name: &str) -> bool {
    value.to_string().contains(name)
}
