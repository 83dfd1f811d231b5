//! What one request costs each sidecar: instructions, as valgrind counts them, and allocations. Both are the same
//! whatever else the machine does, so a request path that grows fatter is seen before anybody has to measure time.
//!
//! What was accepted stands in `cost/accepted.json`. Who makes it worse for a reason, or better, writes it anew:
//! `GAUZE_COST=accept cargo test --release -p gauze-tests -- cost::`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use crate::harness::App;
use crate::harness::client::{Client, Protocol};
use crate::harness::eventually::{holds, within};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::harness::programs::{example, program, repository};

/// Enough that what a connection costs at its start hardly counts.
const REQUESTS: u32 = 1000;

/// How much worse than accepted is let pass. Processors have other instructions for copying and for TLS, which valgrind
/// counts as they are; allocations differ only where messages meet in another order.
const INSTRUCTIONS_MORE: f64 = 1.25;
const ALLOCATIONS_MORE: f64 = 1.10;

/// For one request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

/// By path, as in `http1 outbound`.
type Costs = BTreeMap<String, Cost>;

#[tokio::test]
async fn a_request_costs_no_more_instructions_and_allocations_than_accepted() {
    if program("gauze-proxy").components().any(|part| part.as_os_str() == "debug") {
        return println!("skipped: what is accepted is what the release profile costs; add --release");
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        let missing = "valgrind is missing: install it (apt install valgrind)";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        return println!("skipped: {missing}");
    }
    let mut measured = Costs::new();
    for (name, port_name, protocol) in [
        ("http1", "http", Protocol::Http1),
        ("http2", "h2c", Protocol::Http2),
        ("opaque", "tcp", Protocol::Opaque),
    ] {
        let [outbound, inbound] = measure(port_name, protocol).await;
        measured.insert(format!("{name} outbound"), outbound);
        measured.insert(format!("{name} inbound"), inbound);
    }
    let written = serde_json::to_string_pretty(&measured).expect("numbers");
    println!("{written}");
    let path = repository().join("tests/cost/accepted.json");
    if std::env::var("GAUZE_COST").as_deref() == Ok("accept") {
        return std::fs::write(&path, written + "\n").expect("the checkout is ours");
    }
    let accepted: Costs =
        serde_json::from_slice(&std::fs::read(&path).expect("it is committed")).expect("costs");
    let worse: Vec<String> =
        measured.iter().filter_map(|(path, cost)| worse(path, cost, accepted.get(path))).collect();
    assert!(
        worse.is_empty(),
        "{}\nIf that is for a good reason: GAUZE_COST=accept cargo test --release -p gauze-tests -- cost::",
        worse.join("\n")
    );
}

/// What a path costs more than was accepted.
fn worse(path: &str, cost: &Cost, accepted: Option<&Cost>) -> Option<String> {
    let Some(accepted) = accepted else { return Some(format!("{path}: nothing was accepted yet")) };
    let is_worse = cost.instructions > accepted.instructions * INSTRUCTIONS_MORE
        || cost.allocations > accepted.allocations * ALLOCATIONS_MORE;
    is_worse.then(|| format!("{path}: {cost:?}, accepted {accepted:?}"))
}

/// Two sidecars under valgrind, one connection, one request after another: what outbound and inbound spent, per request.
async fn measure(port_name: &str, protocol: Protocol) -> [Cost; 2] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [inbound, outbound] = ["inbound", "outbound"].map(|name| folder.path().join(name));
    let mesh = Mesh::start().await;
    let app = App::start("cart").await;
    let service = mesh.service_address();
    mesh.be_patient("cart");
    let counted =
        |output: &Path| counted(output).into_iter().map(|word| &*word.leak()).collect::<Vec<&str>>();
    let (of_cart, of_web) = (counted(&inbound), counted(&outbound));
    let patient = SidecarOptions { arguments: &PATIENT, ..SidecarOptions::default() };
    let cart = SidecarOptions { program: &of_cart, ..patient };
    let cart = mesh.pod("cart-0", "cart", Some(&app), cart).await;
    mesh.service("cart", service, port_name, &[&cart]);
    let web = SidecarOptions { program: &of_web, dials: &[service], ..patient };
    let web = mesh.pod("web-0", "web", None, web).await;
    call_often(&web, protocol).await;
    [cost_of(web, &outbound).await, cost_of(cart, &inbound).await]
}

/// Programs run some fifty times slower here, beside whatever else runs.
const SLOW: Duration = Duration::from_secs(300);
const PATIENT: [&str; 6] = ["--handshake-timeout", "60s", "--answer-timeout", "60s", "--drain-time", "0s"];

/// The sidecar that counts its allocations, under valgrind, which counts its instructions thread by thread.
fn counted(output: &Path) -> Vec<String> {
    let to = format!("--callgrind-out-file={}", output.display());
    let program = example("counted").display().to_string();
    ["valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes", &to, &program]
        .map(str::to_owned)
        .to_vec()
}

async fn call_often(web: &Sidecar, protocol: Protocol) {
    let mut client = None;
    // The first answer needs certificates, configuration and a handshake, all under valgrind.
    within(SLOW, "the first answer", async || {
        let mut fresh =
            Client::connect(protocol, web.outbound[0]).await.map_err(|error| error.to_string())?;
        let answer = fresh.send(request(protocol)).await.map_err(|error| error.to_string())?;
        holds(answer.status == 200, answer.text())?;
        client = Some(fresh);
        Ok::<_, String>(())
    })
    .await;
    let mut client = client.expect("it has answered");
    for _ in 1..REQUESTS {
        let answer = client.send(request(protocol)).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn request(protocol: Protocol) -> Request<Full<Bytes>> {
    let target = if protocol == Protocol::Http2 { "http://cart/items?page=1" } else { "/items?page=1" };
    let request = Request::get(target).header("x-id", "cost").header("user-agent", "cost");
    let request = if protocol == Protocol::Http1 { request.header("host", "cart") } else { request };
    request.body(Full::default()).expect("a request")
}

/// What its threads that carry traffic spent until now; the main one has configuration and certificates.
async fn cost_of(mut sidecar: Sidecar, output: &Path) -> Cost {
    sidecar.process.terminate().await;
    let log = sidecar.process.log();
    let allocations = log.lines().find_map(|line| line.strip_prefix("allocations: ")?.parse::<f64>().ok());
    let folder = output.parent().expect("a folder");
    let name = format!("{}-", output.file_name().expect("a name").display());
    let files = std::fs::read_dir(folder).expect("the folder is ours").flatten();
    let of_threads = files.filter(|file| file.file_name().to_string_lossy().starts_with(&name));
    let instructions: f64 = of_threads.filter_map(|file| instructions(&file.path())).sum();
    assert!(instructions > 0.0, "valgrind counted nothing\n{log}");
    let per_request = |total: f64| (total / f64::from(REQUESTS)).round();
    Cost {
        instructions: per_request(instructions),
        allocations: (allocations.expect(&log) / f64::from(REQUESTS) * 10.0).round() / 10.0,
    }
}

/// From a file of callgrind's; `None` for that of the main thread.
fn instructions(path: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(path).expect("callgrind wrote it");
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<f64>().ok());
    (value("thread:")? > 1.0).then(|| value("totals:"))?
}
