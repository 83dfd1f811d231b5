//! Requests between two sidecars.

use crate::harness::client::{Client, Protocol, call, request, with_body, with_header};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::harness::{App, eventually};

/// `web` calls `cart`, each behind a sidecar.
pub(crate) struct Pair {
    pub mesh: Mesh,
    pub app: App,
    pub web: Sidecar,
    pub cart: Sidecar,
}

impl Pair {
    /// The port of `cart` has this name, which declares its protocol (or `any`: nothing is declared).
    pub(crate) async fn start(port_name: &str) -> Pair {
        Pair::start_in(Mesh::start().await, port_name).await
    }

    pub(crate) async fn start_in(mesh: Mesh, port_name: &str) -> Pair {
        let app = App::start("cart").await;
        let service = mesh.service_address();
        let cart = mesh
            .pod("cart-0", "cart", Some(&app), SidecarOptions { version: "v1", ..Default::default() })
            .await;
        mesh.service("cart", service, port_name, &[&cart]);
        let web =
            mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..Default::default() }).await;
        cart.ready().await;
        web.ready().await;
        Pair { mesh, app, web, cart }
    }

    /// Where the app of `web` dials `cart`.
    pub(crate) fn dial(&self) -> std::net::SocketAddr {
        self.web.outbound[0]
    }
}

#[tokio::test]
async fn each_http_protocol_passes_two_sidecars_and_arrives_as_it_was_sent() {
    let pair = Pair::start("http").await;
    for (protocol, version) in [
        (Protocol::Http1, http::Version::HTTP_11),
        (Protocol::Http2, http::Version::HTTP_2),
        (Protocol::Grpc, http::Version::HTTP_2),
    ] {
        let id = format!("{protocol:?}");
        let answer = call(protocol, pair.dial(), "cart", "/items?page=2", &id).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.app()), (200, "cart"), "{id}: {}", answer.text());
        let received = &pair.app.received(&id)[..];
        assert_eq!(received.len(), 1, "{id}");
        assert_eq!(received[0].version, version, "{id}");
        let method = if protocol == Protocol::Grpc { http::Method::POST } else { http::Method::GET };
        assert_eq!(received[0].method, method, "{id}");
        assert!(received[0].target.ends_with("/items?page=2"), "{id}: {}", received[0].target);
    }
}

#[tokio::test]
async fn grpc_trailers_come_back_intact() {
    let pair = Pair::start("grpc").await;
    let answer = call(Protocol::Grpc, pair.dial(), "cart", "/shop.Cart/Get", "g").await.expect("an answer");
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
    assert_eq!(trailers.get("x-done").map(|done| done.as_bytes()), Some(&b"yes"[..]));
}

#[tokio::test]
async fn a_body_of_some_megabytes_arrives_whole_in_both_directions() {
    let pair = Pair::start("http").await;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = Client::connect(protocol, pair.dial()).await.expect("a connection");
        let asked = with_body(request(protocol, "cart", "/echo", "big"), body.clone());
        let answer = client.send(asked).await.expect("an answer");
        assert!(answer.body == body, "{protocol:?}: {} bytes of {}", answer.body.len(), body.len());
    }
}

#[tokio::test]
async fn an_app_cannot_speak_for_a_sidecar() {
    let pair = Pair::start("http").await;
    let mut client = Client::connect(Protocol::Http1, pair.dial()).await.expect("a connection");
    let asked = with_header(request(Protocol::Http1, "cart", "/", "forged"), "gauze-peer", "app=admin");
    let asked = with_header(asked, "gauze-not-delivered", "1");
    client.send(asked).await.expect("an answer");
    let received = &pair.app.received("forged")[0];
    let ours: Vec<_> = received.headers.keys().filter(|name| name.as_str().starts_with("gauze-")).collect();
    assert!(ours.is_empty(), "the app saw {ours:?}");
}

#[tokio::test]
async fn a_request_id_is_made_where_there_is_none_and_trace_headers_are_carried_on() {
    let pair = Pair::start("http").await;
    let mut client = Client::connect(Protocol::Http1, pair.dial()).await.expect("a connection");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let asked = with_header(request(Protocol::Http1, "cart", "/", "traced"), "traceparent", trace);
    let asked = with_header(asked, "b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    client.send(asked).await.expect("an answer");
    let received = &pair.app.received("traced")[0].headers;
    let value = |name: &str| received.get(name).map(|value| value.to_str().unwrap_or("").to_owned());
    assert_eq!(value("traceparent").as_deref(), Some(trace));
    assert_eq!(value("b3").as_deref(), Some("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"));
    assert_eq!(value("x-request-id").map(|id| id.len()), Some(36), "a UUID");
}

#[tokio::test]
async fn a_refusal_carries_its_code_in_response_log_and_metric() {
    let pair = Pair::start("http").await;
    pair.mesh.service("cart", "10.96.0.1:80".parse().expect("an address"), "http", &[]);
    let answer = eventually("no endpoint is left", async || {
        let answer =
            call(Protocol::Http1, pair.dial(), "cart", "/", "none").await.map_err(|e| e.to_string())?;
        if answer.status == 503 { Ok(answer) } else { Err(answer.status.to_string()) }
    })
    .await;
    let code = answer.code().to_owned();
    assert!(code.starts_with("M3"), "{:?}", answer.headers);
    assert!(answer.text().contains(&code), "the body names the code: {}", answer.text());
    eventually("the refusal is counted", async || {
        let counted = pair.web.metric("gauze_requests_total", &[&format!("error=\"{code}\"")]).await;
        if counted >= 1.0 { Ok(()) } else { Err(counted) }
    })
    .await;
    let grpc = call(Protocol::Grpc, pair.dial(), "cart", "/shop.Cart/Get", "none").await.expect("an answer");
    assert_eq!(grpc.status, 200, "gRPC refusals are gRPC statuses");
    assert_eq!(grpc.headers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"14"[..]));
    assert_eq!(grpc.code(), code);
}

#[tokio::test]
async fn the_access_log_tells_each_request_as_one_line_of_json() {
    let line = logged("json").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let text = line.to_string();
    for wanted in ["418", "/status/418", "GET", "outbound", "cluster/shop/cart/80"] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    assert_eq!(
        line["request_id"].as_str().map(str::len),
        Some(36),
        "the id that the sidecar gave it: {text}"
    );
}

#[tokio::test]
async fn the_access_log_is_written_in_a_format_of_envoys_operators() {
    let format = r#"{"what": "%REQ(:METHOD)% %REQ(:PATH)% for %REQ(:AUTHORITY)%", "status": "%RESPONSE_CODE%",
        "by": "%UPSTREAM_CLUSTER%", "of": "%HOSTNAME%", "tls": "%UPSTREAM_TLS_VERSION%", "sent": "%BYTES_SENT%"}"#;
    let line: serde_json::Value = serde_json::from_str(&logged(format).await).expect("JSON");
    let wanted = serde_json::json!({
        "what": "GET /status/418 for cart", "status": 418, "by": "cluster/shop/cart/80", "of": "web-0",
        "tls": "TLSv1.3", "sent": line["sent"].as_u64(),
    });
    assert_eq!(line, wanted);
}

/// The line of the caller's sidecar for a request that is answered with 418.
async fn logged(format: &str) -> String {
    let mesh = Mesh::start().await;
    let app = App::start("cart").await;
    let service = mesh.service_address();
    let cart = mesh.pod("cart-0", "cart", Some(&app), SidecarOptions::default()).await;
    mesh.service("cart", service, "http", &[&cart]);
    let arguments = ["--access-log", format];
    let options = SidecarOptions { dials: &[service], arguments: &arguments, ..Default::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    web.ready().await;
    cart.ready().await;
    call(Protocol::Http1, web.outbound[0], "cart", "/status/418", "logged").await.expect("an answer");
    eventually("the line is written", async || web.process.new_lines().pop().ok_or("no line yet")).await
}
