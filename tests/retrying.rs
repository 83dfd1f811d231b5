//! The same request, sent again: what is, with what body, and what is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::harness::client::{Answer, Client, Protocol, call, request, with_body, with_header};
use crate::harness::faults::{Fault, Faulty};
use crate::harness::mesh::{Mesh, NAMESPACE, Sidecar, SidecarOptions, free_address};
use crate::harness::{App, objects};
use crate::http::Pair;

/// `web` calls `cart`, of whose two pods one has an app that listens.
struct Halved {
    _mesh: Mesh,
    app: App,
    web: Sidecar,
    _carts: [Sidecar; 2],
}

impl Halved {
    async fn start() -> Halved {
        let (mesh, app) = (Mesh::start().await, App::start("cart").await);
        let (address, nobody) = (free_address(), free_address());
        let inbound = format!("--inbound={address}={nobody}");
        let options = SidecarOptions { arguments: &[&inbound], ..Default::default() };
        let broken = mesh.pod_at(address, "cart-0", "cart", options).await;
        let well = mesh.pod("cart-1", "cart", Some(&app), SidecarOptions::default()).await;
        let (service, carts) = (mesh.service_address(), [broken, well]);
        mesh.service("cart", service, "http", &[&carts[0], &carts[1]]);
        let options = SidecarOptions { dials: &[service], ..Default::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        for sidecar in [&carts[0], &carts[1], &web] {
            sidecar.ready().await;
        }
        Halved { _mesh: mesh, app, web, _carts: carts }
    }

    async fn post(&self, protocol: Protocol, id: &str, body: Vec<u8>) -> Answer {
        let mut client = Client::connect(protocol, self.web.outbound[0]).await.expect("a connection");
        client.send(with_body(request(protocol, "cart", "/", id), body)).await.expect("an answer")
    }
}

/// How many requests are sent: some of them meet the pod whose app does not listen, before it is ejected.
const REQUESTS: usize = 20;

#[tokio::test]
async fn a_post_that_was_not_delivered_reaches_another_endpoint_once_and_whole() {
    let mesh = Halved::start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for number in 0..REQUESTS {
            let (id, body) = (format!("{protocol:?}-{number}"), vec![b'a' + number as u8; 40_000]);
            let answer = mesh.post(protocol, &id, body.clone()).await;
            assert_eq!(answer.status, 200, "{id}: {}", answer.text());
            let received = mesh.app.received(&id);
            assert_eq!(received.len(), 1, "{id}");
            assert!(received[0].body == body, "{id}: {} bytes", received[0].body.len());
        }
    }
    let retries = mesh.web.metric("gauze_retries_total", &["reason=\"not-delivered\""]).await;
    assert!(retries >= 1.0, "some met the pod whose app does not listen");
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_kept_is_never_sent_twice() {
    let mesh = Halved::start().await;
    let body = vec![b'x'; 1_000_000];
    let mut refused = 0;
    for number in 0..REQUESTS {
        let id = format!("long-{number}");
        let answer = mesh.post(Protocol::Http1, &id, body.clone()).await;
        let received = mesh.app.received(&id);
        // One that is told before anything of its body was sent may still go elsewhere.
        match answer.status.as_u16() {
            200 => assert!(received.len() == 1 && received[0].body == body, "{id}"),
            status => {
                assert_eq!((status, answer.code(), received.len()), (503, "M3012", 0), "{id}");
                assert!(!answer.headers.contains_key("gauze-not-delivered"), "between proxies only");
                refused += 1;
            }
        }
    }
    assert!(refused >= 1, "some met the pod whose app does not listen");
    let stopped = mesh.web.metric("gauze_retries_stopped_total", &["why=\"body\""]).await;
    assert!(stopped >= 1.0, "{stopped}");
}

#[tokio::test]
async fn the_deadline_of_a_call_is_reduced_over_two_hops_and_held() {
    let pair = Pair::start("grpc").await;
    let mut client = Client::connect(Protocol::Grpc, pair.dial()).await.expect("a connection");
    let asked =
        with_header(request(Protocol::Grpc, "cart", "/shop.Cart/Get", "timed"), "grpc-timeout", "15S");
    client.send(asked).await.expect("an answer");
    let told = pair.app.received("timed")[0].headers["grpc-timeout"].to_str().expect("text").to_owned();
    let micros: u64 = told.strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!((1..15_000_000).contains(&micros), "{told}: less is left at the app than at the client");

    let (mesh, upstream) = (Mesh::start().await, Faulty::start().await);
    upstream.set(Fault::Hangs).await;
    let web = plain_endpoint(&mesh, upstream.address).await;
    let asked =
        with_header(request(Protocol::Grpc, "slow", "/shop.Slow/Get", "late"), "grpc-timeout", "300m");
    let mut client = Client::connect(Protocol::Grpc, web.outbound[0]).await.expect("a connection");
    let answer = client.send(asked).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.code()), (200, "M3020"));
    assert_eq!(answer.headers["grpc-status"], "4", "DEADLINE_EXCEEDED");
}

/// `web` calls `slow`, whose endpoint is outside the mesh.
async fn plain_endpoint(mesh: &Mesh, address: SocketAddr) -> Sidecar {
    let service = mesh.service_address();
    let yaml = objects::service(NAMESPACE, "slow", service, "http")
        + &objects::slice(NAMESPACE, "slow", "http", &[("slow-0", address)]);
    let pod = objects::Pod {
        namespace: NAMESPACE,
        name: "slow-0",
        app: "slow",
        version: "v1",
        account: "slow",
        address,
        meshed: false,
        annotations: &[],
    };
    mesh.apply("slow.yaml", &(yaml + "---\n" + &pod.yaml()));
    let web =
        mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..Default::default() }).await;
    web.ready().await;
    web
}

/// An app that says of every request, which it does execute, that it did not get it.
struct Liar {
    address: SocketAddr,
    heard: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Liar {
    async fn start() -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, heard) = (listener.local_addr().expect("it is bound"), Arc::default());
        let task = tokio::spawn(lie(listener, Arc::clone(&heard))).abort_handle();
        Liar { address, heard, task }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn lie(listener: TcpListener, heard: Arc<AtomicUsize>) {
    const LIE: &[u8] =
        b"HTTP/1.1 503 No\r\ngauze-not-delivered: true\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    while let Ok((mut connection, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match connection.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break, // a connection without a request
            }
        }
        if !head.is_empty() {
            heard.fetch_add(1, Ordering::Relaxed);
            let _ = connection.write_all(LIE).await;
        }
    }
}

#[tokio::test]
async fn not_delivered_is_what_a_proxy_of_the_mesh_says_and_nobody_else() {
    let mesh = Mesh::start().await;
    let (inside, outside) = (Liar::start().await, Liar::start().await);
    let address = free_address();
    let inbound = format!("--inbound={address}={}", inside.address);
    let options = SidecarOptions { arguments: &[&inbound], ..Default::default() };
    let cart = mesh.pod_at(address, "cart-0", "cart", options).await;
    let service = mesh.service_address();
    mesh.service("cart", service, "http", &[&cart]);
    let options = SidecarOptions { dials: &[service], ..Default::default() };
    let shop = mesh.pod("shop-0", "shop", None, options).await;
    let web = plain_endpoint(&mesh, outside.address).await;
    for sidecar in [&cart, &shop] {
        sidecar.ready().await;
    }
    for (what, dialled, liar) in [
        ("an app behind a sidecar", shop.outbound[0], &inside),
        ("a plain endpoint", web.outbound[0], &outside),
    ] {
        let answer = call(Protocol::Http1, dialled, "cart", "/", "lie").await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.code()), (503, ""), "{what}: as it was said");
        assert!(!answer.headers.contains_key("gauze-not-delivered"), "{what}");
        assert_eq!(liar.heard.load(Ordering::Relaxed), 1, "{what}: it was executed, and is not sent again");
    }
}
