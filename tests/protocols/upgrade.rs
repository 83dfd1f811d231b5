//! What follows 101: `Upgrade` over HTTP/1.1, as WebSocket uses it.

use super::{End, Ends, fields};
use crate::harness::eventually;
use crate::harness::eventually::PATIENCE;

const REQUEST: &str = "GET /chat HTTP/1.1\r\nhost: cart\r\nconnection: Upgrade, x-hop\r\nx-hop: 1\r\nupgrade: WebSocket\r\nsec-websocket-key: k\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_and_nothing_is_lost_or_early_at_its_beginning() {
    let ends = Ends::start().await;
    let mut client = ends.client().await;
    client.say(&format!("{REQUEST}early")).await;
    let mut app = ends.app().await;
    let (request, head) = app.head().await;
    let wanted = ["connection: upgrade", "host: cart", "sec-websocket-key: k", "upgrade: websocket"];
    assert_eq!((request.as_str(), head), ("GET /chat HTTP/1.1", fields(&wanted)));
    app.hears_nothing().await;
    app.say(&format!("{ANSWER}behind")).await;
    let (status, head) = client.head().await;
    assert_eq!(
        (status.as_str(), head),
        ("HTTP/1.1 101 Switching Protocols", fields(&["connection: upgrade", "upgrade: websocket"]))
    );
    client.hears("behind").await;
    app.hears("early").await;
    for number in 0..3 {
        client.say(&format!("ping {number}")).await;
        app.hears(&format!("ping {number}")).await;
        app.say(&format!("pong {number}")).await;
        client.hears(&format!("pong {number}")).await;
    }
    assert_eq!(ends.web.metric("gauze_requests_total", &["code=\"101\""]).await, 0.0, "it has not ended");
    client.end().await;
    assert_eq!(app.rest().await, "", "the client's end");
    app.say("last").await;
    client.hears("last").await;
    drop(app);
    assert_eq!(client.rest().await, "");

    let keys = ["method", "path", "protocol", "status", "received", "sent", "error"];
    let told = "GET /chat http/1.1 101 23 28 null";
    assert_eq!(ends.logged(&keys).await, [told, told]);
    for sidecar in [&ends.web, &ends.cart] {
        sidecar.counts("gauze_requests_total", &["code=\"101\"", "protocol=\"http/1.1\""], 1.0).await;
        sidecar.counts("gauze_requests_total", &[], 1.0).await;
    }
}

#[tokio::test]
async fn an_answer_other_than_101_is_an_ordinary_response_and_the_connection_goes_on() {
    let ends = Ends::start().await;
    let mut client = ends.client().await;
    for (what, request, seen_by_app, answer, status) in [
        ("refused", REQUEST, "upgrade: websocket", "403 Forbidden", "HTTP/1.1 403 Forbidden"),
        ("passed over", REQUEST, "upgrade: websocket", "200 OK", "HTTP/1.1 200 OK"),
        (
            "HTTP/2 is not carried on",
            "GET / HTTP/1.1\r\nhost: cart\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
            "",
            "200 OK",
            "HTTP/1.1 200 OK",
        ),
        (
            "not asked for by Connection",
            "GET / HTTP/1.1\r\nhost: cart\r\nupgrade: websocket\r\n\r\n",
            "",
            "200 OK",
            "HTTP/1.1 200 OK",
        ),
    ] {
        client.say(request).await;
        let mut app = ends.app().await;
        let (_, head) = app.head().await;
        let seen =
            head.iter().find(|field| field.starts_with("upgrade") || field.starts_with("http2-settings"));
        assert_eq!(seen.map_or("", String::as_str), seen_by_app, "{what}");
        app.say(&format!("HTTP/1.1 {answer}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")).await;
        assert_eq!(client.head().await, (status.to_owned(), fields(&["content-length: 2"])), "{what}");
        client.hears("no").await;
    }
}

#[tokio::test]
async fn a_server_that_changes_the_protocol_wrongly_is_told_apart_and_its_bytes_go_nowhere() {
    let ends = Ends::start().await;
    let plain = "GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
    let http10 = "GET /chat HTTP/1.0\r\nhost: cart\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for (what, request, answer) in [
        ("unasked", plain, ANSWER),
        ("unasked, in HTTP/1.0", http10, ANSWER),
        ("to another protocol", REQUEST, "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n"),
        ("without a name", REQUEST, "HTTP/1.1 101 x\r\nconnection: upgrade\r\n\r\n"),
        ("without Connection", REQUEST, "HTTP/1.1 101 x\r\nupgrade: websocket\r\n\r\n"),
    ] {
        let mut client = ends.client().await;
        client.say(request).await;
        let mut app = ends.app().await;
        app.head().await;
        app.say(&format!("{answer}HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")).await;
        let (status, head) = client.head().await;
        assert_eq!(status, "HTTP/1.1 502 Bad Gateway", "{what}");
        assert!(head.contains(&"gauze-error: m3011".to_owned()), "{what}: {head:?}");
        assert_eq!(app.rest().await, "", "{what}");
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_sent_whole_before_its_tunnel_begins() {
    let ends = Ends::start().await;
    let mut client = ends.client().await;
    let request = REQUEST.replace("GET", "POST").replace("\r\n\r\n", "\r\ncontent-length: 8\r\n\r\n");
    client.say(&format!("{request}body")).await;
    let mut app = ends.app().await;
    assert!(app.head().await.1.contains(&"content-length: 8".to_owned()));
    app.hears("body").await;
    app.say(ANSWER).await;
    client.hears_nothing().await;
    client.say("restback").await;
    client.head().await;
    app.hears("restback").await;
}

#[tokio::test]
async fn a_tunnel_is_judged_when_it_opens_and_at_every_change_of_policy() {
    let ends = Ends::start().await;
    let deny = |path: &str| {
        format!(
            "apiVersion: gauze.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: deny, namespace: shop}}\n\
             spec:\n  action: Deny\n  rules:\n  - to:\n    - paths: [{path}]\n      methods: [GET]\n"
        )
    };
    let (mut client, mut app) = open(&ends).await;
    ends.mesh.apply("deny.yaml", &deny("/other"));
    eventually("the first policy is in force", async || denied(&ends, "/other").await).await;
    client.say("ping").await;
    app.hears("ping").await;
    ends.mesh.apply("deny.yaml", &deny("/chat"));
    assert_eq!(app.rest().await, "", "closed");
    assert_eq!(client.rest().await, "");
    denied(&ends, "/chat").await.expect("judged when it opens");
    let keys = ["direction=\"inbound\"", "code=\"101\"", "error=\"M4006\""];
    ends.cart.counts("gauze_requests_total", &keys, 1.0).await;
}

/// A tunnel that has opened, by its two ends.
async fn open(ends: &Ends) -> (End, End) {
    let mut client = ends.client().await;
    client.say(REQUEST).await;
    let mut app = ends.app().await;
    app.head().await;
    app.say(ANSWER).await;
    client.head().await;
    (client, app)
}

/// Whether an upgrade of this path is denied now.
async fn denied(ends: &Ends, path: &str) -> Result<(), String> {
    let mut client = ends.client().await;
    client.say(&REQUEST.replace("/chat", path)).await;
    let answered = tokio::select! {
        app = ends.app() => Err(app),
        head = client.head() => Ok(head),
    };
    match answered {
        Ok((status, head)) if head.contains(&"gauze-error: m4006".to_owned()) => {
            assert_eq!(status, "HTTP/1.1 403 Forbidden");
            Ok(())
        }
        Ok((status, head)) => Err(format!("{status} {head:?}")),
        Err(_) => Err(format!("{path} came to the app")),
    }
}

#[tokio::test]
async fn a_tunnel_on_which_nothing_moves_ends_and_so_does_one_whose_proxy_ends() {
    let mut ends = Ends::start_with(&["--tcp-idle-timeout", "2s", "--drain-time", "100ms"]).await;
    let (mut client, mut app) = open(&ends).await;
    assert_eq!((client.rest().await, app.rest().await), (String::new(), String::new()));
    for sidecar in [&ends.web, &ends.cart] {
        crate::harness::eventually("the idle tunnel is counted", async || {
            let ended = sidecar.metric("gauze_requests_total", &["code=\"101\""]).await;
            crate::harness::eventually::holds(ended == 1.0, ended)
        })
        .await;
    }
    let (mut client, mut app) = open(&ends).await;
    client.say("under way").await;
    app.hears("under way").await;
    let ended = tokio::time::timeout(PATIENCE, ends.cart.process.terminate()).await.expect("it ends");
    assert!(ended.success(), "{ended}");
    assert_eq!((client.rest().await, app.rest().await), (String::new(), String::new()));
}
