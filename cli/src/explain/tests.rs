use gauze_control_plane::source::directory;

use gauze_control_plane::world::World;

use super::*;
use crate::demo::shop_files;
use crate::directory::mesh_settings;

/// The demo's shop, and more objects beside it.
fn shop(more: &str) -> World {
    shop_with("more.yaml", more)
}

/// The same, in a file of this name.
fn shop_with(file: &str, more: &str) -> World {
    let directory = tempfile::tempdir().unwrap();
    shop_files(directory.path()).unwrap();
    std::fs::write(directory.path().join(file), more).unwrap();
    let (objects, problems) = directory::read(directory.path());
    assert_eq!(problems, []);
    World::of(mesh_settings(), objects)
}

fn asked(from: &str, method: &str, url: &str) -> Asked {
    Asked {
        from: from.to_owned(),
        method: method.parse().unwrap(),
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        server_name: None,
    }
}

fn steps(explanation: &Explanation) -> Vec<(&str, &str)> {
    explanation.steps.iter().map(|step| (step.step.as_str(), step.decided.as_str())).collect()
}

#[test]
fn a_split_is_explained_from_the_name_to_both_endpoints() {
    let explanation = walk::explain(&shop(""), &asked("shop/web", "GET", "http://cart/items")).unwrap();
    assert_eq!(explanation.problems, []);
    assert_eq!(explanation.verdict, Verdict::Carried("cart-v1-0 (v1) or cart-v2-0 (v2)".to_owned()));
    let steps = steps(&explanation);
    for expected in [
        ("caller", "spiffe://cluster.local/ns/shop/sa/web"),
        ("name", "Service shop/cart, 10.96.0.12:80"),
        ("protocol", "HTTP/1.1 or HTTP/2, told apart by the first bytes"),
        ("split", "cart-v1 90 % · cart-v2 10 %"),
        ("endpoints", "cart-v1: 127.1.2.1:8080"),
        ("identity", "cart-v2: mutual TLS, only with spiffe://cluster.local/ns/shop/sa/cart"),
    ] {
        assert!(steps.contains(&expected), "{expected:?} in {steps:#?}");
    }
    let split = explanation.steps.iter().find(|step| step.step == "split").unwrap();
    assert_eq!(split.origin.as_ref().map(Origin::object), Some(("TrafficSplit", "shop", "cart")));
}

use gauze_model::{Code, Origin};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: debug, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart}]
  rules:
  - matches: [{path: {value: /items}, headers: [{name: x-debug, value: \"1\"}]}]
    backendRefs: [{name: cart-v2, port: 80}]
";

#[test]
fn a_route_that_came_close_says_why_not() {
    let world = shop(ROUTE);
    let explanation = walk::explain(&world, &asked("web-0", "GET", "http://cart.shop/items")).unwrap();
    assert!(
        matches!(&explanation.verdict, Verdict::Refused(text) if text.contains("M3001")),
        "{explanation:?}"
    );
    let near =
        explanation.steps.iter().find(|step| step.decided.starts_with("not HTTPRoute/shop/debug")).unwrap();
    assert!(near.because.contains("x-debug"), "{near:?}");

    let mut with_header = asked("web-0", "GET", "http://cart.shop/items");
    with_header.headers.insert("x-debug", "1".parse().unwrap());
    let explanation = walk::explain(&world, &with_header).unwrap();
    assert_eq!(explanation.verdict, Verdict::Carried("cart-v2-0 (v2)".to_owned()));
}

const RETRIES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart}]
  rules:
  - retry: {codes: [500, 503], attempts: 1}
    backendRefs: [{name: cart-v2, port: 80}]
---
apiVersion: gauze.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: cart}, {kind: Service, name: cart-v2}]
  retry: {attempts: 7}
  timeouts: {request: 5s, backendRequest: 1500ms}
  retryBudget: {percent: 50}
  limits: {requests: 7}
";

#[test]
fn what_is_done_when_an_endpoint_fails_names_who_says_so() {
    let shown = |world: &World, url: &str| {
        let explanation = walk::explain(world, &asked("shop/web", "GET", url)).unwrap();
        let is_shown = |step: &&Reason| {
            ["retry", "timeouts", "limits", "budget", "ejection"].contains(&step.step.as_str())
        };
        let by =
            |step: &Reason| step.origin.as_ref().map_or_else(|| step.because.clone(), ToString::to_string);
        let steps = explanation.steps.iter().filter(is_shown);
        steps.map(|step| format!("{}: {} ({})", step.step, step.decided, by(step))).collect::<Vec<_>>()
    };
    let ejection = "after 5 gateway failures in a row, for 30s, longer each time up to 300s; at most 50 % of the endpoints";
    assert_eq!(
        shown(&shop(RETRIES), "http://cart/"),
        [
            "retry: once: what did not reach the app; idempotent requests without a response; status 500, 503 (HTTPRoute/shop/cart spec.rules[0].retry)".to_owned(),
            "timeouts: 5s in all, 1.5s each try (TrafficPolicy/shop/cart spec.timeouts)".to_owned(),
            "limits: cart-v2: 7 requests, 1024 connections, 1024 waiting; 1s to connect (TrafficPolicy/shop/cart spec.limits)".to_owned(),
            "budget: cart-v2: retries up to 50 % of the requests of 10s, and 10 a second (TrafficPolicy/shop/cart spec.retryBudget)".to_owned(),
            format!("ejection: cart-v2: {ejection} (the default)"),
        ]
    );
    assert_eq!(
        shown(&shop(""), "http://cart-v1/"),
        [
            "retry: up to 2 times: what did not reach the app (the default)".to_owned(),
            "timeouts: none, unless the call says grpc-timeout (the default)".to_owned(),
            "limits: cart-v1: 1024 requests, 1024 connections, 1024 waiting; 1s to connect (the default)"
                .to_owned(),
            "budget: cart-v1: retries up to 20 % of the requests of 10s, and 10 a second (the default)"
                .to_owned(),
            format!("ejection: cart-v1: {ejection} (the default)"),
        ]
    );
    let opaque = shown(&shop(""), "tcp://cart-v1:80");
    assert_eq!(opaque.len(), 2, "no request, so no retry, no timeout and no budget: {opaque:?}");
}

#[test]
fn what_the_mesh_does_not_carry_says_so() {
    let world = shop("");
    for (url, expected) in [
        ("http://api.example.com/", "no name of this cluster"),
        ("http://carrot/", "no Service shop/carrot"),
        ("http://93.184.216.34/", "passes as it is"),
        ("http://cart:81/", "passes as it is"),
    ] {
        let explanation = walk::explain(&world, &asked("shop/web", "GET", url)).unwrap();
        assert!(
            matches!(&explanation.verdict, Verdict::Outside(text) if text.contains(expected)),
            "{explanation:?}"
        );
    }
}

#[test]
fn wrong_usage_says_what_there_is() {
    let world = shop("");
    let error = walk::explain(&world, &asked("shop/wep", "GET", "http://cart/")).unwrap_err();
    assert!(error.to_string().contains("shop/cart, shop/payments, shop/web"), "{error}");
    for url in ["/items", "cart", "ftp://cart/"] {
        let error = walk::explain(&world, &asked("shop/web", "GET", url)).unwrap_err();
        assert!(error.to_string().contains("http://"), "{error}");
    }
    assert!(parse_header("x-user: 7").is_ok() && parse_header("x-user").is_err());
}

#[test]
fn the_page_numbers_the_steps_and_names_the_users_lines() {
    let explanation = walk::explain(&shop(""), &asked("shop/web", "GET", "http://cart/")).unwrap();
    let page = page(&explanation, Style::PLAIN);
    assert!(page.contains(" 1  caller"), "{page}");
    assert!(page.contains("TrafficSplit/shop/cart spec.backends"), "{page}");
    assert!(page.ends_with("→ carried: cart-v1-0 (v1) or cart-v2-0 (v2)\n"), "{page}");
}

const STRICT: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {gauze.dev/mtls: strict}}
";

#[test]
fn a_caller_outside_the_mesh_is_explained_up_to_the_called_pod() {
    for (what, more, url, expected) in [
        ("permissive", "", "http://cart-v1.shop/", Verdict::Carried("cart-v1-0 (v1)".to_owned())),
        ("bytes", "", "tcp://cart-v1.shop:80", Verdict::Carried("cart-v1-0 (v1)".to_owned())),
        (
            "strict",
            STRICT,
            "http://cart-v1.shop/",
            walk::refused(Code::PLAINTEXT_REFUSED, "by cart-v1-0 (v1)"),
        ),
        (
            "strict, bytes",
            STRICT,
            "tcp://cart-v1.shop:80",
            walk::refused(Code::PLAINTEXT_REFUSED, "by cart-v1-0 (v1)"),
        ),
    ] {
        let explanation =
            walk::explain(&shop_with("namespace.yaml", more), &asked("outside", "GET", url)).unwrap();
        assert_eq!(explanation.verdict, expected, "{what}");
        let steps = steps(&explanation);
        assert!(steps.contains(&("identity", "cart-v1: plaintext")), "{what}: {steps:#?}");
    }
    let short = walk::explain(&shop(""), &asked("outside", "GET", "http://cart/")).unwrap();
    assert!(
        matches!(&short.verdict, Verdict::Outside(text) if text.contains("SERVICE.NAMESPACE")),
        "{short:?}"
    );
    assert!(walk::explain(&shop(""), &asked("outside", "-", "tcp://cart.shop")).is_err(), "without a port");
}

const TLS_ROUTES: &str = "apiVersion: v1
kind: Service
metadata: {name: vault, namespace: shop}
spec:
  clusterIP: 10.96.0.77
  ports: [{name: tls, port: 443}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: vault, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: vault}]
  hostnames: [vault.shop, '*.vault.example']
  rules: [{backendRefs: [{name: cart-v1, port: 80}]}]
";

#[test]
fn the_apps_own_tls_is_explained_by_its_server_name() {
    let world = shop(TLS_ROUTES);
    let explain = |server_name: Option<&str>| {
        let asked = asked("shop/web", "-", "https://vault.shop");
        let asked = Asked { server_name: server_name.map(str::to_owned), ..asked };
        walk::explain(&world, &asked).unwrap()
    };
    for name in [None, Some("a.vault.example")] {
        let explanation = explain(name);
        assert_eq!(explanation.verdict, Verdict::Carried("cart-v1-0 (v1)".to_owned()), "{name:?}");
        let steps = steps(&explanation);
        assert!(steps.contains(&("route", "TLSRoute/shop/vault spec.rules[0]")), "{name:?}: {steps:#?}");
    }
    let refused = explain(Some("vault.example"));
    assert_eq!(refused.verdict, walk::refused(Code::NO_TLS_ROUTE, "server name `vault.example`"));
}
