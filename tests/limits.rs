//! What a cluster's limits do under several workers, and what a failing endpoint costs: with slow and failing apps.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::harness::App;
use crate::harness::client::{Answer, Protocol, call};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::{Mesh, NAMESPACE, Sidecar, SidecarOptions};
use crate::harness::objects::{self, Pod};

/// A client in the mesh with four workers, and apps outside of it behind one Service: HTTP/1.1 to the last hop,
/// so that each request in flight needs a connection of its own.
struct Plain {
    _mesh: Mesh,
    apps: Vec<App>,
    web: Sidecar,
}

impl Plain {
    async fn start(apps: &[&str], policy: &str) -> Plain {
        let mesh = Mesh::start().await;
        let mut started = Vec::new();
        for name in apps {
            started.push(App::start(name).await);
        }
        let names: Vec<String> = apps.iter().map(|name| format!("cart-{name}")).collect();
        let pods: Vec<_> =
            names.iter().zip(&started).map(|(name, app)| (name.as_str(), app.address)).collect();
        let service = mesh.service_address();
        let mut yaml = objects::service(NAMESPACE, "cart", service, "http")
            + &objects::slice(NAMESPACE, "cart", "http", &pods);
        for (name, address) in pods {
            yaml += &format!("---\n{}", plain_pod(name, address));
        }
        mesh.apply("cart.yaml", &yaml);
        mesh.apply("policy.yaml", &traffic_policy(policy));
        let options =
            SidecarOptions { dials: &[service], arguments: &["--workers", "4"], ..SidecarOptions::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        web.ready().await;
        Plain { _mesh: mesh, apps: started, web }
    }

    /// So many calls at once, each on a connection of its own, so that all workers have some.
    async fn call_at_once(&self, count: usize, path: &str) -> Vec<Answer> {
        let calls = (0..count).map(|_| call(Protocol::Http1, self.web.outbound[0], "cart", path, "l"));
        join_all(calls).await.into_iter().map(|answer| answer.expect("an answer")).collect()
    }
}

fn plain_pod(name: &str, address: SocketAddr) -> String {
    let pod = Pod {
        namespace: NAMESPACE,
        name,
        app: "cart",
        version: "v1",
        account: "cart",
        address,
        meshed: false,
        annotations: &[],
    };
    pod.yaml()
}

fn traffic_policy(spec: &str) -> String {
    format!(
        "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: cart, namespace: {NAMESPACE}}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, name: cart}}]\n  {spec}\n"
    )
}

/// How many were served, and the codes of those that were not.
fn sorted(answers: &[Answer]) -> (usize, Vec<&str>) {
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let mut codes: Vec<_> = answers.iter().filter(|a| a.status != 200).map(Answer::code).collect();
    codes.sort_unstable();
    codes.dedup();
    (served, codes)
}

#[tokio::test]
async fn requests_in_flight_are_limited_for_the_whole_process() {
    let plain = Plain::start(&["a"], "limits: {requests: 7}").await;
    let answers = plain.call_at_once(30, "/slow/1500").await;
    assert_eq!(sorted(&answers), (7, vec!["M3203"]));
    let answers = plain.call_at_once(7, "/slow/1").await;
    assert_eq!(sorted(&answers), (7, vec![]), "all places were given back");
}

#[tokio::test]
async fn what_finds_no_connection_waits_in_a_bounded_queue() {
    let plain = Plain::start(&["a"], "limits: {connections: 2, pending: 3}").await;
    let began = Instant::now();
    let answers = plain.call_at_once(20, "/slow/1500").await;
    assert_eq!(sorted(&answers), (5, vec!["M3202"]), "two at once, three wait and are served");
    assert!(began.elapsed() >= Duration::from_millis(4_500), "never more than two at once");
    // In whatever worker the two idle connections are, those that wait elsewhere get their turn. More than the queue
    // holds may be refused until they have given way.
    for _ in 0..8 {
        let answers = plain.call_at_once(3, "/slow/1").await;
        assert_eq!(sorted(&answers), (3, vec![]), "all places were given back");
    }
    assert!(began.elapsed() < Duration::from_secs(40), "and do not wait until idle connections are swept");
}

#[tokio::test]
async fn without_a_queue_what_finds_no_connection_is_refused() {
    let plain = Plain::start(&["a"], "limits: {connections: 2, pending: 0}").await;
    let answers = plain.call_at_once(20, "/slow/1500").await;
    assert_eq!(sorted(&answers), (2, vec!["M3202"]));
}

#[tokio::test]
async fn least_request_and_ewma_both_spare_an_endpoint_that_is_slow() {
    for balance in ["PeakEwma", "LeastRequest"] {
        let policy = format!("balance: {{type: {balance}}}");
        let plain = Plain::start(&["a", "b", "slow"], &policy).await;
        plain.apps[2].be_slow(Duration::from_millis(400));
        let until = Instant::now() + Duration::from_secs(4);
        let caller = async || {
            while Instant::now() < until {
                plain.call_at_once(1, "/").await;
            }
        };
        join_all((0..12).map(|_| caller())).await;
        let counts: Vec<usize> = plain.apps.iter().map(|app| app.count("l")).collect();
        let all: usize = counts.iter().sum();
        assert!(counts[2] * 6 < all, "{balance}: {counts:?}");
    }
}

#[tokio::test]
async fn a_failing_endpoint_is_ejected_shown_and_comes_back() {
    let policy =
        "balance: {type: RoundRobin}\n  outlierDetection: {baseEjectionTime: 2s, maxEjectionTimeJitter: 0s}";
    let plain = Plain::start(&["a", "b"], policy).await;
    let clusters = async || plain.web.admin("/clusters").await;
    plain.apps[1].answer_with(503);
    eventually("the failing one is ejected", async || {
        plain.call_at_once(4, "/").await;
        let said = clusters().await;
        holds(said.contains("consecutive_gateway_failure") && said.contains("\"until\""), said)
    })
    .await;
    assert!(
        plain.web.metric("gauze_ejections_total", &["reason=\"consecutive_gateway_failure\""]).await >= 1.0
    );
    plain.apps[1].answer_with(200);
    eventually("it comes back", async || {
        plain.call_at_once(1, "/").await;
        holds(plain.web.metric("gauze_endpoints_ejected", &[]).await == 0.0, "it is still out")
    })
    .await;
    let before = plain.apps[1].count("l");
    plain.call_at_once(10, "/").await;
    assert!(plain.apps[1].count("l") >= before + 4, "and gets its part");
}
