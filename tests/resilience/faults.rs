use std::net::SocketAddr;

use crate::harness::client::Protocol;
use crate::harness::faults::{Fault, Faulty};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::harness::objects;
use crate::resilience::{ask, pod};

/// Callers in each protocol, through two sidecars or through the caller's alone, each to an upstream of its own.
struct Lane {
    name: String,
    protocol: Protocol,
    upstream: Faulty,
    dial: SocketAddr,
}

/// What a caller is told in each protocol, and how far its request came at the app, as `VISITS/EXECUTED`.
struct Row {
    name: &'static str,
    fault: Fault,
    body: usize,
    /// HTTP/1, HTTP/2, gRPC, through two sidecars.
    two: [&'static str; 3],
    /// The same through the caller's sidecar alone.
    one: [&'static str; 3],
    /// In each protocol.
    ledger: [&'static str; 3],
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Grpc];
const SMALL: usize = 100;
const LARGE: usize = 1_000_000;

const WELL: [&str; 3] = ["200", "200", "grpc 0"];
/// Said by the caller's sidecar, and by the app's.
const REFUSED: [&str; 3] = ["503 M3005", "503 M3005", "grpc 14 M3005"];
const UNREACHABLE: [&str; 3] = ["503 M3012", "503 M3012", "grpc 14 M3012"];
/// HTTP/1 cannot say it; in HTTP/2 it is tried again, in vain.
const REFUSED_STREAM: [&str; 3] = ["503 M3010", "503 M3019", "grpc 14 M3019"];
const NOT_DELIVERED: [&str; 3] = ["503 M3010", "503 M3021", "grpc 14 M3021"];
const RESET: [&str; 3] = ["503 M3010", "503 M3010", "grpc 14 M3010"];
const BROKEN: [&str; 3] = ["200 broken off"; 3];
const NO_HTTP: [&str; 3] = ["502 M3011", "502 M3011", "grpc 14 M3011"];
const SILENT: [&str; 3] = ["504 M3013", "504 M3013", "grpc 14 M3013"];
const AS_IT_IS: [&str; 3] = ["503", "503", "grpc 14"];
const TRAILERS: [&str; 3] = ["200", "200", "grpc 14"];
const NO_TRAILERS: [&str; 3] = ["200", "200", "grpc without status"];

const EXECUTED: [&str; 3] = ["1/1"; 3];
const UNSEEN: [&str; 3] = ["0/0"; 3];

fn rows() -> Vec<Row> {
    let row = |name, fault, body, two, one, ledger| Row { name, fault, body, two, one, ledger };
    vec![
        row("answers", Fault::Well, SMALL, WELL, WELL, EXECUTED),
        row("does not listen", Fault::Refuses, SMALL, UNREACHABLE, REFUSED, UNSEEN),
        row("takes connections and never reads", Fault::IsDeaf, SMALL, SILENT, SILENT, UNSEEN),
        row("resets connections with the request unread", Fault::ResetsUnread, SMALL, RESET, RESET, UNSEEN),
        row("reads the request and never answers", Fault::Hangs, SMALL, SILENT, SILENT, ["1/0"; 3]),
        row("resets the connection instead of an answer", Fault::ResetsAt(0), SMALL, RESET, RESET, EXECUTED),
        row("ends the connection instead of an answer", Fault::EndsAt(0), SMALL, RESET, RESET, EXECUTED),
        row("half-closes instead of an answer", Fault::HalfCloses, SMALL, RESET, RESET, EXECUTED),
        row("resets in the head of its answer", Fault::ResetsAt(10), SMALL, RESET, RESET, EXECUTED),
        row("ends in the head of its answer", Fault::EndsAt(10), SMALL, RESET, RESET, EXECUTED),
        row("resets in the body of its answer", Fault::ResetsInBody, SMALL, BROKEN, BROKEN, EXECUTED),
        row("ends in the body of its answer", Fault::EndsInBody, SMALL, BROKEN, BROKEN, EXECUTED),
        row("answers a byte at a time", Fault::Drips(1), SMALL, WELL, WELL, EXECUTED),
        row("answers a large request early and reads on", Fault::AnswersEarly, LARGE, WELL, WELL, EXECUTED),
        row("answers early and closes", Fault::AnswersEarlyAndCloses, LARGE, WELL, WELL, EXECUTED),
        row("answers 503 before any work", Fault::Unavailable, SMALL, AS_IT_IS, AS_IT_IS, ["1/0"; 3]),
        row(
            "answers 503 to a large request unread",
            Fault::Unavailable,
            LARGE,
            AS_IT_IS,
            AS_IT_IS,
            ["1/0"; 3],
        ),
        row(
            "says UNAVAILABLE in trailers",
            Fault::UnavailableInTrailers,
            SMALL,
            TRAILERS,
            TRAILERS,
            EXECUTED,
        ),
        row("leaves out its trailers", Fault::OmitsTrailers, SMALL, NO_TRAILERS, NO_TRAILERS, EXECUTED),
        row(
            "refuses each stream",
            Fault::RefusesStreams,
            SMALL,
            NOT_DELIVERED,
            REFUSED_STREAM,
            ["1/0", "3/0", "3/0"],
        ),
        row("answers with what is not HTTP", Fault::Babbles, SMALL, NO_HTTP, NO_HTTP, UNSEEN),
    ]
}

#[tokio::test]
async fn each_fault_of_an_upstream_is_told_as_what_it_was() {
    let (_mesh, sidecars, lanes) = lanes().await;
    let mut wrong = Vec::new();
    for (number, row) in rows().iter().enumerate() {
        let seen = futures_util::future::join_all(lanes.iter().map(|lane| told(lane, row, number))).await;
        println!("{:<45} {seen:?}", row.name);
        let wanted = row.two.iter().chain(&row.one).zip(row.ledger.iter().chain(&row.ledger));
        for ((lane, seen), (answer, ledger)) in lanes.iter().zip(&seen).zip(wanted) {
            let wanted = format!("{answer} {ledger}");
            if *seen != wanted {
                wrong.push(format!("{}, {}: {seen}, not {wanted}", row.name, lane.name));
            }
        }
    }
    drop(sidecars);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the caller is told, and what the ledger says.
async fn told(lane: &Lane, row: &Row, number: usize) -> String {
    lane.upstream.set(row.fault).await;
    let id = format!("row-{number}");
    let answer = ask(lane.protocol, lane.dial, row.body, &id, || lane.upstream.go_on()).await;
    let (visits, executed) = lane.upstream.ledger().get(&id).copied().unwrap_or_default();
    format!("{answer} {visits}/{executed}")
}

async fn lanes() -> (Mesh, Vec<Sidecar>, Vec<Lane>) {
    let mesh = Mesh::start().await;
    let mut lanes = Vec::new();
    let mut sidecars = Vec::new();
    for meshed in [true, false] {
        for protocol in PROTOCOLS {
            let upstream = Faulty::start().await;
            let path = if meshed { "two" } else { "one" };
            let name = format!("{path}-{protocol:?}").to_lowercase();
            let service = mesh.service_address();
            match meshed {
                true => {
                    let pod = pod(&mesh, &name, upstream.address).await;
                    mesh.service(&name, service, "http", &[&pod]);
                    sidecars.push(pod);
                }
                false => mesh.apply(&format!("{name}.yaml"), &plain(&name, service, upstream.address)),
            }
            lanes.push(Lane { name, protocol, upstream, dial: service });
        }
    }
    let dials: Vec<_> = lanes.iter().map(|lane| lane.dial).collect();
    let options = SidecarOptions { dials: &dials, arguments: &IMPATIENT, ..Default::default() };
    let web = mesh.pod("web-0", "web", None, options).await;
    for (lane, dial) in lanes.iter_mut().zip(&web.outbound) {
        lane.dial = *dial;
    }
    sidecars.push(web);
    for sidecar in &sidecars {
        sidecar.ready().await;
    }
    (mesh, sidecars, lanes)
}

/// So that what never answers ends within the test.
const IMPATIENT: [&str; 1] = ["--stream-idle-timeout=4s"];

/// A Service whose only endpoint is a pod without sidecar.
fn plain(name: &str, service: SocketAddr, address: SocketAddr) -> String {
    let pod = objects::Pod {
        namespace: "shop",
        name,
        app: name,
        version: "v1",
        account: "default",
        address,
        meshed: false,
        annotations: &[],
    };
    objects::service("shop", name, service, "http")
        + &objects::slice("shop", name, "http", &[(name, address)])
        + "---\n"
        + &pod.yaml()
}
