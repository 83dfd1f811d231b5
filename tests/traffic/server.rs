//! An app as a process of its own: HTTP/1.1, HTTP/2, gRPC and lines on any port. Its ledger is a file, so that it
//! outlives the app: what was written when the app was killed is there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::net;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::lines;

/// How far requests came, by id: how often their heads were read, how often they were executed.
pub type Came = BTreeMap<String, (usize, usize)>;

/// How long an app that ends waits for the first byte of a connection that it has just accepted.
const NEWCOMERS: Duration = Duration::from_secs(1);
/// How long it listens on after that: a request may be on its way on every kept connection.
const LINGER: Duration = Duration::from_millis(200);

/// An app, and where it notes what it received.
pub struct Server {
    name: String,
    ledger: File,
    /// What every answer takes.
    delay: Duration,
}

/// The connections of an app, to be ended as an app does that finishes what it holds.
pub struct Open {
    ending: watch::Sender<bool>,
    connections: JoinSet<()>,
}

/// Reads a ledger, or several one after another.
///
/// # Panics
/// If it is no ledger.
pub fn read_ledger(text: &str) -> Came {
    let mut came = Came::new();
    for line in text.lines() {
        let (what, id) = line.split_once(' ').expect("a line of the ledger");
        let times = came.entry(id.to_owned()).or_default();
        match what {
            "arrived" => times.0 += 1,
            _ => times.1 += 1,
        }
    }
    came
}

impl Server {
    /// One that appends to the ledger at this path.
    ///
    /// # Panics
    /// It cannot be opened.
    pub fn new(name: &str, ledger: &Path, delay: Duration) -> Arc<Server> {
        let ledger = File::options().create(true).append(true).open(ledger);
        Arc::new(Server { name: name.to_owned(), ledger: ledger.expect("the ledger"), delay })
    }

    /// Serves whoever connects, until dropped.
    pub async fn accept(self: &Arc<Server>, listener: &TcpListener, open: &mut Open) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            open.serve(self, stream);
        }
    }

    /// What the kernel has accepted for the app is the app's: serves it, and listens no more.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn close(self: &Arc<Server>, listener: TcpListener, open: &mut Open) {
        // The kernel itself is asked: tokio knows only of those who came before it last looked.
        let listener = listener.into_std().expect("a listener of this runtime");
        loop {
            match listener.accept() {
                Ok((stream, _)) => open.serve(self, of_tokio(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {} // they have left already
            }
        }
    }

    fn note(&self, what: &str, id: &str) {
        if id.is_empty() {
            return; // a probe
        }
        // One write of one line: it is there whole, or not at all.
        (&self.ledger).write_all(format!("{what} {id}\n").as_bytes()).expect("the ledger can be written");
    }

    /// Echoes the body; each step is in the ledger before the next begins.
    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let header =
            |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let (id, is_grpc) = (header("x-id").to_owned(), header("content-type") == "application/grpc");
        self.note("arrived", &id);
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        let Ok(body) = body else { return Response::new(Full::default().boxed()) };
        self.note("executed", &id);
        if !id.is_empty() {
            tokio::time::sleep(self.delay).await;
        }
        let mut response = match is_grpc {
            true => Response::new(Full::new(body).with_trailers(async { Some(Ok(fine())) }).boxed()),
            false => Response::new(Full::new(body).boxed()),
        };
        if is_grpc {
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        response.headers_mut().insert("x-app", HeaderValue::from_str(&self.name).expect("a plain name"));
        response
    }
}

fn of_tokio(stream: net::TcpStream) -> TcpStream {
    stream
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(stream))
        .expect("a stream for this runtime")
}

/// What gRPC says behind a whole answer.
fn fine() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

impl Default for Open {
    fn default() -> Open {
        Open { ending: watch::Sender::new(false), connections: JoinSet::new() }
    }
}

impl Open {
    fn serve(&mut self, server: &Arc<Server>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        self.connections.spawn(connection(server.clone(), stream, self.ending.subscribe()));
        while self.connections.try_join_next().is_some() {}
    }

    /// Answers what was begun, and ends what is idle.
    pub async fn end(mut self) {
        self.ending.send_replace(true);
        while self.connections.join_next().await.is_some() {}
    }
}

/// An error is the peer's way to leave; the ledger shows what was lost by it.
async fn connection(server: Arc<Server>, stream: TcpStream, mut ending: watch::Receiver<bool>) {
    let Some(first) = first_byte(&stream, &mut ending).await else { return };
    if lines::is_opaque(first) {
        let _ = lines::serve(stream, &server.name, ending, |what, id| server.note(what, id)).await;
        return;
    }
    let told = ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, told) = (server.clone(), told.clone());
        async move {
            let is_http1 = request.version() < Version::HTTP_2;
            let mut response = server.answer(request).await;
            if is_http1 && *told.borrow() {
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = serving.as_mut() => return,
        () = lines::told_to_end(&mut ending) => {}
    }
    if timeout(LINGER, serving.as_mut()).await.is_ok() {
        return;
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

/// Looks at what a connection begins with; `None`: it ended, or has nothing to say to an app that ends.
async fn first_byte(stream: &TcpStream, ending: &mut watch::Receiver<bool>) -> Option<u8> {
    let mut byte = [0];
    let peeked = tokio::select! {
        peeked = stream.peek(&mut byte) => peeked,
        () = lines::told_to_end(ending) => timeout(NEWCOMERS, stream.peek(&mut byte)).await.ok()?,
    };
    peeked.ok().filter(|read| *read > 0).map(|_| byte[0])
}
