use std::net::SocketAddr;

use crate::harness::client::Protocol;
use crate::harness::eventually::{eventually, holds};
use crate::harness::faults::{Fault, Faulty};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::resilience::{ask, pod};

/// `web` calls the same two pods under several Services, each with a TrafficPolicy of its own: one pod can be made
/// to fail, the other is always well.
struct Shop {
    mesh: Mesh,
    faulty: Faulty,
    well: Faulty,
    web: Sidecar,
    _carts: [Sidecar; 2],
}

/// Named policies: what is said of retries.
const POLICIES: [(&str, &str); 6] = [
    ("default", ""),
    ("never", "retry: {attempts: 0}"),
    ("codes", "retry: {codes: [503]}"),
    ("reset", "retry: {retryOn: [reset]}"),
    ("unavailable", "retry: {retryOn: [unavailable]}"),
    ("per-try", "retry: {retryOn: [reset]}\n  timeouts: {backendRequest: 700ms}"),
];

/// A request that meets the pod that fails: what the caller is told, then how far it came at the pod that fails
/// and at the one that is well, as `VISITS/EXECUTED`.
struct Row {
    name: &'static str,
    policy: &'static str,
    fault: Fault,
    protocol: Protocol,
    body: usize,
    wanted: &'static str,
}

const SMALL: usize = 100;
/// More than is kept to be sent again.
const LARGE: usize = 200_000;

fn rows() -> Vec<Row> {
    use Fault::{Hangs, Refuses, RefusesStreams, ResetsAt, Unavailable, UnavailableInTrailers};
    use Protocol::{Grpc, Http1, Http2};
    let row =
        |name, policy, fault, protocol, body, wanted| Row { name, policy, fault, protocol, body, wanted };
    vec![
        row("what cannot connect is done elsewhere", "default", Refuses, Http1, SMALL, "200 0/0 1/1"),
        row("unless it is too large to be kept", "default", Refuses, Http1, LARGE, "503 M3012 0/0 0/0"),
        row("also in HTTP/2", "default", Refuses, Http2, SMALL, "200 0/0 1/1"),
        row("also a gRPC call", "default", Refuses, Grpc, SMALL, "grpc 0 0/0 1/1"),
        row("unless retries are off", "never", Refuses, Http1, SMALL, "503 M3012 0/0 0/0"),
        row("a refused stream is done elsewhere", "default", RefusesStreams, Http2, SMALL, "200 1/0 1/1"),
        row("what may have been executed is not", "default", ResetsAt(0), Http1, SMALL, "503 M3010 1/1 0/0"),
        row("unless the policy says so", "reset", ResetsAt(0), Http1, SMALL, "200 1/1 1/1"),
        row(
            "a reset is not the 503 that tells of it",
            "codes",
            ResetsAt(0),
            Http1,
            SMALL,
            "503 M3010 1/1 0/0",
        ),
        row("a status is an answer", "default", Unavailable, Http1, SMALL, "503 1/0 0/0"),
        row("unless the policy names it", "codes", Unavailable, Http1, SMALL, "200 1/0 1/1"),
        row("also in HTTP/2", "codes", Unavailable, Http2, SMALL, "200 1/0 1/1"),
        row(
            "what is too large to be kept is not repeated",
            "codes",
            Unavailable,
            Http1,
            LARGE,
            "503 1/0 0/0",
        ),
        row("a gRPC status is none of HTTP", "codes", Unavailable, Grpc, SMALL, "grpc 14 1/0 0/0"),
        row("but can be named", "unavailable", Unavailable, Grpc, SMALL, "grpc 0 1/0 1/1"),
        row("not after a message", "unavailable", UnavailableInTrailers, Grpc, SMALL, "grpc 14 1/1 0/0"),
        row("a try that takes too long is repeated", "per-try", Hangs, Http1, SMALL, "200 1/0 1/1"),
    ]
}

impl Shop {
    async fn start() -> Shop {
        let mesh = Mesh::start().await;
        let (faulty, well) = (Faulty::start().await, Faulty::start().await);
        let carts = [pod(&mesh, "cart-0", faulty.address).await, pod(&mesh, "cart-1", well.address).await];
        let mut dials = Vec::new();
        for (name, retry) in POLICIES {
            dials.push(mesh.service_address());
            mesh.service(name, dials[dials.len() - 1], "http", &[&carts[0], &carts[1]]);
            mesh.apply(&format!("policy-{name}.yaml"), &policy(name, retry));
        }
        let web =
            mesh.pod("web-0", "web", None, SidecarOptions { dials: &dials, ..Default::default() }).await;
        for sidecar in carts.iter().chain([&web]) {
            sidecar.ready().await;
        }
        Shop { mesh, faulty, well, web, _carts: carts }
    }

    fn dial(&self, policy: &str) -> SocketAddr {
        let at = POLICIES.iter().position(|(name, _)| *name == policy).expect("a policy of the table");
        self.web.outbound[at]
    }

    /// What became of the first request that met the fault: among a few, since endpoints take turns.
    async fn meets(&self, row: &Row, number: usize) -> String {
        self.faulty.set(row.fault).await;
        let mut fate = String::new();
        for turn in 0..4 {
            let id = format!("row-{number}-{turn}");
            let told = ask(row.protocol, self.dial(row.policy), row.body, &id, || ()).await;
            let count = |upstream: &Faulty| upstream.ledger().get(&id).copied().unwrap_or_default();
            let (faulty, well) = (count(&self.faulty), count(&self.well));
            fate = format!("{told} {}/{} {}/{}", faulty.0, faulty.1, well.0, well.1);
            if faulty != (0, 0) || well != (1, 1) {
                break;
            }
        }
        fate
    }
}

/// Turn about, so that every second request meets the pod that fails; it is never ejected.
fn policy(name: &str, retry: &str) -> String {
    format!(
        "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, name: {name}}}]\n  balance: {{type: RoundRobin}}\n  \
         outlierDetection: {{consecutiveGatewayFailure: 0}}\n  retryBudget: {{percent: 100}}\n  {retry}\n"
    )
}

#[tokio::test]
async fn what_is_sent_again_goes_to_another_endpoint_and_nothing_else_is_sent_again() {
    let shop = Shop::start().await;
    let mut wrong = Vec::new();
    for (number, row) in rows().iter().enumerate() {
        let fate = shop.meets(row, number).await;
        println!("{:<50} {:<12} {fate}", row.name, row.policy);
        if fate != row.wanted {
            wrong.push(format!("{} ({}): {fate}, not {}", row.name, row.policy, row.wanted));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_ejected_left_alone_and_comes_back() {
    let shop = Shop::start().await;
    let text = policy("codes", "retry: {codes: [503]}");
    let text =
        text.replace("consecutiveGatewayFailure: 0", "baseEjectionTime: 3s, maxEjectionTimeJitter: 0s");
    shop.mesh.apply("policy-codes.yaml", &text);
    shop.faulty.set(Fault::Unavailable).await;
    let address = shop.dial("codes");
    let state = eventually("the pod that fails is ejected", async || {
        let told = ask(Protocol::Http1, address, SMALL, "failing", || ()).await;
        assert_eq!(told, "200", "its calls are retried meanwhile");
        let state = shop.ejection().await;
        holds(state["state"] == "ejected", &state).map_err(ToString::to_string).map(|()| state.clone())
    })
    .await;
    assert_eq!(state["reason"], "consecutive_gateway_failure", "{state}");
    shop.web.counts("gauze_ejections_total", &["cart"], 1.0).await;
    shop.faulty.set(Fault::Well).await;
    eventually("it is well again, and back", async || {
        let told = ask(Protocol::Http1, address, SMALL, "well-again", || ()).await;
        assert_eq!(told, "200");
        holds(!shop.faulty.visits("well-again").is_empty(), "nothing reaches it")
    })
    .await;
}

impl Shop {
    /// What `web` says of the pod that fails, in the Service `codes`.
    async fn ejection(&self) -> serde_json::Value {
        let clusters: serde_json::Value =
            serde_json::from_str(&self.web.admin("/clusters").await).expect("JSON");
        let endpoints =
            clusters["cluster/shop/codes/80"]["endpoints"].as_array().cloned().unwrap_or_default();
        let endpoint = endpoints.into_iter().find(|endpoint| endpoint["workload"]["pod"] == "cart-0");
        endpoint.map(|endpoint| endpoint["ejection"].clone()).unwrap_or_default()
    }
}
