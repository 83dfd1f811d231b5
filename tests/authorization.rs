//! Who may do what: each call of the table in docs/authorization.md, made and explained.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::harness::client::{Protocol, call};
use crate::harness::eventually::{PATIENCE, eventually, holds};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};
use crate::harness::programs::{program, repository};
use crate::harness::{App, objects};

mod connections; // what is open, silent or in disguise

/// `web` and somebody outside call `cart`, which speaks HTTP, and `store`, which answers bytes with the same bytes. Of
/// their ports nothing is declared.
struct Shop {
    mesh: Mesh,
    web: Sidecar,
    cart: Sidecar,
    store: Sidecar,
    app: App,
    echo: Echo,
}

/// A server that says something first, if it has a greeting, and then answers bytes with the same bytes.
struct Echo {
    address: SocketAddr,
    /// How many connections it accepted.
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

/// One call of the table.
#[derive(Clone, Copy, Debug)]
struct Cell<'a> {
    applied: &'a str,
    caller: &'a str,
    protocol: Option<Protocol>,
}

const PROTOCOLS: [Option<Protocol>; 4] =
    [Some(Protocol::Http1), Some(Protocol::Http2), Some(Protocol::Grpc), None];

#[tokio::test]
async fn every_call_ends_as_the_table_promises_and_as_explain_says() {
    let (rows, _) = page();
    assert!(rows.len() >= 14, "the table is gone: {rows:?}");
    let shop = Shop::start(b"").await;
    let mut wrong = Vec::new();
    for ([applied, caller], promised) in &rows {
        shop.apply(applied).await;
        for (protocol, promised) in PROTOCOLS.into_iter().zip(promised) {
            let cell = Cell { applied, caller, protocol };
            let (made, explained) = (shop.make(cell).await, shop.explain(cell));
            if (&made, &explained) != (promised, promised) {
                wrong.push(format!("{cell:?}: promised {promised}, was {made}, explained {explained}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is applied and who calls; what the page promises, by protocol.
type Row = ([String; 2], Vec<String>);

/// The rows of the page's table, and its documents by name.
fn page() -> (Vec<Row>, BTreeMap<String, String>) {
    let page = std::fs::read_to_string(repository().join("docs/authorization.md")).expect("the page");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let (_, calls) = page.split_once("## What becomes of a call").expect("the section");
    let rows = calls.lines().filter(|line| line.starts_with("| ")).map(cells).skip(1);
    let rows = rows.map(|row| match &row[..] {
        [applied, caller, promised @ ..] => ([applied.clone(), caller.clone()], promised.to_vec()),
        _ => panic!("a short row: {row:?}"),
    });
    let yaml = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let name = |text: &str| match text.split("# ").nth(1) {
        Some(comment) if !text.contains("metadata: {name: broken") => comment.trim().to_owned(),
        _ => text.split("{name: ").nth(1).and_then(|rest| rest.split(',').next()).expect("a name").to_owned(),
    };
    (rows.collect(), yaml.split("---\n").map(|text| (name(text), text.to_owned())).collect())
}

impl Shop {
    async fn start(greeting: &'static [u8]) -> Shop {
        let mesh = Mesh::start().await;
        let (app, echo) = (App::start("cart").await, Echo::start(greeting).await);
        let services = [mesh.service_address(), mesh.service_address()];
        let logging = SidecarOptions { arguments: &["--access-log", "json"], ..Default::default() };
        let cart = mesh.pod("cart-0", "cart", Some(&app), logging).await;
        let address = free_address();
        let inbound = format!("{address}={}", echo.address);
        let arguments = ["--inbound", inbound.as_str(), "--access-log", "json"];
        let options = SidecarOptions { arguments: &arguments, ..Default::default() };
        let store = mesh.pod_at(address, "store-0", "store", options).await;
        mesh.service("cart", services[0], "any", &[&cart]);
        mesh.service("store", services[1], "any", &[&store]);
        let options = SidecarOptions { dials: &services, ..Default::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        for sidecar in [&cart, &store, &web] {
            sidecar.ready().await;
        }
        Shop { mesh, web, cart, store, app, echo }
    }

    /// Applies one document and nothing else of the page, and waits until both sidecars have it.
    async fn apply(&self, applied: &str) {
        let (_, documents) = page();
        let document = documents.get(applied);
        let is_namespace = document.is_some_and(|text| text.contains("kind: Namespace"));
        let namespace = objects::namespace("shop", &[]);
        self.mesh.apply("namespace.yaml", document.filter(|_| is_namespace).unwrap_or(&namespace));
        let policy = document.filter(|_| !is_namespace).map_or("", String::as_str);
        self.mesh.apply("policy.yaml", policy);
        for sidecar in [&self.cart, &self.store] {
            eventually(&format!("{applied} is live at {}", sidecar.pod), async || {
                let state = self.state(sidecar).await;
                let policies: Vec<&str> = if policy.is_empty() { vec![] } else { vec![applied] };
                let mtls = if is_namespace { "strict" } else { "permissive" };
                holds(state == (mtls.to_owned(), policies.iter().map(ToString::to_string).collect()), state)
            })
            .await;
        }
    }

    /// How a sidecar takes plaintext, and the names of its policies.
    async fn state(&self, sidecar: &Sidecar) -> (String, Vec<String>) {
        let dump: serde_json::Value =
            serde_json::from_str(&sidecar.admin("/config_dump").await).expect("JSON");
        let inbound = &dump["listeners"][format!("inbound/shop/{}", sidecar.pod)]["inbound"];
        let policies = inbound["policies"].as_array().cloned().unwrap_or_default();
        let name = |policy: &serde_json::Value| policy["origin"]["name"].as_str().unwrap_or("").to_owned();
        (inbound["mtls"].as_str().unwrap_or("").to_owned(), policies.iter().map(name).collect())
    }

    fn cart_for(&self, caller: &str) -> SocketAddr {
        if caller == "mesh" { self.web.outbound[0] } else { self.cart.address }
    }

    fn store_for(&self, caller: &str) -> SocketAddr {
        if caller == "mesh" { self.web.outbound[1] } else { self.store.address }
    }

    /// Makes the call, and says in the words of the table how it ended.
    async fn make(&self, cell: Cell<'_>) -> String {
        let sidecar = if cell.protocol.is_some() { &self.cart } else { &self.store };
        let audited =
            async || sidecar.metric("gauze_authorization_verdicts_total", &["decision=\"audited\""]).await;
        let before = audited().await;
        let ended = match cell.protocol {
            Some(protocol) => self.ask(cell, protocol).await,
            None => self.say(cell).await,
        };
        if audited().await > before { format!("{ended}, audited") } else { ended }
    }

    async fn ask(&self, cell: Cell<'_>, protocol: Protocol) -> String {
        let address = self.cart_for(cell.caller);
        let id = format!("{} {} {protocol:?}", cell.applied, cell.caller);
        let answer = call(protocol, address, "cart", "/items", &id).await.expect("an answer");
        let grpc = answer.trailers.as_ref().unwrap_or(&answer.headers).get("grpc-status");
        let status = (answer.status.as_u16(), grpc.and_then(|status| status.to_str().ok()));
        let denied = if protocol == Protocol::Grpc { (200, Some("7")) } else { (403, None) };
        if answer.code().is_empty() {
            let is_well = status == (200, (protocol == Protocol::Grpc).then_some("0"));
            assert_eq!((is_well, self.app.count(&id)), (true, 1), "{id}: {status:?}");
            return "in".to_owned();
        }
        assert_eq!((status, self.app.count(&id)), (denied, 0), "{id}");
        assert!(!answer.text().contains(cell.applied), "the answer names the policy: {}", answer.text());
        answer.code().to_owned()
    }

    async fn say(&self, cell: Cell<'_>) -> String {
        let address = self.store_for(cell.caller);
        let before = self.store.admin("/metrics").await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        if hears_back(&mut stream).await {
            return "in".to_owned();
        }
        let metric = "gauze_connections_refused_total{direction=\"inbound\",error=\"";
        eventually(&format!("{cell:?}: the refusal is counted"), async || {
            let now = self.store.admin("/metrics").await;
            let more = now.lines().find(|line| line.starts_with(metric) && !before.contains(*line));
            more.map(|line| line[metric.len()..].split('"').next().unwrap_or("").to_owned())
                .ok_or("it is not")
        })
        .await
    }

    /// What `gauze explain` says of the call, in the words of the table.
    fn explain(&self, cell: Cell<'_>) -> String {
        let from = if cell.caller == "mesh" { "shop/web" } else { "outside" };
        let (method, url) = match cell.protocol {
            Some(Protocol::Grpc) => ("POST", "http://cart.shop/items"),
            Some(_) => ("GET", "http://cart.shop/items"),
            None => ("-", "tcp://store.shop:80"),
        };
        let mut command = Command::new(program("gauze"));
        command.args(["explain", from, method, url, "--offline", "--output", "json", "--directory"]);
        let output = command.arg(self.mesh.directory()).output().expect("gauze runs");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{cell:?}: {}", String::from_utf8_lossy(&output.stderr)));
        let text = said["text"].as_str().unwrap_or("");
        let audits =
            |step: &serde_json::Value| step["decided"].as_str().is_some_and(|it| it.starts_with("Audit "));
        let is_audited = said["steps"].as_array().is_some_and(|steps| steps.iter().any(audits));
        let ended = match said["verdict"].as_str() {
            Some("carried") => "in",
            Some("refused") => text.split([' ', ':']).find(|word| word.starts_with('M')).unwrap_or(text),
            _ => text,
        };
        if is_audited { format!("{ended}, audited") } else { ended.to_owned() }
    }
}

/// Whether bytes come back; else the connection was closed.
async fn hears_back(stream: &mut TcpStream) -> bool {
    let mut heard = [0; 5];
    let talk = async {
        stream.write_all(b"\x00ping").await?;
        stream.read_exact(&mut heard).await
    };
    timeout(PATIENCE, talk).await.expect("an answer, or the end").is_ok()
}

impl Echo {
    async fn start(greeting: &'static [u8]) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let serving = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                counted.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    stream.write_all(greeting).await?;
                    let (mut input, mut output) = stream.split();
                    tokio::io::copy(&mut input, &mut output).await
                });
            }
        });
        Echo { address, connections, task: serving.abort_handle() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}
