//! An app that answers what it was asked and keeps a ledger of it: HTTP/1.1, HTTP/2, gRPC and lines on one port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::lines;

/// What the app received of one request.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: http::Method,
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
struct Books {
    /// Requests by their `x-id`, each time that one came.
    received: BTreeMap<String, Vec<Received>>,
    connections: usize,
    /// What every answer waits for, and its status where it is not to be 200.
    delay: Duration,
    status: Option<StatusCode>,
}

const OPEN: &str = "no test panics with the books open";

impl Books {
    /// Of a line there is nothing to keep but that it came.
    fn note(&mut self, what: &str, id: &str) {
        if what != "executed" {
            return;
        }
        let line = Received {
            method: http::Method::CONNECT,
            target: String::new(),
            version: Version::HTTP_09,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        self.received.entry(id.to_owned()).or_default().push(line);
    }
}

/// A running app; ends when dropped.
pub struct App {
    pub address: SocketAddr,
    books: Arc<Mutex<Books>>,
    task: AbortHandle,
}

impl App {
    /// Listens on a free port of the loopback.
    pub async fn start(name: &str) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        App::serve(name, listener)
    }

    pub fn serve(name: &str, listener: TcpListener) -> App {
        let address = listener.local_addr().expect("it is bound");
        let books = Arc::new(Mutex::new(Books::default()));
        let task = tokio::spawn(accept(listener, name.to_owned(), books.clone())).abort_handle();
        App { address, books, task }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect(OPEN)
    }

    /// How many requests came whose `x-id` starts so.
    pub fn count(&self, prefix: &str) -> usize {
        let books = self.books();
        books.received.iter().filter(|(id, _)| id.starts_with(prefix)).map(|(_, all)| all.len()).sum()
    }

    /// Every time that the request with this `x-id` came.
    pub fn received(&self, id: &str) -> Vec<Received> {
        self.books().received.get(id).cloned().unwrap_or_default()
    }

    /// All ids, with how often each came.
    pub fn ids(&self) -> BTreeMap<String, usize> {
        self.books().received.iter().map(|(id, all)| (id.clone(), all.len())).collect()
    }

    /// Every answer takes so long from now on.
    pub fn be_slow(&self, delay: Duration) {
        self.books().delay = delay;
    }

    /// Every answer has this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.books().status = Some(StatusCode::from_u16(status).expect("a status"));
    }

    /// How many connections it accepted so far.
    pub fn connections(&self) -> usize {
        self.books().connections
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, name: String, books: Arc<Mutex<Books>>) {
    let mut connections = JoinSet::new(); // dropped with this task, and all connections with it
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        books.lock().expect(OPEN).connections += 1;
        connections.spawn(serve_connection(stream, name.clone(), books.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, name: String, books: Arc<Mutex<Books>>) {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    if stream.peek(&mut first).await.is_ok_and(|read| read > 0) && lines::is_opaque(first[0]) {
        let (_end, ending) = watch::channel(false);
        let _ =
            lines::serve(stream, &name, ending, |what, id| books.lock().expect(OPEN).note(what, id)).await;
        return;
    }
    let service = hyper::service::service_fn(move |request| {
        let (name, books) = (name.clone(), books.clone());
        async move { Ok::<_, Infallible>(answer(request, &name, &books).await) }
    });
    // An error is the peer's way to leave; the ledger shows what was lost by it.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// `/status/503` answers so; `/slow/200` waits so many milliseconds; `/bytes/N` answers N bytes; `/hang` never answers.
async fn answer(request: Request<Incoming>, name: &str, books: &Mutex<Books>) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return text(StatusCode::BAD_REQUEST, "the request's body broke off");
    };
    let received = Received {
        method: head.method,
        target: head.uri.to_string(),
        version: head.version,
        body: body.to_bytes(),
        headers: head.headers,
    };
    let is_grpc = received.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
    let id = received.headers.get("x-id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
    let (delay, status) = {
        let books = books.lock().expect(OPEN);
        (books.delay, books.status)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut response = match is_grpc {
        true => grpc(received.body.clone()),
        false => plain(head.uri.path(), name, &received).await,
    };
    if let Some(status) = status {
        *response.status_mut() = status;
    }
    if received.method == http::Method::HEAD {
        response = without_body(response);
    }
    response.headers_mut().insert("x-app", HeaderValue::from_str(name).expect("a plain name"));
    books.lock().expect(OPEN).received.entry(id).or_default().push(received);
    response
}

async fn plain(path: &str, name: &str, received: &Received) -> Response<AnswerBody> {
    let (verb, argument) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let number = argument.parse::<u64>().unwrap_or(0);
    match verb {
        "status" => text(StatusCode::from_u16(number as u16).expect("a status"), name),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            text(StatusCode::OK, name)
        }
        "bytes" => text(StatusCode::OK, &"x".repeat(number as usize)),
        "hang" => std::future::pending().await,
        "trailers" => with_trailers(received.body.clone(), &[("x-sum", "42")]),
        _ if !received.body.is_empty() => text(StatusCode::OK, &String::from_utf8_lossy(&received.body)),
        _ => text(StatusCode::OK, name),
    }
}

/// Echoes the message, with the status in trailers.
fn grpc(message: Bytes) -> Response<AnswerBody> {
    let mut response = with_trailers(message, &[("grpc-status", "0"), ("x-done", "yes")]);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn with_trailers(body: Bytes, trailers: &[(&'static str, &'static str)]) -> Response<AnswerBody> {
    let trailers: HeaderMap = trailers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let names: Vec<&str> = trailers.keys().map(|name| name.as_str()).collect();
    let announced = HeaderValue::from_str(&names.join(", ")).expect("plain names");
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert("trailer", announced);
    response
}

/// What HEAD is answered: the length alone. hyper sees to that in HTTP/1.1 only.
fn without_body(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    response.map(|_| Full::default().boxed_unsync())
}

fn text(status: StatusCode, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).boxed_unsync());
    *response.status_mut() = status;
    response
}
