//! Two sidecars before a server that reads raw bytes and answers with raw bytes, and a client beside that is well.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::harness::client::{Client, Protocol, request};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};

const DEADLINE: Duration = Duration::from_secs(20);

/// One request as the server of raw bytes read it: strictly, and knowing nothing of any proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `POST /row HTTP/1.1`.
    pub line: String,
    /// Lower-case names, in the order in which they came.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().chain(&self.trailers).filter(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    fn is_of_the_healthy(&self) -> bool {
        self.line.contains("/healthy")
    }
}

/// A server that keeps whatever came whole, and answers each request that is not the healthy client's by its script.
pub(crate) struct RawServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// What no reader would take for a request.
    nonsense: Vec<String>,
    script: Option<Script>,
}

/// What is answered, in one piece, and whether the connection ends behind it.
#[derive(Clone)]
pub(crate) struct Script {
    pub bytes: Vec<u8>,
    pub then_end: bool,
}

impl RawServer {
    pub(crate) async fn start() -> RawServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        RawServer { address, state, task: task.abort_handle() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The requests since the last call, without those of the healthy client.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        let mut state = self.state();
        assert_eq!(state.nonsense, Vec::<String>::new(), "the proxy sent what is no HTTP");
        state.seen.drain(..).filter(|seen| !seen.is_of_the_healthy()).collect()
    }

    /// From now on requests are answered so; `None`: with 200.
    pub(crate) fn answer_with(&self, script: Option<Script>) {
        self.state().script = script;
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it open")
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut first = [0; 3];
    if stream.peek(&mut first).await.is_ok() && first == *b"PRI" {
        return serve_http2(stream, state).await;
    }
    let mut buffer = Vec::new();
    loop {
        let seen = match read_request(&mut stream, &mut buffer).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return,
            Err(nonsense) => return lock(&state).nonsense.push(nonsense),
        };
        let healthy = seen.is_of_the_healthy();
        let script = {
            let mut state = lock(&state);
            state.seen.push(seen);
            state.script.clone().filter(|_| !healthy)
        };
        let well =
            || Script { bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(), then_end: false };
        let Script { bytes, then_end } = script.unwrap_or_else(well);
        if stream.write_all(&bytes).await.is_err() || then_end {
            return;
        }
    }
}

/// HTTP/2 arrives as HTTP/2; a library reads it, whose own strictness is not in question here.
async fn serve_http2(stream: TcpStream, state: Arc<Mutex<State>>) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?;
            let text =
                |value: &http::HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
            let fields = |map: &http::HeaderMap| {
                map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
            };
            let target = head.uri.path_and_query().map_or("", |target| target.as_str());
            let seen = Seen {
                line: format!("{} {target} HTTP/2", head.method),
                fields: fields(&head.headers),
                trailers: body.trailers().map(fields).unwrap_or_default(),
                body: body.to_bytes().to_vec(),
            };
            lock(&state).seen.push(seen);
            Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from_static(b"ok"))))
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// The next request, once it is whole; `None` when the connection has ended before that.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Seen>, String> {
    loop {
        if let Some((seen, length)) = parse_request(buffer)? {
            buffer.drain(..length);
            return Ok(Some(seen));
        }
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            _ => return Ok(None),
        }
    }
}

/// By the letter of RFC 9112 and nothing beyond it.
fn parse_request(bytes: &[u8]) -> Result<Option<(Seen, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
    let nonsense = |what: &str| Err(format!("{what} in {text:?}"));
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    if text.contains(['\0', '\u{1}', '\u{7f}']) || text.replace("\r\n", "").contains(['\r', '\n']) {
        return nonsense("a stray control character");
    }
    if line.split(' ').count() != 3 || !line.ends_with(" HTTP/1.1") {
        return nonsense("no request line");
    }
    let Some(fields) = lines.map(field).collect::<Option<Vec<_>>>() else { return nonsense("no field") };
    let mut seen = Seen { line, fields, body: Vec::new(), trailers: Vec::new() };
    let (lengths, codings) = (seen.values("content-length"), seen.values("transfer-encoding"));
    let length = match (&lengths[..], &codings[..]) {
        ([], []) => Some(0),
        ([length], []) => Some(length.parse::<usize>().map_err(|_| format!("a length of {length:?}"))?),
        ([], ["chunked"]) => None,
        _ => return nonsense("two readings of the body"),
    };
    if seen.values("host").len() != 1 {
        return nonsense("not one host");
    }
    let body = &bytes[end + 4..];
    let taken = match length {
        Some(length) if body.len() < length => return Ok(None),
        Some(length) => {
            seen.body = body[..length].to_vec();
            length
        }
        None => match read_chunks(body, &mut seen)? {
            Some(taken) => taken,
            None => return Ok(None),
        },
    };
    Ok(Some((seen, end + 4 + taken)))
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let is_token = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    is_token.then(|| (name.to_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn read_chunks(bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let plain = size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(&size, 16).ok().filter(|_| plain);
        let Some(size) = size else { return Err(format!("a chunk of {:?}", &bytes[at..at + end])) };
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end".to_owned());
        }
        seen.body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        at += end + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        seen.trailers.push(field(&line).ok_or_else(|| format!("a trailer of {line:?}"))?);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// `web` calls `cart`, whose app is a server of raw bytes; strangers call `cart` in plaintext.
pub(crate) struct Stage {
    pub mesh: Mesh,
    pub server: RawServer,
    pub web: Sidecar,
    pub cart: Sidecar,
    healthy: Healthy,
}

/// Where bytes are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Of `web`, as its app does.
    Outbound,
    /// Of `cart`, as somebody outside of the mesh does.
    Inbound,
}

impl Stage {
    /// The port of `cart` has this name, which declares its protocol.
    pub(crate) async fn start(port_name: &str) -> Stage {
        let mesh = Mesh::start().await;
        let server = RawServer::start().await;
        let service = mesh.service_address();
        let address = free_address();
        let inbound = format!("{address}={}", server.address);
        let arguments = ["--inbound", &inbound, "--access-log", "json"];
        let options = SidecarOptions { arguments: &arguments, ..Default::default() };
        let cart = mesh.pod_at(address, "cart-0", "cart", options).await;
        mesh.service("cart", service, port_name, &[&cart]);
        mesh.be_patient("cart"); // the healthy client's requests are not to fail because the machine is busy
        let arguments = ["--access-log", "json"];
        let options = SidecarOptions { dials: &[service], arguments: &arguments, ..Default::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        cart.ready().await;
        web.ready().await;
        let healthy = Healthy::start([web.outbound[0], cart.address]);
        Stage { mesh, server, web, cart, healthy }
    }

    pub(crate) fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Outbound => self.web.outbound[0],
            Port::Inbound => self.cart.address,
        }
    }

    /// Whose port it is.
    pub(crate) fn sidecar(&self, port: Port) -> &Sidecar {
        match port {
            Port::Outbound => &self.web,
            Port::Inbound => &self.cart,
        }
    }

    /// How often a sidecar has counted a refusal by this code, of requests and of connections.
    pub(crate) async fn refusals(&self, port: Port, code: &str) -> f64 {
        let label = format!("error=\"{code}\"");
        let sidecar = self.sidecar(port);
        let connections = sidecar.metric("gauze_connections_refused_total", &[&label]).await;
        connections + sidecar.metric("gauze_requests_total", &[&label]).await
    }

    /// Waits until one more refusal by this code than before is counted, and no two; and for its line in a log.
    pub(crate) async fn tells(&self, what: &str, port: Port, code: &str, before: f64) {
        eventually(&format!("{what}: {code} is counted once"), async || {
            let counted = self.refusals(port, code).await - before;
            assert!(counted < 2.0, "{what}: {code} is counted {counted} times");
            holds(counted == 1.0, counted)
        })
        .await;
        let process = &self.sidecar(port).process;
        eventually(&format!("{what}: {code} is logged"), async || {
            let logged =
                process.log().contains(code) || process.new_lines().iter().any(|line| line.contains(code));
            holds(logged, "not in the logs")
        })
        .await;
    }

    /// All that was well went on, and nobody panicked.
    pub(crate) async fn check(mut self) {
        let served = self.healthy.check();
        println!("beside it {served} requests were served, and none failed");
        for sidecar in [&mut self.web, &mut self.cart] {
            let log = sidecar.process.log();
            assert!(!log.contains("panicked"), "{log}");
            assert!(sidecar.process.terminate().await.success());
        }
    }
}

/// A client that asks again and again on a connection of its own to each of these.
struct Healthy {
    outcomes: Arc<Mutex<(usize, Vec<String>)>>,
    tasks: Vec<AbortHandle>,
}

impl Healthy {
    fn start(addresses: [SocketAddr; 2]) -> Healthy {
        let outcomes = Arc::new(Mutex::new((0, Vec::new())));
        let tasks = addresses.map(|address| tokio::spawn(ask(address, Arc::clone(&outcomes))).abort_handle());
        Healthy { outcomes, tasks: tasks.into() }
    }

    /// How many were served; none may have failed.
    fn check(&self) -> usize {
        self.tasks.iter().for_each(AbortHandle::abort);
        let outcomes = self.outcomes.lock().expect("nobody panics with them open");
        assert_eq!(outcomes.1, Vec::<String>::new(), "somebody else was disturbed");
        assert!(outcomes.0 >= 2, "only {} requests beside", outcomes.0);
        outcomes.0
    }
}

async fn ask(address: SocketAddr, outcomes: Arc<Mutex<(usize, Vec<String>)>>) {
    let mut client = Client::connect(Protocol::Http1, address).await.expect("a connection");
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        pace.tick().await;
        let answer = client.send(request(Protocol::Http1, "cart", "/healthy", "healthy")).await;
        let mut outcomes = outcomes.lock().expect("nobody panics with them open");
        match answer {
            Ok(answer) if answer.status == 200 && answer.text() == "ok" => outcomes.0 += 1,
            Ok(answer) => outcomes.1.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => return outcomes.1.push(error.to_string()),
        }
    }
}

/// Writes bytes, ends its direction, and reads all that comes back.
pub(crate) async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let write = async {
        // Whoever is refused may be cut off before all is written.
        let _ = writing.write_all(bytes).await;
        let _ = writing.shutdown().await;
    };
    let read = timeout(DEADLINE, reading.read_to_end(&mut answer));
    let (_, read) = tokio::join!(write, read);
    assert!(read.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&answer));
    answer
}

/// Status, code and body of each response in these bytes; interim ones are passed over.
pub(crate) fn answers(bytes: &[u8]) -> Vec<(u16, String, String)> {
    let mut rest = String::from_utf8_lossy(bytes).into_owned();
    let mut answers = Vec::new();
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if (102..200).contains(&status) {
            rest = behind.to_owned();
            continue;
        }
        let length = field("content-length").parse().unwrap_or(behind.len()).min(behind.len());
        answers.push((status, field("gauze-error"), behind[..length].to_owned()));
        rest = behind[length..].to_owned();
    }
    if !rest.is_empty() {
        answers.push((0, "no response".to_owned(), rest));
    }
    answers
}
