//! What kind of bytes a connection carries, found out without losing any.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::harness::client::{Protocol, call};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::harness::process::NEVER;
use crate::harness::{App, objects};
use crate::http::Pair;
use crate::splitting::Canary;

const DEADLINE: Duration = Duration::from_secs(10);

/// Reads until `wanted` bytes came.
async fn read(stream: &mut TcpStream, wanted: usize) -> Vec<u8> {
    let mut bytes = vec![0; wanted];
    timeout(DEADLINE, stream.read_exact(&mut bytes)).await.expect("in time").expect("so many bytes");
    bytes
}

/// `web` dials `store`, a TCP server of ours, through both sidecars; nothing declares its protocol.
async fn tcp_pair(mesh: &Mesh, port_name: &str, server: SocketAddr) -> (Sidecar, Sidecar) {
    let service = mesh.service_address();
    let inbound = format!("{}={server}", crate::harness::mesh::free_address());
    let arguments = ["--inbound", inbound.as_str()];
    let (address, _) = inbound.split_once('=').expect("LISTEN=APP");
    let options = SidecarOptions { arguments: &arguments, ..Default::default() };
    let store = mesh.pod_at(address.parse().expect("an address"), "store-0", "store", options).await;
    mesh.service("store", service, port_name, &[&store]);
    let web =
        mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..Default::default() }).await;
    store.ready().await;
    web.ready().await;
    (web, store)
}

#[tokio::test]
async fn a_connection_that_is_silent_for_three_seconds_is_still_routed_and_split_as_http() {
    let canary = Canary::start(Mesh::start().await, [0, 100]).await;
    let mut stream = TcpStream::connect(canary.web.outbound[0]).await.expect("a connection");
    let mut byte = [0];
    let early = timeout(Duration::from_secs(3), stream.read(&mut byte)).await;
    assert!(early.is_err(), "the silence was answered with {early:?}");
    stream
        .write_all(b"GET /late HTTP/1.1\r\nhost: cart\r\nx-id: late\r\nconnection: close\r\n\r\n")
        .await
        .expect("open");
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((canary.apps[0].count("late"), canary.apps[1].count("late")), (0, 1));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_without_a_byte_from_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                stream.write_all(b"220 store ready\r\n").await.expect("open");
                let heard = read(&mut stream, 6).await;
                stream.write_all(&heard).await.expect("open");
            });
        }
    });
    let mesh = Mesh::start().await;
    let (web, _store) = tcp_pair(&mesh, "any", server).await;
    let mut stream = TcpStream::connect(web.outbound[0]).await.expect("a connection");
    assert_eq!(read(&mut stream, 17).await, b"220 store ready\r\n");
    stream.write_all(b"QUIT\r\n").await.expect("open");
    assert_eq!(read(&mut stream, 6).await, b"QUIT\r\n");
    serving.abort();
}

#[tokio::test]
async fn opaque_bytes_pass_and_each_side_may_end_its_half_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // Answers only after the client's half has ended: a half-close that is lost hangs here.
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.expect("the client's half ends");
            heard.reverse();
            stream.write_all(&heard).await.expect("our half is open");
        }
    });
    let mesh = Mesh::start().await;
    let (web, _store) = tcp_pair(&mesh, "tcp-store", server).await;
    let said: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let mut stream = TcpStream::connect(web.outbound[0]).await.expect("a connection");
    let (mut half_in, mut half_out) = stream.split();
    let mut heard = Vec::new();
    let talk = async {
        half_out.write_all(&said).await.expect("open");
        half_out.shutdown().await.expect("open");
        half_in.read_to_end(&mut heard).await.expect("an answer");
    };
    timeout(DEADLINE, talk).await.expect("in time");
    heard.reverse();
    assert!(heard == said, "{} of {} bytes", heard.len(), said.len());
    web.counts("gauze_streams_total", &["direction=\"outbound\"", "tls=\"mutual\""], 1.0).await;
    serving.abort();
}

#[tokio::test]
async fn an_address_outside_the_mesh_passes_at_once_with_the_control_plane_down() {
    // ::1 lies outside --mesh-networks, as a public address does.
    let outside = App::serve("outside", TcpListener::bind("[::1]:0").await.expect("IPv6 loopback"));
    let mut mesh = Mesh::start().await;
    let options = SidecarOptions { dials: &[outside.address], ..Default::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    web.ready().await;
    mesh.kill_control_plane();
    let answer = call(Protocol::Http1, web.outbound[0], "example.com", "/", "out").await.expect("an answer");
    assert_eq!(answer.app(), "outside");
}

#[tokio::test]
async fn a_mesh_address_never_asked_before_is_refused_when_nobody_can_be_asked() {
    let pair = Pair::start("http").await;
    let mut pair = pair;
    pair.mesh.kill_control_plane();
    let asked = std::time::Instant::now();
    let refused = call(Protocol::Http1, pair.dial(), "cart", "/", "unasked").await;
    let waited = asked.elapsed();
    println!("refused after {waited:?} (bound 2 s)");
    let answer = refused.expect("an HTTP answer");
    assert_eq!(answer.status, 503);
    assert!(answer.code().starts_with('M'), "{:?}", answer.headers);
    assert_eq!(pair.app.count("unasked"), 0, "nothing was sent in silence");
    assert!(waited >= NEVER, "it was given the time to be answered");
}

#[tokio::test]
async fn an_address_that_nobody_knows_passes_through() {
    let mesh = Mesh::start().await;
    let unknown = App::start("unknown").await; // 127.0.0.1 lies inside --mesh-networks and in no object
    let options = SidecarOptions { dials: &[unknown.address], ..Default::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    web.ready().await;
    let answer = call(Protocol::Http1, web.outbound[0], "unknown", "/", "u").await.expect("an answer");
    assert_eq!(answer.app(), "unknown");
}

#[tokio::test]
async fn the_apps_own_tls_travels_inside_the_mesh_untouched() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = listener.local_addr().expect("bound");
    let certificate = rcgen::generate_simple_self_signed(["store".to_owned()]).expect("a certificate");
    let acceptor = crate::mtls::server_tls(&certificate);
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut stream = acceptor.accept(stream).await.expect("the app's own TLS");
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).await.expect("five bytes");
            stream.write_all(&heard).await.expect("open");
            stream.flush().await.expect("open");
        }
    });
    let mesh = Mesh::start().await;
    let (web, _store) = tcp_pair(&mesh, "any", server).await;
    let connector = crate::mtls::client_tls(&certificate);
    let stream = TcpStream::connect(web.outbound[0]).await.expect("a connection");
    let name = rustls::pki_types::ServerName::try_from("store").expect("a name");
    let mut stream =
        timeout(DEADLINE, connector.connect(name, stream)).await.expect("in time").expect("TLS end to end");
    stream.write_all(b"hello").await.expect("open");
    let mut heard = [0; 5];
    timeout(DEADLINE, stream.read_exact(&mut heard)).await.expect("in time").expect("five bytes");
    assert_eq!(&heard, b"hello");
    serving.abort();
}

#[tokio::test]
async fn a_declared_opaque_port_is_split_by_connection() {
    let servers = [line_server(b"1").await, line_server(b"2").await];
    let mesh = Mesh::start().await;
    let [root, v1, v2] = [mesh.service_address(), mesh.service_address(), mesh.service_address()];
    let mut pods = Vec::new();
    for (name, server) in ["store-1", "store-2"].into_iter().zip(servers) {
        let address = crate::harness::mesh::free_address();
        let inbound = format!("{address}={server}");
        let options = SidecarOptions { arguments: &["--inbound", &inbound], ..Default::default() };
        pods.push(mesh.pod_at(address, name, "store", options).await);
    }
    mesh.service("store", root, "tcp", &[&pods[0], &pods[1]]);
    mesh.service("store-v1", v1, "tcp", &[&pods[0]]);
    mesh.service("store-v2", v2, "tcp", &[&pods[1]]);
    let split = objects::split(
        crate::harness::mesh::NAMESPACE,
        "store",
        "store",
        &[("store-v1", 0), ("store-v2", 1)],
    );
    mesh.apply("split.yaml", &split);
    let web = mesh.pod("web-0", "web", None, SidecarOptions { dials: &[root], ..Default::default() }).await;
    web.ready().await;
    for pod in &pods {
        pod.ready().await;
    }
    for _ in 0..10 {
        let mut stream = TcpStream::connect(web.outbound[0]).await.expect("a connection");
        assert_eq!(read(&mut stream, 1).await, b"2", "all connections belong to v2");
    }
}

/// A server that greets each connection so, and then waits for its end.
async fn line_server(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let _ = stream.write_all(greeting).await;
                let _ = stream.read(&mut [0]).await;
            });
        }
    });
    address
}
