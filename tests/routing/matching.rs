//! Which rule carries a request: by path, method, headers, query and host, in order of precedence.

use http::Method;

use super::{ROUTE, is_live};
use crate::harness::client::{Client, Protocol, request};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::Mesh;
use crate::splitting::Canary;

/// A route named `name`, of that age, whose rules send where they say.
fn route(name: &str, created: &str, rules: &str) -> String {
    let named = format!("metadata: {{name: {name}, creationTimestamp: '{created}'");
    ROUTE.replacen("metadata: {name: cart", &named, 1) + rules
}

/// A rule with these matches; it says its own name in a header of the response.
fn rule(name: &str, matches: &str) -> String {
    let matches = if matches.is_empty() { String::new() } else { format!("matches: [{matches}]\n    ") };
    format!(
        "  - {matches}filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: \
         {{set: [{{name: x-rule, value: {name}}}]}}}}]\n    backendRefs: [{{name: cart-v1, port: 80}}]\n"
    )
}

/// One request, and the rule that should carry it; empty: none.
struct Case(&'static str, Method, &'static str, &'static [(&'static str, &'static str)], &'static str);

async fn carried_as_said(canary: &Canary, cases: &[Case]) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = Client::connect(protocol, canary.web.outbound[0]).await.expect("a connection");
        for Case(what, method, target, headers, rule) in cases {
            let host = headers.iter().find(|(name, _)| *name == "host").map_or("cart", |(_, host)| host);
            let mut asked = request(protocol, host, target, "m");
            asked.method_mut().clone_from(method);
            for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
                asked.headers_mut().append(*name, http::HeaderValue::from_static(value));
            }
            let answer = client.send(asked).await.expect("an answer");
            let carried = answer.headers.get("x-rule").map_or("", |rule| rule.to_str().expect("text"));
            let status = if rule.is_empty() { 404 } else { 200 };
            assert_eq!((answer.status.as_u16(), carried), (status, *rule), "{protocol:?}: {what}");
        }
    }
}

#[tokio::test]
async fn a_rule_matches_by_all_that_it_names_and_by_nothing_else() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let rules = [
        rule("exact", "{path: {type: Exact, value: /exact/one}}"),
        rule("prefix", "{path: {type: PathPrefix, value: /prefix/}}"),
        rule("pattern", "{path: {type: RegularExpression, value: '/(items|carts)/[0-9]+'}}"),
        rule("method", "{method: DELETE}"),
        rule(
            "header",
            "{headers: [{name: X-Color, value: Red}, {name: x-color, value: never}, {name: x-size, value: '1'}]}",
        ),
        rule(
            "header-pattern",
            "{headers: [{name: cookie, type: RegularExpression, value: '(.*; )?canary=[a-z]+(;.*)?'}]}",
        ),
        rule("query", "{queryParams: [{name: Color, value: red}]}"),
        rule("query-pattern", "{queryParams: [{name: n, type: RegularExpression, value: '[0-9]+'}]}"),
        rule("either", "{path: {value: /either}}, {headers: [{name: x-either, value: '1'}]}"),
        rule("host", "{headers: [{name: Host, value: cart.shop}]}"),
    ];
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + &rules.concat()));
    is_live(&canary, "/either", |answer| answer.headers.contains_key("x-rule")).await;
    let (get, delete) = (Method::GET, Method::DELETE);
    let red = &[("x-color", "Red"), ("x-size", "1")];
    carried_as_said(
        &canary,
        &[
            Case("an exact path", get.clone(), "/exact/one", &[], "exact"),
            Case("the query is no part of it", get.clone(), "/exact/one?x", &[], "exact"),
            Case("a longer path is another", get.clone(), "/exact/one/", &[], ""),
            Case("paths are case-sensitive", get.clone(), "/Exact/one", &[], ""),
            Case("a prefix", get.clone(), "/prefix/x", &[], "prefix"),
            Case("a prefix without its slash", get.clone(), "/prefix", &[], "prefix"),
            Case("elements are whole", get.clone(), "/prefixed", &[], ""),
            Case("a pattern", get.clone(), "/items/7", &[], "pattern"),
            Case("a pattern is for the whole path", get.clone(), "/items/7/more", &[], ""),
            Case("from its start", get.clone(), "/my/items/7", &[], ""),
            Case("a method", delete, "/", &[], "method"),
            Case("another method", get.clone(), "/", &[], ""),
            Case("headers, all of them, by names in any case", get.clone(), "/", red, "header"),
            Case("one of the headers is not enough", get.clone(), "/", &[("x-color", "Red")], ""),
            Case("values are case-sensitive", get.clone(), "/", &[("x-color", "red"), ("x-size", "1")], ""),
            Case(
                "a cookie by pattern",
                get.clone(),
                "/",
                &[("cookie", "a=b; canary=always; c=d")],
                "header-pattern",
            ),
            Case("not another cookie", get.clone(), "/", &[("cookie", "a=b; nocanary=1")], ""),
            Case("a query parameter", get.clone(), "/?a=b&Color=red", &[], "query"),
            Case("its name is case-sensitive", get.clone(), "/?color=red", &[], ""),
            Case("the first of a name counts", get.clone(), "/?Color=blue&Color=red", &[], ""),
            Case("a query parameter by pattern", get.clone(), "/?n=42", &[], "query-pattern"),
            Case("a pattern is for the whole value", get.clone(), "/?n=42x", &[], ""),
            Case("one of two matches", get.clone(), "/either/way", &[], "either"),
            Case("the other", get.clone(), "/", &[("x-either", "1")], "either"),
            Case(
                "the host, whatever the version of HTTP",
                get.clone(),
                "/",
                &[("host", "cart.shop")],
                "host",
            ),
            Case("another host", get, "/", &[("host", "cart.other")], ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn among_rules_that_match_the_more_specific_counts_then_the_older_route_then_the_first() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let (old, young) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let general = [
        rule("any", ""),
        rule("prefix", "{path: {value: /a}}"),
        rule("query", "{path: {value: /a}, queryParams: [{name: x, value: '1'}]}"),
        rule("header", "{path: {value: /a}, headers: [{name: x-a, value: '1'}]}"),
        rule(
            "two-headers",
            "{path: {value: /a}, headers: [{name: x-a, value: '1'}, {name: x-b, value: '1'}]}",
        ),
        rule("method", "{path: {value: /a}, method: PUT}"),
        rule("longer", "{path: {value: /a/b}}"),
        rule("exact", "{path: {type: Exact, value: /a/b/c}}"),
        rule("first", "{path: {value: /twice}}"),
        rule("second", "{path: {value: /twice}}"),
    ];
    canary
        .mesh
        .apply("b.yaml", &route("b", old, &(general.concat() + &rule("b-old", "{path: {value: /same}}"))));
    canary.mesh.apply(
        "a.yaml",
        &route("a", young, &rule("a-young", "{path: {value: /same}}, {path: {value: /name}}")),
    );
    canary.mesh.apply("c.yaml", &route("c", young, &rule("c-young", "{path: {value: /name}}")));
    for path in ["/same", "/name", "/a"] {
        is_live(&canary, path, |answer| answer.headers.contains_key("x-rule")).await;
    }
    let (get, put) = (Method::GET, Method::PUT);
    carried_as_said(
        &canary,
        &[
            Case("what nothing else is for", get.clone(), "/x", &[], "any"),
            Case("a prefix before any path", get.clone(), "/a/x", &[], "prefix"),
            Case("a query parameter before none", get.clone(), "/a?x=1", &[], "query"),
            Case("a header before query parameters", get.clone(), "/a?x=1", &[("x-a", "1")], "header"),
            Case(
                "two headers before one",
                get.clone(),
                "/a?x=1",
                &[("x-a", "1"), ("x-b", "1")],
                "two-headers",
            ),
            Case("a method before headers", put.clone(), "/a?x=1", &[("x-a", "1"), ("x-b", "1")], "method"),
            Case("a longer prefix before a method", put.clone(), "/a/b/x", &[], "longer"),
            Case("an exact path before a longer prefix", put, "/a/b/c", &[], "exact"),
            Case("the first of two that are equal", get.clone(), "/twice", &[], "first"),
            Case("the older route, though its name comes later", get.clone(), "/same", &[], "b-old"),
            Case("of the same age the first by name", get, "/name", &[], "a-young"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_grpc_route_decides_before_an_http_route_and_the_status_says_so() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + &rule("http", "")));
    is_live(&canary, "/", |answer| answer.headers.contains_key("x-rule")).await;
    let calls = ROUTE.replace("HTTPRoute", "GRPCRoute").replacen("{name: cart,", "{name: calls,", 1)
        + &rule("service", "{method: {service: shop.Cart}}")
        + &rule("method", "{method: {service: shop.Cart, method: Add}}")
        + &rule("pattern", "{method: {type: RegularExpression, service: 'shop[.].*', method: 'Get.*'}}")
        + &rule("header", "{headers: [{name: x-beta, value: '1'}]}");
    canary.mesh.apply("calls.yaml", &calls);
    let mut client = Client::connect(Protocol::Grpc, canary.web.outbound[0]).await.expect("a connection");
    for (what, path, beta, rule) in [
        ("service and method", "/shop.Cart/Add", false, "method"),
        ("the service's other methods", "/shop.Cart/GetAll", false, "service"),
        ("a pattern", "/shop.Bank/GetAll", false, "pattern"),
        ("a header, of lower rank", "/bank.Bank/Put", true, "header"),
        ("a service is a whole name", "/shop.Carts/Add", false, ""),
    ] {
        eventually(what, async || {
            let mut asked = request(Protocol::Grpc, "cart", path, "g");
            if beta {
                asked.headers_mut().insert("x-beta", http::HeaderValue::from_static("1"));
            }
            let answer = client.send(asked).await.map_err(|error| error.to_string())?;
            let carried = answer.headers.get("x-rule").map_or("", |rule| rule.to_str().expect("text"));
            let unmatched = answer.headers.get("grpc-status").is_some_and(|status| status == "12");
            holds(carried == rule && unmatched == rule.is_empty(), format!("{carried} {}", answer.code()))
        })
        .await;
    }
    let said = canary.mesh.ask("/objects").await.to_string();
    assert!(
        said.contains("Conflicted") && said.contains("a GRPCRoute is attached to the same Service port"),
        "{said}"
    );
}
