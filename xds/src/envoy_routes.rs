//! Envoy routes as the model does: arbitrary tables in a running Envoy, and requests through it to an upstream that
//! answers with what it got.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::bootstrap::v3::{Admin, Bootstrap};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use gauze_model::route::{Action, RequestHead, route};
use gauze_model::snapshot::Resource;
use gauze_model::{Name, RouteRule, RouteTable};
use http::{HeaderMap, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost::Message;

use crate::arbitrary::{BACKEND, small_table};
use crate::values::address;
use crate::{envoy, to_xds};

const TABLES: usize = 50;
const REQUESTS: usize = 20;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn envoy_routes_as_the_model_does() {
    let Some(program) = envoy::find() else { return };
    let mut runner = TestRunner::deterministic();
    let tables = vec(small_table(), TABLES).new_tree(&mut runner).unwrap().current();
    let upstream = echo();
    let running = Running::start(&program, &tables, upstream);
    for (table, listener) in tables.iter().zip(running.listeners()) {
        for request in vec(small_request(), REQUESTS).new_tree(&mut runner).unwrap().current() {
            let (wanted, seen) = (expected(table, &request), request.send(listener));
            assert_eq!(seen, wanted, "{request:?}\n{table:?}");
        }
    }
}

/// A request of few words, so that it often matches.
#[derive(Clone, Debug)]
struct Request {
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    header: Option<String>,
}

fn small_request() -> impl Strategy<Value = Request> {
    let method = prop_oneof![Just(Method::GET), Just(Method::POST)];
    let host = prop_oneof![Just("a"), Just("b.a"), Just("c.b.a"), Just("B.a:80"), Just("z")];
    let path = prop_oneof!["/", "(/[ab]{1,2}){1,3}/?", "/a//b"];
    let query = prop_oneof![Just("q=1"), Just("q=2"), Just("q=1&q=2"), Just("x")];
    let header = "[12]";
    (method, host, path, proptest::option::of(query), proptest::option::of(header)).prop_map(
        |(method, host, path, query, header)| Request {
            method,
            host: host.to_owned(),
            path,
            query: query.map(str::to_owned),
            header,
        },
    )
}

/// What comes of a request: what the client sees, or what the upstream saw.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered { status: u16, location: Option<String> },
    Forwarded { path_and_query: String, host: String, headers: Vec<String> },
}

/// The headers that rules change, as the upstream sees them.
const CHANGED: [&str; 2] = ["x-a", "x-b"];

fn expected(table: &RouteTable, request: &Request) -> Outcome {
    let mut headers = HeaderMap::new();
    if let Some(value) = &request.header {
        headers.insert("x-a", value.parse().unwrap());
    }
    let head = RequestHead {
        method: &request.method,
        authority: &request.host,
        path: &request.path,
        query: request.query.as_deref(),
        headers: &headers,
    };
    let Some(rule) = route(table, &head, &mut ()) else {
        return Outcome::Answered { status: 404, location: None };
    };
    match &rule.action {
        Action::Respond(status) => Outcome::Answered { status: status.as_u16(), location: None },
        Action::Redirect(redirect) => {
            let location = redirect.location(&rule.matches.path, &head, "http", 80);
            Outcome::Answered { status: redirect.status.as_u16(), location: Some(location) }
        }
        Action::Forward(_) => forwarded(rule, &head, headers.clone(), request),
    }
}

fn forwarded(rule: &RouteRule, head: &RequestHead<'_>, mut headers: HeaderMap, request: &Request) -> Outcome {
    rule.filters.request_headers.apply(&mut headers);
    rule.action.backends()[0].request_headers.apply(&mut headers);
    let rewritten = rule.filters.rewrite.path_and_query(&rule.matches.path, head);
    Outcome::Forwarded {
        path_and_query: rewritten.unwrap_or_else(|| request.target()),
        host: rule.filters.rewrite.host.clone().unwrap_or_else(|| request.host.clone()),
        headers: lines(&headers),
    }
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let values = |name: &'static str| {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.get_all(name).iter().map(move |value| format!("{name}: {}", text(value)))
    };
    CHANGED.into_iter().flat_map(values).collect()
}

impl Request {
    fn target(&self) -> String {
        self.query.as_ref().map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path))
    }

    fn send(&self, to: SocketAddr) -> Outcome {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let header = self.header.as_ref().map(|value| format!("x-a: {value}\r\n")).unwrap_or_default();
        let (method, target, host) = (&self.method, self.target(), &self.host);
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        if !head.contains("x-upstream: yes") {
            let location = head.lines().find_map(|line| line.strip_prefix("location: "));
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Outcome::Answered { status, location: location.map(str::to_lowercase) };
        }
        let (line, headers) = body.split_once("\r\n").unwrap();
        let host = headers.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let named = |name| headers.lines().filter(move |line| line.starts_with(&format!("{name}: ")));
        Outcome::Forwarded {
            path_and_query: line.split(' ').nth(1).unwrap().to_owned(),
            host: host.to_owned(),
            headers: CHANGED.into_iter().flat_map(named).map(str::to_owned).collect(),
        }
    }
}

/// An upstream that answers each connection with the head of its first request; it ends with the test.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer_with_head(&stream)); // Envoy may open one more than it uses
        }
    });
    address
}

fn answer_with_head(mut stream: &TcpStream) {
    let head = read_head(&mut BufReader::new(stream));
    let length = head.len();
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\nx-upstream: yes\r\ncontent-length";
    let _ = stream.write_all(format!("{answer}: {length}\r\n\r\n{head}").as_bytes());
}

fn read_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
    head
}

/// A running Envoy with a listener for each table; it ends when this is dropped.
struct Running {
    child: Child,
    admin: SocketAddr,
    tables: usize,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(program: &Path, tables: &[RouteTable], upstream: SocketAddr) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let (file, admin) = (directory.path().join("bootstrap.pb"), directory.path().join("admin"));
        std::fs::write(&file, bootstrap(tables, upstream).encode_to_vec()).unwrap();
        let log = directory.path().join("log");
        let child = Command::new(program)
            .args(["--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id"])
            .arg("--config-path")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin)
            .stderr(File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running { child, admin: upstream, tables: tables.len(), _directory: directory };
        running.admin = eventually(|| std::fs::read_to_string(&admin).ok()?.trim().parse().ok(), &log);
        running
    }

    /// Where each table listens, in order.
    fn listeners(&self) -> Vec<SocketAddr> {
        let found = eventually(
            || {
                let mut stream = TcpStream::connect(self.admin).ok()?;
                write!(stream, "GET /listeners HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).ok()?;
                // `3 routes/shop/cart/80::127.0.0.1:40001`
                let line = |line: &str| {
                    let (name, address) = line.split_once("::")?;
                    Some((name.split(' ').next()?.parse::<usize>().ok()?, address.parse().ok()?))
                };
                let found: Vec<(usize, SocketAddr)> = answer.lines().filter_map(line).collect();
                (found.len() == self.tables).then_some(found)
            },
            Path::new("/dev/null"),
        );
        let mut found = found;
        found.sort();
        found.into_iter().map(|(_, address)| address).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually<T>(mut condition: impl FnMut() -> Option<T>, log: &Path) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "{}", std::fs::read_to_string(log).unwrap_or_default());
        thread::sleep(Duration::from_millis(20));
    }
}

fn bootstrap(tables: &[RouteTable], upstream: SocketAddr) -> Bootstrap {
    let name: Name = "routes/shop/cart/80".parse().unwrap();
    let routes = tables.iter().map(|table| to_xds(&name, &Resource::Routes(Arc::new(table.clone()))));
    let mut bootstrap = envoy::bootstrap(&routes.collect::<Vec<_>>());
    let fixed = bootstrap.static_resources.as_mut().unwrap();
    fixed.clusters.clear();
    fixed.clusters.push(cluster(upstream));
    for listener in &mut fixed.listeners {
        listener.address = Some(address(SocketAddr::from(([127, 0, 0, 1], 0))));
    }
    let admin = Admin { address: Some(address(SocketAddr::from(([127, 0, 0, 1], 0)))), ..Admin::default() };
    Bootstrap { admin: Some(admin), dynamic_resources: None, ..bootstrap }
}

fn cluster(upstream: SocketAddr) -> Cluster {
    let endpoint = Endpoint { address: Some(address(upstream)), ..Endpoint::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    let group = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    let endpoints = ClusterLoadAssignment {
        cluster_name: BACKEND.to_owned(),
        endpoints: vec![group],
        ..ClusterLoadAssignment::default()
    };
    Cluster { name: BACKEND.to_owned(), load_assignment: Some(endpoints), ..Cluster::default() }
}
