//! What a route answers and changes, byte for byte, as the app and its client see it: the conformance suite looks at a
//! redirect's status alone, and at no rewritten path.

use super::{ROUTE, is_live};
use crate::harness::client::{Answer, Client, Protocol, request};
use crate::harness::mesh::Mesh;
use crate::splitting::Canary;

/// A rule for paths that begin with `path`.
fn rule(path: &str, filters: &str, backends: &str) -> String {
    format!(
        "  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n    filters: [{filters}]\n{backends}"
    )
}

const V1: &str = "    backendRefs: [{name: cart-v1, port: 80}]\n";

fn redirect(fields: &str) -> String {
    format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}")
}

async fn ask(canary: &Canary, protocol: Protocol, host: &str, target: &str, id: &str) -> Answer {
    let mut client = Client::connect(protocol, canary.web.outbound[0]).await.expect("a connection");
    client.send(request(protocol, host, target, id)).await.expect("an answer")
}

fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

#[tokio::test]
async fn a_redirect_answers_exactly_where_to_go() {
    let cases = [
        (
            "nothing is said but the status: 302 to the same place",
            "",
            "cart",
            "/a?x=1&y",
            302,
            "http://cart/a?x=1&y",
        ),
        ("the host that the client names stays", "", "cart.shop:80", "/a", 302, "http://cart.shop/a"),
        ("another host", "hostname: shop.example", "cart", "/a?x=1", 302, "http://shop.example/a?x=1"),
        ("https has its own port, which is not said", "scheme: https", "cart", "/a", 302, "https://cart/a"),
        ("http too", "scheme: http", "cart:80", "/a", 302, "http://cart/a"),
        ("another port is said", "port: 8443", "cart", "/a", 302, "http://cart:8443/a"),
        ("the default port of http is not", "port: 80", "cart", "/a", 302, "http://cart/a"),
        ("the default port of https is not", "scheme: https, port: 443", "cart", "/a", 302, "https://cart/a"),
        ("port 80 of https is said", "scheme: https, port: 80", "cart", "/a", 302, "https://cart:80/a"),
        ("port 443 of http is said", "scheme: http, port: 443", "cart", "/a", 302, "http://cart:443/a"),
        (
            "a whole path, the query stays",
            "path: {type: ReplaceFullPath, replaceFullPath: /new}",
            "cart",
            "/a/b?x=1",
            302,
            "http://cart/new?x=1",
        ),
        (
            "a prefix, the rest stays",
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}",
            "cart",
            "/a/b/?x=1",
            302,
            "http://cart/new/b/?x=1",
        ),
        (
            "a prefix by nothing",
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}",
            "cart",
            "/a",
            302,
            "http://cart/",
        ),
        ("301", "statusCode: 301", "cart", "/a", 301, "http://cart/a"),
        ("303", "statusCode: 303", "cart", "/a", 303, "http://cart/a"),
        ("307", "statusCode: 307", "cart", "/a", 307, "http://cart/a"),
        ("308", "statusCode: 308", "cart", "/a", 308, "http://cart/a"),
        (
            "all at once",
            "scheme: https, hostname: shop.example, port: 8443, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /b}",
            "cart",
            "/a",
            308,
            "https://shop.example:8443/b",
        ),
    ];
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    // Each case under a path of its own, which stands before the case's path.
    let rules = cases.iter().enumerate().map(|(at, case)| rule(&format!("/{at}/a"), &redirect(case.1), ""));
    let live = rule("/live", &redirect("statusCode: 301"), "");
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + &rules.collect::<String>() + &live));
    is_live(&canary, "/live", |answer| answer.status == 301).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (at, (what, _, host, path, status, location)) in cases.iter().enumerate() {
            let answer = ask(&canary, protocol, host, &format!("/{at}{path}"), "redirect").await;
            // A path that stays keeps the case's number, a prefix that is replaced loses it.
            let location = match location.contains("/a") {
                true => location.replacen("/a", &format!("/{at}/a"), 1),
                false => (*location).to_owned(),
            };
            let told = (answer.status.as_u16(), header(&answer.headers, "location"), answer.text());
            assert_eq!(told, (*status, vec![location.as_str()], String::new()), "{protocol:?}: {what}");
        }
    }
    assert_eq!(canary.apps.iter().map(|app| app.count("redirect")).sum::<usize>(), 0, "no app was asked");
}

#[tokio::test]
async fn a_redirect_keeps_the_port_that_was_dialled_and_brings_the_headers_of_its_rule() {
    let mesh = Mesh::start().await;
    let canary = Canary::start(mesh, [100, 0]).await;
    let dialled = std::net::SocketAddr::new(canary.mesh.service_address().ip(), 8080);
    canary.mesh.service("moved", dialled, "http", &[&canary.carts[0]]);
    let filters = redirect("path: {type: ReplaceFullPath, replaceFullPath: /b}")
        + ", {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: cache-control, value: no-store}]}}";
    let route = ROUTE.replace("name: cart", "name: moved") + &rule("/", &filters, "");
    canary.mesh.apply("moved.yaml", &route);
    let options = crate::harness::mesh::SidecarOptions { dials: &[dialled], ..Default::default() };
    let caller = canary.mesh.pod("caller-0", "caller", None, options).await;
    caller.ready().await;
    let (answer, status) = crate::harness::eventually("the redirect is live", async || {
        let answer = crate::harness::client::call(Protocol::Http1, caller.outbound[0], "moved", "/a?x", "m")
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status.as_u16();
        if status == 302 { Ok((answer, status)) } else { Err(status.to_string()) }
    })
    .await;
    let told = (status, header(&answer.headers, "location"), header(&answer.headers, "cache-control"));
    assert_eq!(told, (302, vec!["http://moved:8080/b?x"], vec!["no-store"]));
}

#[tokio::test]
async fn the_app_sees_the_rewritten_path_and_host() {
    let prefix = |new: &str| format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{new}'}}");
    let full = |new: &str| format!("path: {{type: ReplaceFullPath, replaceFullPath: {new}}}");
    let host = "hostname: cart.internal".to_owned();
    // The table of Gateway API's `replacePrefixMatch`, then more. The prefix is `/foo`, or `/foo/`.
    let cases = [
        ("the rest stays behind the new prefix", "/foo", prefix("/xyz"), "/foo/bar", "/xyz/bar", "cart"),
        (
            "a slash at the end of the new prefix changes nothing",
            "/foo",
            prefix("/xyz/"),
            "/foo/bar",
            "/xyz/bar",
            "cart",
        ),
        ("nor does one at the end of the old", "/foo/", prefix("/xyz"), "/foo/bar", "/xyz/bar", "cart"),
        ("nor do both", "/foo/", prefix("/xyz/"), "/foo/bar", "/xyz/bar", "cart"),
        ("the prefix alone", "/foo", prefix("/xyz"), "/foo", "/xyz", "cart"),
        ("a slash at the end of the path stays", "/foo", prefix("/xyz"), "/foo/", "/xyz/", "cart"),
        ("a prefix is taken away", "/foo", prefix(""), "/foo/bar", "/bar", "cart"),
        ("of which a slash stays", "/foo", prefix(""), "/foo/", "/", "cart"),
        ("or nothing, which is the root", "/foo", prefix(""), "/foo", "/", "cart"),
        ("the root as prefix, behind a slash", "/foo", prefix("/"), "/foo/", "/", "cart"),
        ("the root as prefix", "/foo", prefix("/"), "/foo", "/", "cart"),
        ("the query stays", "/foo", prefix("/xyz"), "/foo/bar?a=/foo&b", "/xyz/bar?a=/foo&b", "cart"),
        (
            "what is encoded stays so",
            "/foo",
            prefix("/xyz"),
            "/foo/%2e%2e/a%20b",
            "/xyz/%2e%2e/a%20b",
            "cart",
        ),
        ("the whole path, not the query", "/foo", full("/one"), "/foo/bar/?x=1", "/one?x=1", "cart"),
        ("the host alone", "/foo", host.clone(), "/foo?x", "/foo?x", "cart.internal"),
        ("host and path", "/foo", format!("{host}, {}", full("/one")), "/foo", "/one", "cart.internal"),
    ];
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    // Each case is for requests with its number in a header.
    let rules = cases.iter().enumerate().map(|(at, (_, path, rewrite, ..))| {
        format!(
            "  - matches: [{{path: {{value: {path}}}, headers: [{{name: x-case, value: '{at}'}}]}}]\n    \
             filters: [{{type: URLRewrite, urlRewrite: {{{rewrite}}}}}]\n{V1}"
        )
    });
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + &rules.collect::<String>()));
    let last = cases.len() - 1;
    crate::harness::eventually("the route is live", async || {
        ask_case(&canary, Protocol::Http1, "/foo", last, "live").await;
        let received = canary.apps[0].received("live");
        let target = received.last().map(|last| last.target.clone()).unwrap_or_default();
        crate::harness::eventually::holds(target.ends_with("/one"), target)
    })
    .await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (at, (what, _, _, asked, path, host)) in cases.iter().enumerate() {
            let id = format!("{protocol:?}-{at}");
            let answer = ask_case(&canary, protocol, asked, at, &id).await;
            assert_eq!((answer.status.as_u16(), answer.app()), (200, "v1"), "{what}");
            let received = &canary.apps[0].received(&id)[0];
            let uri: http::Uri = received.target.parse().expect("a target");
            let authority = uri.authority().map(ToString::to_string);
            let seen_host = authority.unwrap_or_else(|| header(&received.headers, "host").concat());
            let seen = (uri.path_and_query().map_or("", |target| target.as_str()), seen_host.as_str());
            assert_eq!(seen, (*path, *host), "{protocol:?}: {what}");
        }
    }
}

async fn ask_case(canary: &Canary, protocol: Protocol, target: &str, case: usize, id: &str) -> Answer {
    let mut client = Client::connect(protocol, canary.web.outbound[0]).await.expect("a connection");
    let mut asked = request(protocol, "cart", target, id);
    asked.headers_mut().insert("x-case", http::HeaderValue::from(case));
    client.send(asked).await.expect("an answer")
}

#[tokio::test]
async fn headers_are_changed_by_the_rule_and_by_the_backend_on_both_ways() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let change = |kind: &str, field: &str, set: &str, add: &str, remove: &str| {
        let pair = |name: &str| format!("[{{name: {name}, value: {kind}}}]");
        format!("{{type: {kind}, {field}: {{set: {}, add: {}, remove: [{remove}]}}}}", pair(set), pair(add))
    };
    let both = |of: &str| {
        [
            ("RequestHeaderModifier", "requestHeaderModifier"),
            ("ResponseHeaderModifier", "responseHeaderModifier"),
        ]
        .map(|(kind, field)| {
            let [set, add, remove] = ["set", "add", "gone"].map(|what| format!("X-{what}-{of}"));
            change(kind, field, &set, &add, &remove)
        })
        .join(", ")
    };
    let backends =
        format!("    backendRefs: [{{name: cart-v1, port: 80, filters: [{}]}}]\n", both("backend"));
    let rules = rule("/", &both("rule"), &backends);
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + &rules));
    is_live(&canary, "/", |answer| answer.headers.contains_key("x-set-backend")).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let id = format!("{protocol:?}");
        let mut client = Client::connect(protocol, canary.web.outbound[0]).await.expect("a connection");
        let mut asked = request(protocol, "cart", "/", &id);
        for of in ["rule", "backend"] {
            for what in ["set", "add", "gone", "kept"] {
                let name = http::HeaderName::try_from(format!("x-{what}-{of}")).expect("a name");
                asked.headers_mut().insert(name, http::HeaderValue::from_static("came"));
            }
        }
        let answer = client.send(asked).await.expect("an answer");
        let received = &canary.apps[0].received(&id)[0];
        for of in ["rule", "backend"] {
            let seen =
                |headers: &http::HeaderMap, what: &str| header(headers, &format!("x-{what}-{of}")).join(",");
            let by_app = ["set", "add", "gone", "kept"].map(|what| seen(&received.headers, what));
            let changed =
                ["RequestHeaderModifier", "came,RequestHeaderModifier", "", "came"].map(str::to_owned);
            assert_eq!(by_app, changed, "{protocol:?}, as the app sees it, by the {of}");
            let by_client = ["set", "add", "gone"].map(|what| seen(&answer.headers, what));
            let changed = ["ResponseHeaderModifier", "ResponseHeaderModifier", ""].map(str::to_owned);
            assert_eq!(by_client, changed, "{protocol:?}, as the client sees it, by the {of}");
        }
    }
}

#[tokio::test]
async fn what_no_rule_carries_and_what_cannot_be_done_is_answered_and_never_passed_over() {
    let canary = Canary::start(Mesh::start().await, [100, 0]).await;
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: cart-v2, port: 80}}}";
    let shared = "{type: CORS, cors: {allowOrigins: ['*']}}";
    let rules = [
        rule("/mirrored", mirror, V1),
        rule("/shared", shared, V1),
        rule("/nowhere", "", ""),
        rule("/zero", "", "    backendRefs: [{name: cart-v1, port: 80, weight: 0}]\n"),
        rule("/missing", "", "    backendRefs: [{name: gone, port: 80}]\n"),
        rule("/live", "", V1),
    ];
    canary.mesh.apply("route.yaml", &(ROUTE.to_owned() + &rules.concat()));
    is_live(&canary, "/shared", |answer| answer.status == 500).await;
    for (what, path, status, code, grpc) in [
        ("a path that no rule is for", "/other", 404, "M3001", "12"),
        ("a filter that is not supported", "/shared", 500, "M3002", "14"),
        ("a rule without backend", "/nowhere", 500, "M3002", "14"),
        ("all weights 0", "/zero", 500, "M3002", "14"),
        ("a backend that does not exist", "/missing", 500, "M3004", "14"),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Grpc] {
            let answer = ask(&canary, protocol, "cart", path, "n").await;
            let told = match protocol {
                Protocol::Grpc => header(&answer.headers, "grpc-status").concat(),
                _ => answer.status.as_str().to_owned(),
            };
            let expected = if protocol == Protocol::Grpc { grpc.to_owned() } else { status.to_string() };
            assert_eq!((told, answer.code()), (expected, code), "{protocol:?}: {what}");
        }
    }
    assert_eq!(canary.apps.iter().map(|app| app.count("n")).sum::<usize>(), 0, "no app was asked");
    // A mirror changes no answer, so it is skipped, and said to be.
    assert_eq!(ask(&canary, Protocol::Http1, "cart", "/mirrored", "x").await.app(), "v1");
    assert_eq!(canary.apps[1].count("x"), 0, "requests are not mirrored yet");
    let said = canary.mesh.ask("/objects").await.to_string();
    assert!(said.contains("requests are not mirrored yet"), "{said}");
}
