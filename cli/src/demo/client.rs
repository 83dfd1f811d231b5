//! A client of one address that speaks HTTP/1.1, HTTP/2 with prior knowledge, and gRPC.
//! It keeps connections open, as real clients do, and never sends a request twice:
//! only one that was provably never written goes out on another connection.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::call::{self, Answer, CALLER, GAUZE_ERROR, Protocol, Question, REQUEST_ID, RUN};

/// One address, and the connections to it.
pub(crate) struct Client {
    /// HOST:PORT; a name is looked up for every new connection.
    address: String,
    /// The name that stands in `Host` and `:authority`.
    authority: String,
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
    shared: tokio::sync::Mutex<Vec<Shared>>,
}

/// An HTTP/2 connection that many calls share.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    /// Held once more by every call in flight.
    calls: Arc<()>,
}

/// What is sent with a call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) protocol: Protocol,
    pub(crate) caller: String,
    pub(crate) run: String,
    pub(crate) id: String,
}

/// Why a call has no answer, in few words that can be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError(pub(crate) String);

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a call may take before it counts as failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls at once on one HTTP/2 connection.
const SHARED_CALLS_MAX: usize = 90;
/// How often a request goes out on another connection because nothing of it was written on the first.
const UNWRITTEN_MAX: usize = 5;

impl Client {
    pub(crate) fn new(address: impl ToString, authority: &str) -> Client {
        Client {
            address: address.to_string(),
            authority: authority.to_owned(),
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// Makes one call and reads the whole answer, trailers included.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        match tokio::time::timeout(CALL_TIMEOUT, self.exchange(call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError(format!("no answer in {} s", CALL_TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, CallError> {
        let request = self.request(call)?;
        match call.protocol {
            Protocol::Http1 => self.exchange_http1(request).await,
            Protocol::Http2 | Protocol::Grpc => self.exchange_http2(request, call.protocol).await,
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
        let path = call::path(call.protocol, &self.authority);
        let uri = match call.protocol {
            Protocol::Http1 => path,
            Protocol::Http2 | Protocol::Grpc => format!("http://{}{path}", self.authority),
        };
        let builder = Request::builder()
            .uri(uri)
            .header(CALLER, &call.caller)
            .header(RUN, &call.run)
            .header(REQUEST_ID, &call.id);
        let request = match call.protocol {
            Protocol::Http1 => builder.header(http::header::HOST, &self.authority).body(Full::default()),
            Protocol::Http2 => builder.body(Full::default()),
            Protocol::Grpc => builder
                .method(Method::POST)
                .header(http::header::CONTENT_TYPE, "application/grpc")
                .header(http::header::TE, "trailers")
                .body(Full::new(call::frame(&Question { basket: call.id.clone() }))),
        };
        request.map_err(|error| CallError(format!("cannot be asked: {error}")))
    }

    async fn exchange_http1(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        for _ in 0..UNWRITTEN_MAX {
            let mut connection = match self.idle_http1() {
                Some(connection) => connection,
                None => self.connect_http1().await?,
            };
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let answer = read_http(response).await?;
                    self.keep_http1(connection).await;
                    return Ok(answer);
                }
                Err(mut error) => match error.take_message() {
                    Some(unwritten) => request = unwritten,
                    None => return Err(broken(error.error())),
                },
            }
        }
        Err(CallError("connections close before a request is written".to_owned()))
    }

    fn idle_http1(&self) -> Option<http1::SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next call, once it has noticed that its response is over.
    async fn keep_http1(&self, mut connection: http1::SendRequest<Full<Bytes>>) {
        if connection.ready().await.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    async fn connect_http1(&self) -> Result<http1::SendRequest<Full<Bytes>>, CallError> {
        let stream = self.connect().await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn exchange_http2(
        &self,
        mut request: Request<Full<Bytes>>,
        protocol: Protocol,
    ) -> Result<Answer, CallError> {
        for _ in 0..UNWRITTEN_MAX {
            let mut connection = self.shared_http2().await?;
            match connection.sender.try_send_request(request).await {
                Ok(response) if protocol == Protocol::Grpc => return read_grpc(response).await,
                Ok(response) => return read_http(response).await,
                Err(mut error) => match error.take_message() {
                    Some(unwritten) => request = unwritten,
                    None => return Err(broken(error.error())),
                },
            }
        }
        Err(CallError("connections close before a request is written".to_owned()))
    }

    /// A connection with room for one call more: servers allow a hundred at once.
    async fn shared_http2(&self) -> Result<Shared, CallError> {
        let mut shared = self.shared.lock().await;
        shared.retain(|connection| !connection.sender.is_closed());
        if let Some(connection) = shared.iter().find(|connection| connection.has_room()) {
            return Ok(connection.clone());
        }
        let stream = TokioIo::new(self.connect().await?);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let connection = Shared { sender, calls: Arc::new(()) };
        shared.push(connection.clone());
        Ok(connection)
    }

    async fn connect(&self) -> Result<TcpStream, CallError> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| cannot_connect(&error))?;
        stream.set_nodelay(true).map_err(|error| cannot_connect(&error))?;
        Ok(stream)
    }
}

/// What the system calls by a number is told by its kind; a name that is not found only by its text.
fn cannot_connect(error: &io::Error) -> CallError {
    let reason = error.raw_os_error().map_or_else(|| error.to_string(), |_| error.kind().to_string());
    CallError(format!("cannot connect: {reason}"))
}

/// Reads `web:80`, `10.0.0.1:80`, `[::1]:80`.
///
/// # Errors
/// There is no port, or no host before it.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not of the form HOST:PORT")),
    }
}

impl Shared {
    fn has_room(&self) -> bool {
        Arc::strong_count(&self.calls) <= SHARED_CALLS_MAX
    }
}

async fn read_http(response: Response<Incoming>) -> Result<Answer, CallError> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
    if head.status != StatusCode::OK {
        return Err(refused(head.status, &head.headers, &body));
    }
    serde_json::from_slice(&body)
        .map_err(|error| CallError(format!("an answer that cannot be read: {error}")))
}

async fn read_grpc(response: Response<Incoming>) -> Result<Answer, CallError> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.map_err(|error| broken(&error))?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes();
    if head.status != StatusCode::OK {
        return Err(refused(head.status, &head.headers, &body));
    }
    // A refusal carries its status in the only header frame there is ("Trailers-Only").
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    match status.map(http::HeaderValue::as_bytes) {
        Some(b"0") => call::unframe(&body).map_err(CallError),
        Some(status) => {
            let message = trailers.get("grpc-message").or_else(|| head.headers.get("grpc-message"));
            let message = message.and_then(|value| value.to_str().ok()).unwrap_or_default();
            Err(CallError(format!("gRPC status {} {message}", String::from_utf8_lossy(status))))
        }
        None => Err(CallError("a gRPC answer without its trailers".to_owned())),
    }
}

/// An HTTP answer that is none: its status, who made it, and the first line; the mesh's begins with its code.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
    let by = if headers.contains_key(GAUZE_ERROR) { "" } else { "by the app " };
    let text = String::from_utf8_lossy(body);
    let line: String = text.lines().next().unwrap_or_default().chars().take(LINE_MAX).collect();
    CallError(format!("{} {by}{line}", status.as_u16()))
}

/// Characters of a refusal's body that are kept.
const LINE_MAX: usize = 400;

/// A connection that broke, in the words of the innermost error.
fn broken(error: &hyper::Error) -> CallError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let what = if error.is_incomplete_message() { "cut off" } else { "broken" };
    CallError(format!("connection {what}: {cause}"))
}
