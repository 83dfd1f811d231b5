//! The server side of an HTTP/1.x connection: requests one after another, answered in order.
//!
//! A request whose framing is bad never reaches the handler; it is answered here with our code, and
//! the connection is closed in such a way that the answer arrives.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gauze_model::Code;
use gauze_model::framing::{HeadScan, Limits, RequestHead, request_head, write_response_head};
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, response};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::outgoing::{Framing, Outgoing, WriteError, framing_of, settle};
use super::watch::{Alarm, Watch};
use super::wire::{Broken, Wire};
use super::{Incoming, ReadError};
use crate::body::{Body, BodyError};
use crate::headers::lists;
use crate::interim::Interim;
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::upgrade::Tunnel;

/// Safe limits of a connection from an app or a peer.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// From the first byte of a request to the end of its head; then 408.
    pub header_timeout: Duration,
    /// Between two requests, or without a byte of a response going out; then the connection is closed.
    pub idle_timeout: Duration,
    /// How long a client that sent its FIN may still wait for its response. It has either gone away or
    /// closed one direction only, which cannot be told apart; an upstream is not kept busy for nobody.
    pub half_closed_timeout: Duration,
    /// How long a closing connection is read, so that the client gets our last answer and not a reset
    /// (RFC 9112, 9.6).
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            limits: Limits::default(),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            half_closed_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(1),
        }
    }
}

/// How much of a request's body that nobody wants is read for the sake of the connection, in bytes.
const DISCARD_MAX: usize = 64 * 1024;

/// How much a closing connection is read for, in bytes; a client that sends more gets its reset.
const LINGER_MAX: usize = 1024 * 1024;

/// Why a connection ended otherwise than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("no request: {0}")]
    Read(ReadError),
    /// There was no request that could be handled; the client has our answer.
    #[error("{0}")]
    Refused(Refusal),
    #[error("the client went away before its response ended")]
    Abandoned,
    #[error("the response did not move on for too long")]
    Stalled,
    /// The response ended early; the client sees that it is not whole.
    #[error("the response body failed: {0}")]
    ResponseBody(BodyError),
    #[error("the response body has another length than its Content-Length")]
    ResponseLength,
}

/// A response's body; or none, since the client is to leave HTTP.
pub trait Payload: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Unpin {
    /// What follows the head and is not HTTP, if the response says so (101, or 2xx to CONNECT).
    fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        None
    }
}

impl Payload for Body {}

/// How soon a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// With the next response: nobody's request is lost, for none is under way when it ends.
    WithResponse,
    /// At once if it is idle, else with its current response.
    Now,
}

/// Serves requests one after another until the connection ends.
///
/// What the handler notes as interim goes to the client at once, ahead of what it returns.
/// `closing` says when it is to end, and later perhaps that it is to end sooner; it never ends itself. A
/// response that says `Connection: close` is the last one.
///
/// # Errors
/// The connection broke, a request was refused here, or a response could not be sent whole.
pub fn serve<B: Payload>(
    stream: Stream,
    settings: Rc<Settings>,
    closing: impl futures_util::Stream<Item = Closing>,
    handler: impl AsyncFn(Request<Body>, &Interim) -> Response<B>,
) -> impl Future<Output = Result<(), ServeError>> {
    // Made outside the future, which would keep the room of its arguments.
    let mut connection = Connection {
        wire: Rc::new(RefCell::new(Wire::new(stream, settings.limits))),
        settings,
        alarm: Alarm::default(),
        orders: Box::pin(closing),
        closing: None,
    };
    async move {
        loop {
            // Boxed is what an idle connection should not keep room for.
            let head = match connection.next_head().await {
                Ok(Some(head)) => head,
                Ok(None) => return connection.close_idle().await,
                Err(ServeError::Refused(refusal)) => return Box::pin(connection.refuse(refusal)).await,
                Err(error) => return Err(error),
            };
            match Box::pin(connection.carry(head, &handler)).await {
                Ok(After::NextRequest) => {}
                Ok(After::Close) => return Box::pin(connection.close()).await,
                Ok(After::Leave(tunnel)) => return Box::pin(connection.leave(tunnel)).await,
                Err(ServeError::Refused(refusal)) => return Box::pin(connection.refuse(refusal)).await,
                Err(error) => return Err(error),
            }
        }
    }
}

struct Connection<S> {
    wire: Rc<RefCell<Wire>>,
    settings: Rc<Settings>,
    alarm: Alarm,
    orders: Pin<Box<S>>,
    /// The last order.
    closing: Option<Closing>,
}

/// What follows an exchange.
enum After {
    NextRequest,
    Close,
    /// No more HTTP.
    Leave(Box<Tunnel>),
}

/// What a response needs to know of its request.
struct Asked {
    is_head: bool,
    is_connect: bool,
    version: Version,
    persistent: bool,
}

impl<S: futures_util::Stream<Item = Closing>> Connection<S> {
    /// Waits for the head of a request; `None` when there will be no more.
    async fn next_head(&mut self) -> Result<Option<RequestHead>, ServeError> {
        let idle_since = Instant::now();
        let mut first_byte = None;
        let mut scan = HeadScan::of_request();
        let head = poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            match wire.poll_head(cx, &mut scan) {
                Poll::Ready(Err(ReadError::Io(_))) if wire.buffer.is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(head) => return Poll::Ready(head.map_err(unreadable)),
                Poll::Pending => {}
            }
            if !wire.buffer.is_empty() {
                let deadline = *first_byte.get_or_insert_with(Instant::now) + self.settings.header_timeout;
                return self.alarm.poll(deadline, cx).map(|()| Err(too_late()));
            }
            if hear(&mut self.closing, self.orders.as_mut(), cx) == Some(Closing::Now) {
                return Poll::Ready(Ok(None));
            }
            self.alarm.poll(idle_since + self.settings.idle_timeout, cx).map(|()| Ok(None))
        })
        .await?;
        head.map(|bytes| self.read_head(bytes)).transpose()
    }

    fn read_head(&self, bytes: Bytes) -> Result<RequestHead, ServeError> {
        request_head(bytes, &self.settings.limits)
            .map_err(|problem| unreadable(ReadError::Malformed(problem)))
    }

    /// One request and its response, from one head to the next.
    async fn carry<B: Payload>(
        &mut self,
        head: RequestHead,
        handler: &impl AsyncFn(Request<Body>, &Interim) -> Response<B>,
    ) -> Result<After, ServeError> {
        let asked = Asked {
            is_head: head.method == Method::HEAD,
            is_connect: head.method == Method::CONNECT,
            version: head.version,
            persistent: head.persistent,
        };
        let request = self.request(head);
        let interim = Interim::default();
        let mut watch = Watch::new(self.settings.half_closed_timeout);

        let mut response = {
            // In a scope of its own: its room is used again for the response.
            let mut answer = pin!(handler(request, &interim));
            poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                Poll::Pending => {
                    let _ = self.poll_ahead(&interim, &asked, cx)?;
                    watch.poll(&self.wire, cx).map(|broken| Err(ServeError::from(broken)))
                }
            })
            .await?
        };
        self.put_ahead(&interim, &asked);

        if let Some(tunnel) = response.body_mut().take_tunnel() {
            let mut outgoing = self.last_head(response.into_parts().0);
            self.send(&mut outgoing, &mut watch).await?;
            return Ok(After::Leave(tunnel));
        }
        let closing = poll_fn(|cx| Poll::Ready(hear(&mut self.closing, self.orders.as_mut(), cx))).await;
        let (mut outgoing, closes) = self.response(response, &asked, closing.is_some());
        let sent = self.send(&mut outgoing, &mut watch).await;
        if sent.is_err() && outgoing.ends_with_the_connection() {
            self.wire.borrow().stream.reset_on_drop();
        }
        sent?;

        if closes || !self.finish_request().await {
            return Ok(After::Close);
        }
        Ok(After::NextRequest)
    }

    /// Writes what has come before the response.
    fn poll_ahead(&self, interim: &Interim, asked: &Asked, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.put_ahead(interim, asked);
        self.wire.borrow_mut().poll_ahead(cx)
    }

    /// What has come before the response is to be written. HTTP/1.0 has nothing of the kind (RFC 9110, 15.2).
    fn put_ahead(&self, interim: &Interim, asked: &Asked) {
        while let Some(response) = interim.take() {
            if asked.version != Version::HTTP_10 {
                let mut wire = self.wire.borrow_mut();
                write_response_head(wire.ahead(), Version::HTTP_11, response.status(), response.headers());
            }
        }
    }

    /// Writes the response, for as long as somebody waits for it and something moves.
    async fn send<B>(&mut self, outgoing: &mut Outgoing<B>, watch: &mut Watch) -> Result<(), ServeError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: Into<BodyError>,
    {
        let mut moved: Option<(u64, Instant)> = None;
        poll_fn(|cx| {
            if let Poll::Ready(sent) = outgoing.poll(&self.wire, cx) {
                return Poll::Ready(sent.map_err(ServeError::from));
            }
            if watch.poll(&self.wire, cx) == Poll::Ready(Broken::Connection) {
                return Poll::Ready(Err(ServeError::Abandoned));
            }
            let (_, since) = match moved.filter(|(written, _)| *written == outgoing.written) {
                Some(moved) => moved,
                None => *moved.insert((outgoing.written, Instant::now())),
            };
            self.alarm.poll(since + self.settings.idle_timeout, cx).map(|()| Err(ServeError::Stalled))
        })
        .await
    }

    fn request(&self, head: RequestHead) -> Request<Body> {
        let mut wire = self.wire.borrow_mut();
        wire.begin_body(head.body, head.expects_continue);
        let body = match wire.take_whole_body() {
            Some(whole) => Body::Full(whole),
            None if wire.body_has_ended() => Body::Empty,
            None => Body::Http1(Incoming { wire: self.wire.clone(), connection: None }),
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        request
    }

    /// The response on its way, and whether the connection ends with it.
    fn response<B>(&self, response: Response<B>, asked: &Asked, is_last: bool) -> (Outgoing<B>, bool)
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: Into<BodyError>,
    {
        let (mut parts, body) = response.into_parts();
        let framing = framing_of_response(parts.status, &parts.headers, asked, &body);
        // A client that was never told to continue may send its body or not: what follows cannot be read.
        let in_doubt = self.wire.borrow().owes_continue();
        // A client whose CONNECT was refused may have sent what was for the tunnel.
        let in_doubt = in_doubt || asked.is_connect;
        let last = !asked.persistent || is_last || in_doubt || framing == Framing::UntilClose;
        let closes = last || lists(&parts.headers, &CONNECTION, b"close");
        let connection = match asked.version {
            _ if closes => Some("close"),
            Version::HTTP_10 => Some("keep-alive"),
            _ => None,
        };
        settle(&mut parts.headers, framing, connection);
        if parts.status == StatusCode::NO_CONTENT {
            parts.headers.remove(CONTENT_LENGTH); // RFC 9110, 8.6
        }
        let mut head = self.wire.borrow_mut().end_ahead();
        write_response_head(&mut head, Version::HTTP_11, parts.status, &parts.headers);
        (Outgoing::new(head, framing, body), closes)
    }

    /// The head behind which no HTTP follows.
    fn last_head(&self, mut parts: response::Parts) -> Outgoing<Body> {
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        settle(&mut parts.headers, Framing::Nothing, switches.then_some("upgrade"));
        parts.headers.remove(CONTENT_LENGTH);
        let mut head = self.wire.borrow_mut().end_ahead();
        write_response_head(&mut head, Version::HTTP_11, parts.status, &parts.headers);
        Outgoing::new(head, Framing::Nothing, Body::Empty)
    }

    /// Lets the rest of the request's body pass: read by whoever still forwards it, else dropped here
    /// within bounds. Tells whether the next request can be read.
    async fn finish_request(&mut self) -> bool {
        if self.wire.borrow().body_has_ended() {
            return true;
        }
        let began = Instant::now();
        let mut discarded = 0;
        poll_fn(|cx| {
            loop {
                let forwarded = Rc::strong_count(&self.wire) > 1;
                let mut wire = self.wire.borrow_mut();
                if wire.body_has_ended() || wire.broken_body().is_some() || discarded > DISCARD_MAX {
                    return Poll::Ready(wire.body_has_ended());
                }
                if forwarded {
                    wire.wait_for_body(cx);
                    return self.alarm.poll(began + self.settings.idle_timeout, cx).map(|()| false);
                }
                match wire.poll_body(cx) {
                    Poll::Ready(Some(Ok(frame))) => discarded += frame.data_ref().map_or(0, Bytes::len),
                    Poll::Ready(_) => {}
                    Poll::Pending => {
                        return self.alarm.poll(began + self.settings.linger, cx).map(|()| false);
                    }
                }
            }
        })
        .await
    }

    /// Answers what is no request that could be handled.
    async fn refuse(mut self, refusal: Refusal) -> Result<(), ServeError> {
        let deadline = Instant::now() + self.settings.linger;
        let ahead = self.wire.borrow_mut().end_ahead();
        let mut answer = Outgoing::new(answer_to(&refusal, ahead), Framing::Nothing, Body::Empty);
        poll_fn(|cx| match answer.poll(&self.wire, cx) {
            Poll::Ready(written) => Poll::Ready(written.map_err(ServeError::from)),
            Poll::Pending => self.alarm.poll(deadline, cx).map(|()| Err(ServeError::Abandoned)),
        })
        .await?;
        self.close().await?;
        Err(ServeError::Refused(refusal))
    }

    /// Joins the client with what it has asked for, until that ends.
    async fn leave(self, tunnel: Box<Tunnel>) -> Result<(), ServeError> {
        let Connection { wire, .. } = self;
        let client = Wire::into_stream(wire).ok_or(ServeError::Abandoned)?;
        tunnel.carry(client).await;
        Ok(())
    }

    /// Nothing is under way: says that there will be no more, if anybody still hears it.
    async fn close_idle(self) -> Result<(), ServeError> {
        let _ = poll_fn(|cx| Pin::new(&mut self.wire.borrow_mut().stream).poll_shutdown(cx)).await;
        Ok(())
    }

    /// Ends our direction, then reads the client's for a while: closing with unread bytes would send a
    /// reset, and that can overtake our last answer.
    async fn close(&mut self) -> Result<(), ServeError> {
        let deadline = Instant::now() + self.settings.linger;
        let mut read = 0;
        poll_fn(|cx| Pin::new(&mut self.wire.borrow_mut().stream).poll_shutdown(cx)).await?;
        poll_fn(|cx| {
            loop {
                let mut wire = self.wire.borrow_mut();
                match wire.poll_fill(cx) {
                    Poll::Pending => return self.alarm.poll(deadline, cx),
                    Poll::Ready(Ok(length)) if length > 0 && read < LINGER_MAX => read += length,
                    Poll::Ready(_) => return Poll::Ready(()),
                }
                wire.buffer = BytesMut::new();
            }
        })
        .await;
        Ok(())
    }
}

/// The last order, with those that have come in the meantime.
fn hear(
    known: &mut Option<Closing>,
    mut orders: Pin<&mut impl futures_util::Stream<Item = Closing>>,
    cx: &mut Context<'_>,
) -> Option<Closing> {
    while *known != Some(Closing::Now)
        && let Poll::Ready(Some(order)) = orders.as_mut().poll_next(cx)
    {
        *known = Some(order);
    }
    *known
}

fn unreadable(error: ReadError) -> ServeError {
    match error {
        ReadError::Malformed(problem) => Broken::Framing(problem).into(),
        other => ServeError::Read(other),
    }
}

impl From<Broken> for ServeError {
    fn from(broken: Broken) -> ServeError {
        match broken {
            Broken::Connection => ServeError::Abandoned,
            Broken::Framing(problem) => {
                ServeError::Refused(Refusal::new(problem.code(), problem.to_string()))
            }
        }
    }
}

fn too_late() -> ServeError {
    ServeError::Refused(Refusal::new(Code::HEADER_TIMEOUT, "the request's head did not arrive in time"))
}

/// RFC 9112, 6.3, seen from the sender.
fn framing_of_response<B: http_body::Body>(
    status: StatusCode,
    headers: &HeaderMap,
    asked: &Asked,
    body: &B,
) -> Framing {
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless || asked.is_head || status.is_informational() {
        return Framing::Nothing;
    }
    match framing_of(headers, body) {
        Framing::Chunked if asked.version == Version::HTTP_10 => Framing::UntilClose,
        framing => framing,
    }
}

/// The whole response to what is no request, behind what goes `ahead` of it.
fn answer_to(refusal: &Refusal, ahead: BytesMut) -> BytesMut {
    let status = refusal.code.entry().and_then(|entry| StatusCode::from_u16(entry.status).ok());
    let body = format!("{refusal}\n");
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Ok(code) = HeaderValue::try_from(refusal.code.to_string()) {
        headers.insert("gauze-error", code);
    }
    let mut answer = ahead;
    write_response_head(&mut answer, Version::HTTP_11, status.unwrap_or(StatusCode::BAD_REQUEST), &headers);
    answer.extend_from_slice(body.as_bytes());
    answer
}

impl From<WriteError> for ServeError {
    fn from(error: WriteError) -> ServeError {
        match error {
            WriteError::Io(error) => ServeError::Io(error),
            WriteError::Body(error) => ServeError::ResponseBody(error),
            WriteError::Length => ServeError::ResponseLength,
        }
    }
}
