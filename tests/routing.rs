//! Routes by anybody's YAML: HTTPRoute, GRPCRoute and TrafficPolicy as a user writes them.

mod answers; // redirects, rewrites and header changes
mod attachment; // for which callers and ports a route is
mod matching; // which rule carries a request

use crate::harness::client::{Answer, Client, Protocol, call, request, with_header};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::Mesh;
use crate::http::Pair;
use crate::splitting::Canary;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: cart, namespace: shop}\n\
                     spec:\n  parentRefs: [{group: '', kind: Service, name: cart}]\n  rules:\n";

async fn get(canary: &Canary, path: &str) -> Result<Answer, String> {
    call(Protocol::Http1, canary.web.outbound[0], "cart", path, "r").await.map_err(|error| error.to_string())
}

/// Waits until the answer to `path` is as it should be.
async fn is_live(canary: &Canary, path: &str, is_right: impl Fn(&Answer) -> bool) {
    eventually("the route is live", async || {
        let answer = get(canary, path).await?;
        holds(is_right(&answer), format!("{} {}", answer.status, answer.code()))
    })
    .await;
}

#[tokio::test]
async fn an_http_route_chooses_by_path_header_and_query_and_overrides_a_split() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let rules = "  - matches: [{path: {type: PathPrefix, value: /new}}, {headers: [{name: x-canary, value: 'yes'}]}, \
                 {queryParams: [{name: v, value: '2'}]}]\n    backendRefs: [{name: cart-v2, port: 80}]\n  \
                 - backendRefs: [{name: cart-v1, port: 80}]\n";
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + rules));
    eventually("the route is live", async || {
        let answer = get(&canary, "/new/item").await?;
        holds(answer.app() == "v2", answer.app().to_owned())
    })
    .await;
    for (path, app) in [("/newer", "v1"), ("/new", "v2"), ("/?v=2", "v2"), ("/?v=3", "v1"), ("/", "v1")] {
        assert_eq!(get(&canary, path).await.expect("an answer").app(), app, "{path}");
    }
    let mut client = Client::connect(Protocol::Http2, canary.web.outbound[0]).await.expect("a connection");
    let asked = with_header(request(Protocol::Http2, "cart", "/", "h"), "x-canary", "yes");
    assert_eq!(client.send(asked).await.expect("an answer").app(), "v2");
}

#[tokio::test]
async fn filters_change_headers_rewrite_paths_and_redirect() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let rules = "  - matches: [{path: {type: PathPrefix, value: /old}}]\n    filters:\n    \
                 - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /fresh}}}\n    \
                 - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: a}], remove: [x-gone]}}\n    \
                 - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-answer, value: b}]}}\n    \
                 backendRefs: [{name: cart-v1, port: 80}]\n  \
                 - matches: [{path: {type: Exact, value: /moved}}]\n    filters:\n    \
                 - {type: RequestRedirect, requestRedirect: {hostname: shop.example, statusCode: 301}}\n";
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + rules));
    let moved = eventually("the redirect is live", async || {
        let answer = get(&canary, "/moved").await?;
        if answer.status == 301 { Ok(answer) } else { Err(answer.status.to_string()) }
    })
    .await;
    let location = moved.headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or("");
    assert!(location.starts_with("http://shop.example") && location.ends_with("/moved"), "{location}");
    let mut client = Client::connect(Protocol::Http1, canary.web.outbound[0]).await.expect("a connection");
    let asked = with_header(request(Protocol::Http1, "cart", "/old/item?x=1", "f"), "x-gone", "1");
    let answer = client.send(asked).await.expect("an answer");
    assert_eq!(answer.headers.get("x-answer").map(|value| value.as_bytes()), Some(&b"b"[..]));
    let received = &canary.apps[0].received("f")[0];
    assert!(received.target.ends_with("/fresh/item?x=1"), "{}", received.target);
    assert_eq!(received.headers.get("x-set").map(|value| value.as_bytes()), Some(&b"a"[..]));
    assert!(!received.headers.contains_key("x-gone"));
}

#[tokio::test]
async fn a_grpc_route_chooses_by_service_and_method() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: cart, namespace: shop}\nspec:\n  \
                 parentRefs: [{group: '', kind: Service, name: cart}]\n  rules:\n  \
                 - matches: [{method: {service: shop.Cart, method: Add}}]\n    backendRefs: [{name: cart-v2, port: 80}]\n  \
                 - backendRefs: [{name: cart-v1, port: 80}]\n";
    canary.mesh.apply("route.yaml", route);
    let address = canary.web.outbound[0];
    eventually("the route is live", async || {
        let answer =
            call(Protocol::Grpc, address, "cart", "/shop.Cart/Add", "g").await.map_err(|e| e.to_string())?;
        holds(answer.app() == "v2", answer.app().to_owned())
    })
    .await;
    let other = call(Protocol::Grpc, address, "cart", "/shop.Cart/Get", "g").await.expect("an answer");
    assert_eq!(other.app(), "v1");
}

#[tokio::test]
async fn a_backend_that_does_not_exist_fails_its_own_share_and_is_named() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let rules = "  - matches: [{path: {type: PathPrefix, value: /lost}}]\n    backendRefs: [{name: nowhere, port: 80}]\n  \
                 - backendRefs: [{name: cart-v1, port: 80}]\n";
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + rules));
    eventually("the broken rule answers 500, as GAMMA says", async || {
        let answer = get(&canary, "/lost").await?;
        holds(
            answer.status == 500 && answer.code().starts_with('M'),
            format!("{} {}", answer.status, answer.code()),
        )
    })
    .await;
    assert_eq!(get(&canary, "/").await.expect("an answer").app(), "v1");
    let said = canary.mesh.ask("/objects").await.to_string();
    assert!(said.contains("spec.rules[0].backendRefs[0]"), "{said}");
}

#[tokio::test]
async fn requests_beyond_a_limit_are_refused_with_its_own_code_and_the_rest_is_served() {
    let pair = Pair::start("http").await;
    let policy = "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: cart, namespace: shop}\nspec:\n  \
                  targetRefs: [{group: '', kind: Service, name: cart}]\n  limits: {requests: 4}\n";
    pair.mesh.apply("policy.yaml", policy);
    let codes = eventually("the limit is live", async || {
        let calls = (0..12).map(|_| call(Protocol::Http1, pair.dial(), "cart", "/slow/300", "l"));
        let answers = futures_util::future::join_all(calls).await;
        let answers: Vec<Answer> = answers.into_iter().filter_map(Result::ok).collect();
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        let refused: Vec<_> =
            answers.iter().filter(|answer| answer.status == 503).map(|a| a.code().to_owned()).collect();
        if served == 4 && refused.len() == 8 { Ok(refused) } else { Err((served, refused)) }
    })
    .await;
    assert!(codes.iter().all(|code| code.starts_with("M3") && *code == codes[0]), "{codes:?}");
}
