//! One app of the shop: HTTP/1.1, HTTP/2 and gRPC on one port. It calls the next app in the same
//! protocol in which it was called, answers with who served, and keeps a ledger of what it received.
//! `gauze demo` runs it as a process, docs/shop.yaml in pods.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use super::call::{self, Answer, CALLER, Protocol, Question, REQUEST_ID, RUN};
use super::client::{self, Call, CallError, Client};
use super::ledger::{Book, Ledger};
use super::signals;
use crate::exit::Exit;

/// Which app of the shop this process is.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Its name: web, cart, payments
    #[arg(long)]
    service: String,
    #[arg(long)]
    version: String,
    #[arg(long, env = "POD_NAME")]
    pod: String,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Whom it calls for every request, and where: NAME=HOST:PORT
    #[arg(long, value_parser = parse_upstream)]
    calls: Vec<(String, String)>,
    /// Answer 503 to every call before any work is done
    #[arg(long)]
    unavailable: bool,
    /// End when stdin ends: the parent is gone
    #[arg(long)]
    with_parent: bool,
}

fn parse_upstream(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("is not of the form NAME=HOST:PORT")?;
    Ok((name.to_owned(), client::parse_address(address)?))
}

type Body = BoxBody<Bytes, Infallible>;

struct App {
    service: String,
    version: String,
    pod: String,
    upstreams: Vec<(String, Client)>,
    unavailable: bool,
    book: Mutex<Book>,
}

/// Serves until the process is told to stop; then it answers what it has begun, and says what it received.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    if arguments.with_parent {
        super::children::end_with_parent();
    }
    let told_to_stop = signals::told_to_stop()?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    println!("{}", serde_json::json!({ "listening": { "app": [listener.local_addr()?] } }));
    let app = Arc::new(App::new(arguments));
    let open = GracefulShutdown::new();
    tokio::select! {
        () = accept(listener, app.clone(), &open) => {}
        () = told_to_stop => {}
    }
    // Who waits longer than this for an answer has given up.
    let _ = tokio::time::timeout(LAST_ANSWERS, open.shutdown()).await;
    println!("{}", serde_json::to_string(&app.ledger())?);
    Ok(Exit::Fine)
}

/// How long requests that were begun may take once the app was told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

impl App {
    fn new(arguments: Arguments) -> App {
        let upstreams = arguments.calls.into_iter().map(|(name, address)| {
            let client = Client::new(address, &name);
            (name, client)
        });
        App {
            service: arguments.service,
            version: arguments.version,
            pod: arguments.pod,
            upstreams: upstreams.collect(),
            unavailable: arguments.unavailable,
            book: Mutex::default(),
        }
    }

    fn ledger(&self) -> Ledger {
        lock(self).read(&self.service, &self.version, &self.pod)
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, open: &GracefulShutdown) {
    loop {
        // A failed accept concerns one caller, who sees it; the next one is welcome.
        if let Ok((stream, _)) = listener.accept().await {
            serve(stream, app.clone(), open);
        }
    }
}

fn serve(stream: TcpStream, app: Arc<App>, open: &GracefulShutdown) {
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer(&app, request).await) }
    });
    // A connection that breaks concerns its caller, who sees it.
    let _ = stream.set_nodelay(true);
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::spawn(open.watch(connection));
}

/// Answers one request.
async fn answer(app: &App, request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/ledger" => return json(&app.ledger()),
        "/healthz" => return Response::new(full(Bytes::from_static(b"ok\n"))),
        "/grpc.health.v1.Health/Check" => return grpc(Bytes::from_static(SERVING), "0", None),
        _ => {}
    }
    let protocol = Protocol::of(&request);
    let call = Call {
        protocol,
        caller: app.service.clone(),
        run: text(request.headers(), RUN),
        id: text(request.headers(), REQUEST_ID),
    };
    if app.unavailable {
        lock(app).refuse(&call.run);
        let mut response = Response::new(full(Bytes::from_static(b"no work was done\n")));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let caller = text(request.headers(), CALLER);
    lock(app).note(&call.run, &caller, protocol, &call.id);
    if let Err(problem) = read(protocol, request.into_body()).await {
        return respond(protocol, Err((StatusCode::BAD_REQUEST, GRPC_INVALID_ARGUMENT, problem)));
    }
    respond(protocol, call_upstreams(app, &call).await)
}

/// `HealthCheckResponse { status: SERVING }`, framed: what kubelet's grpc probe wants to hear.
const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

type Outcome = Result<Answer, (StatusCode, &'static str, String)>;

const GRPC_INVALID_ARGUMENT: &str = "3";
const GRPC_UNAVAILABLE: &str = "14";

/// Reads the request's body to its end.
async fn read(protocol: Protocol, body: Incoming) -> Result<(), String> {
    let body = body.collect().await.map_err(|error| format!("the request broke off: {error}"))?.to_bytes();
    if protocol == Protocol::Grpc {
        call::unframe::<Question>(&body)?;
    }
    Ok(())
}

async fn call_upstreams(app: &App, call: &Call) -> Outcome {
    let mut calls = Vec::with_capacity(app.upstreams.len());
    for (name, client) in &app.upstreams {
        let failed = |CallError(reason)| {
            (StatusCode::BAD_GATEWAY, GRPC_UNAVAILABLE, format!("{} calls {name}: {reason}", app.service))
        };
        calls.push(client.call(call).await.map_err(failed)?);
    }
    Ok(Answer { service: app.service.clone(), version: app.version.clone(), pod: app.pod.clone(), calls })
}

fn respond(protocol: Protocol, outcome: Outcome) -> Response<Body> {
    let mut response = match (protocol, outcome) {
        (Protocol::Grpc, Ok(answer)) => grpc(call::frame(&answer), "0", None),
        (Protocol::Grpc, Err((_, status, problem))) => grpc(Bytes::new(), status, Some(problem)),
        (_, Ok(answer)) => json(&answer),
        (_, Err((status, _, problem))) => {
            let mut response = Response::new(full(problem.into()));
            *response.status_mut() = status;
            response
        }
    };
    response.headers_mut().insert("server", HeaderValue::from_static("gauze-shop"));
    response
}

/// A gRPC answer: the message, then the status in the trailers.
fn grpc(message: Bytes, status: &'static str, problem: Option<String>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    if let Some(problem) = problem.and_then(|problem| HeaderValue::from_str(&problem).ok()) {
        trailers.insert("grpc-message", problem);
    }
    let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(full(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}

fn lock(app: &App) -> std::sync::MutexGuard<'_, Book> {
    app.book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A header as text; empty where there is none.
fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An app on a port of its own; its ledger is read over the wire, as the story does.
    async fn start(service: &str, calls: &[(&str, SocketAddr)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arguments = Arguments {
            service: service.to_owned(),
            version: "v1".to_owned(),
            pod: format!("{service}-0"),
            listen: address,
            calls: calls.iter().map(|(name, address)| ((*name).to_owned(), address.to_string())).collect(),
            unavailable: false,
            with_parent: false,
        };
        let app = Arc::new(App::new(arguments));
        tokio::spawn(async move { accept(listener, app, &GracefulShutdown::new()).await });
        address
    }

    async fn read_ledger(address: SocketAddr) -> Ledger {
        let text = crate::admin::Endpoint::Tcp(address).get("/ledger").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn call(protocol: Protocol, id: &str) -> Call {
        Call { protocol, caller: "client".into(), run: "test".into(), id: id.into() }
    }

    #[tokio::test]
    async fn a_call_goes_down_the_chain_in_its_protocol_and_every_app_counts_it() {
        let payments = start("payments", &[]).await;
        let cart = start("cart", &[("payments", payments)]).await;
        let client = Client::new(cart, "cart");
        for protocol in Protocol::ALL {
            for number in 0..2 {
                let answer =
                    client.call(&call(protocol, &format!("{}-{number}", protocol.as_str()))).await.unwrap();
                assert_eq!((answer.service.as_str(), answer.calls[0].service.as_str()), ("cart", "payments"));
            }
        }
        let ledger = read_ledger(payments).await;
        let counted: Vec<_> =
            ledger.received.iter().map(|line| (line.from.as_str(), line.protocol, line.requests)).collect();
        assert_eq!(counted, Protocol::ALL.map(|protocol| ("cart", protocol, 2)));
        assert_eq!(ledger.duplicates, 0);
    }

    #[tokio::test]
    async fn a_failure_down_the_chain_names_who_called_whom() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let cart = start("cart", &[("payments", nobody)]).await;
        let client = Client::new(cart, "cart");
        for (protocol, expected) in [
            (Protocol::Http1, "502 by the app cart calls payments: cannot connect: connection refused"),
            (Protocol::Grpc, "gRPC status 14 cart calls payments: cannot connect: connection refused"),
        ] {
            assert_eq!(client.call(&call(protocol, "1")).await, Err(CallError(expected.to_owned())));
        }
    }
}
