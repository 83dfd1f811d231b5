//! An upstream that misbehaves by name, can be switched while it runs, and keeps a ledger of what reached it:
//! HTTP/1.1, HTTP/2 and gRPC on one port. What goes wrong between bytes is done below HTTP, in `wire`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::eventually::PATIENCE;
use super::mesh::free_address;
use super::wire::{Cut, Line, Wire};

/// What an upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing wrong: it reads the request and answers 200.
    Well,
    /// Nobody listens at its port.
    Refuses,
    /// Takes connections, and never reads a byte.
    IsDeaf,
    /// Resets each connection when bytes are there, and reads none of them.
    ResetsUnread,
    /// Reads the request, and never answers.
    Hangs,
    /// Resets the connection when so many bytes of the answer were written (0: before it answers).
    ResetsAt(usize),
    /// Ends the connection likewise.
    EndsAt(usize),
    /// Ends its half of the connection instead of an answer, and reads on.
    HalfCloses,
    /// Answers half of the body, and resets the connection when it is told to [`Faulty::go_on`].
    ResetsInBody,
    /// The same, but ends it.
    EndsInBody,
    /// Writes a byte of the answer each time that so many milliseconds have passed.
    Drips(u64),
    /// Answers 200 on the head of the request, and reads the rest afterwards.
    AnswersEarly,
    /// The same, but closes the connection instead of reading the rest.
    AnswersEarlyAndCloses,
    /// Answers 503 (gRPC: UNAVAILABLE, trailers only) on the head of the request: no work was done.
    Unavailable,
    /// Does the work, and says UNAVAILABLE in trailers after a message.
    UnavailableInTrailers,
    /// Does the work, and ends the answer without trailers.
    OmitsTrailers,
    /// Resets each HTTP/2 stream with REFUSED_STREAM: the request was not looked at (RFC 9113, 8.7).
    RefusesStreams,
    /// Answers with something that is not HTTP.
    Babbles,
}

/// How far one request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visit {
    /// All of its body was read.
    pub whole: bool,
    /// The work was done.
    pub executed: bool,
}

/// A running upstream; ends when dropped.
pub(crate) struct Faulty {
    pub address: SocketAddr,
    order: watch::Sender<Fault>,
    in_force: watch::Receiver<Fault>,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    visits: Mutex<BTreeMap<String, Vec<Visit>>>,
    may_go_on: watch::Sender<bool>,
}

/// A body that is broken off is broken off in its middle.
const HALF: usize = 10_000;

impl Faulty {
    /// Listens at an address of its own, where nothing else will listen while it refuses.
    pub(crate) async fn start() -> Faulty {
        Faulty::start_at(free_address()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Faulty {
        let (order, orders) = watch::channel(Fault::Well);
        let (told, in_force) = watch::channel(Fault::Refuses);
        let state = Arc::new(State::default());
        let task = tokio::spawn(run(address, orders, told, state.clone())).abort_handle();
        let upstream = Faulty { address, order, in_force, state, task };
        upstream.set(Fault::Well).await;
        upstream
    }

    /// From now on it does this; connections that are open end first.
    pub(crate) async fn set(&self, fault: Fault) {
        self.state.may_go_on.send_replace(false);
        self.order.send_replace(fault);
        let mut in_force = self.in_force.clone();
        in_force.wait_for(|now| *now == fault).await.expect("it runs as long as its handle lives");
    }

    /// Lets answers that wait in the middle of their bodies break off.
    pub(crate) fn go_on(&self) {
        self.state.may_go_on.send_replace(true);
    }

    /// Every time that the request with this `x-id` came: its head was read.
    pub(crate) fn visits(&self, id: &str) -> Vec<Visit> {
        self.state.visits().get(id).cloned().unwrap_or_default()
    }

    /// How often requests came, and how often their work was done, by `x-id`.
    pub(crate) fn ledger(&self) -> BTreeMap<String, (usize, usize)> {
        let executed = |visits: &[Visit]| visits.iter().filter(|visit| visit.executed).count();
        self.state
            .visits()
            .iter()
            .map(|(id, visits)| (id.clone(), (visits.len(), executed(visits))))
            .collect()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn visits(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Visit>>> {
        self.visits.lock().expect("no test panics with the ledger open")
    }

    /// Notes that the head of a request came; returns which visit of this id it is.
    fn arrive(&self, id: &str) -> usize {
        let mut visits = self.visits();
        let visits = visits.entry(id.to_owned()).or_default();
        visits.push(Visit::default());
        visits.len() - 1
    }

    fn note(&self, id: &str, visit: usize, change: impl FnOnce(&mut Visit)) {
        if let Some(visit) = self.visits().get_mut(id).and_then(|visits| visits.get_mut(visit)) {
            change(visit);
        }
    }
}

/// Listens again where it listened before. The port may be somebody's for a moment: while nothing listens there, the
/// kernel gives it to others.
pub(super) async fn listen(address: SocketAddr) -> TcpListener {
    let until = Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < until, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
    }
}

/// Does what is ordered, one order after another.
async fn run(
    address: SocketAddr,
    mut orders: watch::Receiver<Fault>,
    told: watch::Sender<Fault>,
    state: Arc<State>,
) {
    loop {
        let fault = *orders.borrow_and_update();
        let listener = match fault {
            Fault::Refuses => None,
            _ => Some(listen(address).await),
        };
        let mut connections = JoinSet::new();
        told.send_replace(fault);
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = accept(listener, fault, &state, &mut connections) => {}
        }
        connections.shutdown().await;
    }
}

async fn accept(
    listener: Option<TcpListener>,
    fault: Fault,
    state: &Arc<State>,
    connections: &mut JoinSet<()>,
) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream, fault, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, fault: Fault, state: Arc<State>) {
    let line = Line::default();
    let wire = Wire::new(stream, line.clone());
    match fault {
        Fault::IsDeaf => return wire.hold().await,
        Fault::ResetsUnread => return wire.reset_unread().await,
        Fault::Babbles => return wire.babble().await,
        Fault::Drips(milliseconds) => line.drip(Duration::from_millis(milliseconds)),
        _ => {}
    }
    let service =
        hyper::service::service_fn(move |request| answer(request, fault, line.clone(), state.clone()));
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(wire), service));
    // An error is what was ordered, or the peer's way to leave.
    let _ = connection.as_mut().await;
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(
    request: Request<Incoming>,
    fault: Fault,
    line: Line,
    state: Arc<State>,
) -> Result<Response<Body>, h2::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (id, is_grpc) = (header("x-id").to_owned(), header("content-type") == "application/grpc");
    let visit = state.arrive(&id);
    match fault {
        Fault::Unavailable => return Ok(unavailable(is_grpc)),
        Fault::RefusesStreams => return Err(h2::Reason::REFUSED_STREAM.into()),
        Fault::AnswersEarly => {
            state.note(&id, visit, |visit| visit.executed = true);
            tokio::spawn(request.into_body().collect());
            return Ok(respond(is_grpc, Bytes::from_static(b"early")));
        }
        Fault::AnswersEarlyAndCloses => {
            state.note(&id, visit, |visit| visit.executed = true);
            let mut response = respond(is_grpc, Bytes::from_static(b"early"));
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            return Ok(response);
        }
        _ => {}
    }
    let Ok(body) = request.into_body().collect().await else { return Ok(text(StatusCode::BAD_REQUEST)) };
    let body = body.to_bytes();
    state.note(&id, visit, |visit| visit.whole = true);
    if fault == Fault::Hangs {
        std::future::pending::<()>().await;
    }
    state.note(&id, visit, |visit| visit.executed = true);
    match fault {
        Fault::ResetsAt(bytes) => line.cut(Cut::Reset, bytes),
        Fault::EndsAt(bytes) => line.cut(Cut::End, bytes),
        Fault::HalfCloses => line.cut(Cut::HalfClose, 0),
        Fault::ResetsInBody => return Ok(broken_off(is_grpc, Cut::Reset, line, state)),
        Fault::EndsInBody => return Ok(broken_off(is_grpc, Cut::End, line, state)),
        Fault::UnavailableInTrailers => return Ok(with_trailers(body, Some("14"))),
        Fault::OmitsTrailers => return Ok(with_trailers(body, None)),
        _ => {}
    }
    Ok(respond(is_grpc, body))
}

/// What is answered when all is well: the request's body.
fn respond(is_grpc: bool, body: Bytes) -> Response<Body> {
    if is_grpc {
        return with_trailers(body, Some("0"));
    }
    Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync())
}

fn with_trailers(body: Bytes, status: Option<&'static str>) -> Response<Body> {
    let trailers = status.map(|status| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        Ok(Frame::trailers(trailers))
    });
    let frames = std::iter::once(Ok(Frame::data(body))).chain(trailers);
    grpc(StreamBody::new(stream::iter(frames)).boxed_unsync())
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn unavailable(is_grpc: bool) -> Response<Body> {
    if !is_grpc {
        return text(StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut response = grpc(Full::default().map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
    response
}

fn text(status: StatusCode) -> Response<Body> {
    let mut response = respond(false, Bytes::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

/// Half of a body now, and the end of the connection when it is told to go on.
fn broken_off(is_grpc: bool, how: Cut, line: Line, state: Arc<State>) -> Response<Body> {
    let half = || Ok(Frame::data(Bytes::from(vec![b'x'; HALF])));
    let second = async move {
        // An error means that the upstream is gone, and so is this answer.
        let _ = state.may_go_on.subscribe().wait_for(|may| *may).await;
        line.cut(how, 0);
        half()
    };
    let frames = stream::StreamExt::chain(stream::iter([half()]), stream::once(second));
    let body = StreamBody::new(frames).boxed_unsync();
    if is_grpc { grpc(body) } else { Response::new(body) }
}
