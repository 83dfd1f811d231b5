//! How a sidecar ends in a pod: kubelet sends SIGTERM when the app has ended, and a Job is complete when the sidecar is.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::harness::client::{Client, Protocol, call, request};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::SidecarOptions;
use crate::http::Pair;

/// A second to finish, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn after_sigterm_what_is_in_flight_arrives_and_nothing_idle_is_waited_for() {
    let pair = Pair::start("http").await;
    let dials = [pair.mesh.service_address(), pair.mesh.service_address()];
    pair.mesh.service("requests", dials[0], "http", &[&pair.cart]);
    pair.mesh.service("bytes", dials[1], "tcp", &[&pair.cart]);
    // As the injector writes it.
    let options = SidecarOptions { dials: &dials, arguments: &["--drain-time=1s"], ..Default::default() };
    let mut job = pair.mesh.pod("job-0", "job", None, options).await;
    job.ready().await;
    let (requests, bytes) = (job.outbound[0], job.outbound[1]);

    let mut idle = Client::connect(Protocol::Http1, requests).await.expect("a connection");
    idle.send(request(Protocol::Http1, "requests", "/", "idle")).await.expect("an answer");
    let _silent = TcpStream::connect(bytes).await.expect("a connection");
    let slow =
        tokio::spawn(async move { call(Protocol::Http1, requests, "cart", "/slow/700", "slow").await });
    eventually("the slow request is under way", async || {
        let clusters = job.admin("/clusters").await;
        holds(clusters.contains("\"requests\": 1"), clusters)
    })
    .await;

    let told = Instant::now();
    assert!(job.process.terminate().await.success());
    let took = told.elapsed();
    let answer = slow.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200);
    println!("ended {took:?} after SIGTERM");
    assert!(took < BOUND, "{took:?}");
}
