//! How a sidecar goes: ordered to drain when its pod begins to end, told to end (SIGTERM) when the app has ended. A Job
//! is complete when its sidecar is.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::App;
use crate::harness::client::{Answer, Client, Protocol, call, request};
use crate::harness::eventually::{eventually, holds};
use crate::harness::load::Load;
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::harness::programs::program;
use crate::http::Pair;

/// A second to finish, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(1500);
/// As the injector writes it: SIGTERM comes when the app has ended.
const IN_A_POD: &[&str] = &["--drain-time=0s"];

/// `gauze-proxy drain`, as kubelet runs it before it stops a pod's containers; what it prints.
fn order_drain(sidecar: &Sidecar) -> String {
    let socket = sidecar.process.said("admin_socket");
    let drain = Command::new(program("gauze-proxy")).args(["drain", "--admin-socket", &socket]).output();
    let drain = drain.expect("it runs");
    assert!(drain.status.success(), "{}", String::from_utf8_lossy(&drain.stderr));
    String::from_utf8_lossy(&drain.stdout).into_owned()
}

/// What `/ready` says.
async fn readiness(sidecar: &Sidecar) -> (u16, String) {
    let address = sidecar.process.address("metrics");
    let answer = call(Protocol::Http1, address, "admin", "/ready", "").await.expect("the port answers");
    (answer.status.as_u16(), answer.text())
}

fn says_close(answer: &Answer) -> bool {
    answer.headers.get("connection").is_some_and(|value| value == "close")
}

#[tokio::test]
async fn after_sigterm_what_is_in_flight_arrives_and_nothing_idle_is_waited_for() {
    let pair = Pair::start("http").await;
    let dials = [pair.mesh.service_address(), pair.mesh.service_address()];
    pair.mesh.service("requests", dials[0], "http", &[&pair.cart]);
    pair.mesh.service("bytes", dials[1], "tcp", &[&pair.cart]);
    let options = SidecarOptions { dials: &dials, arguments: IN_A_POD, ..Default::default() };
    let mut job = pair.mesh.pod("job-0", "job", None, options).await;
    job.ready().await;
    let (requests, bytes) = (job.outbound[0], job.outbound[1]);

    let mut idle = Client::connect(Protocol::Http1, requests).await.expect("a connection");
    idle.send(request(Protocol::Http1, "requests", "/", "idle")).await.expect("an answer");
    // One that never said anything, and one that is open to the server.
    let _silent = TcpStream::connect(bytes).await.expect("a connection");
    let mut open = TcpStream::connect(bytes).await.expect("a connection");
    open.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it is open");
    assert_ne!(open.read(&mut [0; 64]).await.expect("it is open"), 0);
    let slow =
        tokio::spawn(async move { call(Protocol::Http1, requests, "cart", "/slow/300", "slow").await });
    eventually("the slow request is under way", async || {
        let clusters = job.admin("/clusters").await;
        holds(clusters.contains("\"requests\": 1,") || clusters.contains("\"requests\": 1\n"), clusters)
    })
    .await;

    let told = Instant::now();
    assert!(job.process.terminate().await.success());
    let took = told.elapsed();
    let answer = slow.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200);
    println!("ended {took:?} after SIGTERM");
    assert!(took < BOUND, "{took:?}");
    let log = job.process.log();
    assert!(!log.contains("cutting off"), "something idle was waited for: {log}");
}

#[tokio::test]
async fn an_order_to_drain_sends_callers_elsewhere_and_leaves_the_apps_own_calls_alone() {
    let pair = Pair::start("http").await;
    let own = pair.mesh.service_address();
    pair.mesh.service("own", own, "http", &[&pair.cart]);
    let app = App::start("both").await;
    let options = SidecarOptions { dials: &[own], arguments: IN_A_POD, ..Default::default() };
    let mut both = pair.mesh.pod("both-0", "both", Some(&app), options).await;
    both.ready().await;
    let (inward, outward) = (both.address, both.outbound[0]);
    let ask = |protocol, id: &'static str| request(protocol, "both", "/", id);
    let mut keeps = Vec::new();
    for (protocol, address) in [
        (Protocol::Http1, inward),
        (Protocol::Http2, inward),
        (Protocol::Http1, outward),
        (Protocol::Http2, outward),
    ] {
        let mut client = Client::connect(protocol, address).await.expect("a connection");
        let answer = client.send(ask(protocol, "before")).await.expect("an answer");
        assert!(!says_close(&answer));
        keeps.push(client);
    }

    assert_eq!(order_drain(&both), "draining\n");
    assert_eq!(order_drain(&both), "draining already\n");
    let (status, why) = readiness(&both).await;
    assert!(status == 503 && why.contains("draining"), "{why}");
    assert_eq!(both.metric("gauze_draining", &[]).await, 1.0);

    // Whoever has not heard of it is served, and told.
    let [ref mut kept1, ref mut kept2, ref mut own1, ref mut own2] = keeps[..] else { unreachable!("four") };
    assert!(says_close(&kept1.send(ask(Protocol::Http1, "kept")).await.expect("an answer")));
    eventually("GOAWAY ends the idle HTTP/2 connection", async || holds(kept2.is_closed(), "open")).await;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Grpc] {
        let mut new = Client::connect(protocol, inward).await.expect("a connection");
        let answer = new.send(ask(protocol, "new")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{protocol:?}");
        eventually("told to go elsewhere", async || {
            holds(says_close(&answer) || new.is_closed(), answer.headers.clone())
        })
        .await;
    }
    for (client, protocol) in [(own1, Protocol::Http1), (own2, Protocol::Http2)] {
        for _ in 0..3 {
            let answer = client.send(ask(protocol, "own")).await.expect("an answer");
            assert!(answer.status == 200 && !says_close(&answer) && !client.is_closed(), "{protocol:?}");
        }
    }
    assert!(both.process.terminate().await.success());
}

#[tokio::test]
async fn a_bare_process_drains_on_sigterm_and_ends_after_its_drain_time() {
    let pair = Pair::start("http").await;
    let Pair { mesh, app: _app, cart: Sidecar { mut process, address, pod, outbound }, web: _web } = pair;
    let ending = async {
        let told = Instant::now();
        assert!(process.terminate().await.success());
        told.elapsed()
    };
    let told = eventually("callers are told to go elsewhere", async || {
        let answer =
            call(Protocol::Http1, address, "cart", "/", "late").await.map_err(|error| error.to_string())?;
        holds(says_close(&answer), answer.headers.clone()).map_err(|headers| format!("{headers:?}"))?;
        Ok::<_, String>(answer)
    });
    let (took, told) = tokio::join!(ending, told);
    assert_eq!(told.status, 200);
    println!("{pod} ended {took:?} after SIGTERM");
    assert!(took >= Duration::from_secs(5), "{took:?}");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    drop((mesh, outbound));
}

#[tokio::test]
async fn pods_that_are_replaced_one_after_another_under_load_lose_no_request() {
    let mesh = Mesh::start().await;
    let service = mesh.service_address();
    let apps = [App::start("cart-0").await, App::start("cart-1").await, App::start("cart-2").await];
    let options = SidecarOptions { arguments: IN_A_POD, ..Default::default() };
    let mut old = mesh.pod("cart-0", "cart", Some(&apps[0]), options).await;
    old.ready().await;
    mesh.service("cart", service, "http", &[&old]);
    let web =
        mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..Default::default() }).await;
    web.ready().await;
    let load = Load::start("roll", web.outbound[0], "cart", 60);
    load.send_more(60).await;
    for (number, app) in apps.iter().enumerate().skip(1) {
        let new = mesh.pod(&format!("cart-{number}"), "cart", Some(app), options).await;
        new.ready().await;
        mesh.service("cart", service, "http", &[&old, &new]);
        eventually("the new pod is called", async || holds(app.count("roll") > 0, app.count("roll"))).await;
        // As kubelet and the endpoints controller do it: at the same time, and the callers hear of it later.
        order_drain(&old);
        load.send_more(30).await;
        mesh.service("cart", service, "http", &[&new]);
        load.send_more(30).await;
        let told = Instant::now();
        assert!(old.process.terminate().await.success());
        println!("{} ended {:?} after SIGTERM", old.pod, told.elapsed());
        old = new;
    }
    load.send_more(60).await;
    let report = load.finish().await;
    println!("{} requests, 2 pods replaced", report.outcomes.len());
    report.assert_nothing_lost(&[&apps[0], &apps[1], &apps[2]]);
}
