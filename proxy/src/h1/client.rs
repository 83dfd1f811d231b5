//! The client side of an HTTP/1.x connection: one request at a time.
//!
//! Nothing runs beside the caller: whoever reads the response drives the connection. Only when the
//! response begins before the request has ended, a task goes on with the request until one of them ends.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gauze_model::Code;
use gauze_model::framing::{
    BodyFraming, HeadScan, Limits, Malformed, ResponseHead, response_head, write_request_head,
};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use tokio::time::{Sleep, sleep};

use super::outgoing::{Framing, Outgoing, WriteError, framing_of, settle};
use super::wire::Wire;
use super::{Incoming, ReadError};
use crate::body::{Body, BodyError};
use crate::interim::Interim;
use crate::stream::Stream;
use crate::upgrade::{Opened, Way};

/// How long a request that expects `100 Continue` waits for it (RFC 9110, 10.1.1: not for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// How many interim responses may precede a response.
const INTERIM_MAX: usize = 16;

/// A connection that can carry a request now.
pub struct Connection {
    wire: Rc<RefCell<Wire>>,
    /// `None`: it must not be used again.
    home: Option<Home>,
    _guard: Box<dyn Any>,
}

/// Where a connection goes when it can carry the next request: its pool.
pub type Home = Rc<dyn Fn(Connection)>;

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct SendError {
    /// No byte of the request was written: it is safe to send it again, whatever its method.
    pub not_delivered: bool,
    pub kind: SendErrorKind,
}

/// What went wrong, and on whose side.
#[derive(Debug, thiserror::Error)]
pub enum SendErrorKind {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed before the response")]
    Closed,
    #[error("the response is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error("the server changed the protocol unasked, or to one that was not offered")]
    Upgraded,
    #[error("more than {INTERIM_MAX} interim responses")]
    Interim,
    #[error("the request body failed: {0}")]
    RequestBody(BodyError),
    #[error("the request body has another length than its Content-Length")]
    RequestLength,
}

impl SendErrorKind {
    /// What the request is refused with.
    pub fn code(&self) -> Code {
        match self {
            SendErrorKind::Io(_) | SendErrorKind::Closed => Code::UPSTREAM_RESET,
            SendErrorKind::Malformed(_) | SendErrorKind::Upgraded | SendErrorKind::Interim => {
                Code::UPSTREAM_PROTOCOL
            }
            SendErrorKind::RequestBody(BodyError::Idle) => Code::REQUEST_IDLE,
            SendErrorKind::RequestBody(_) | SendErrorKind::RequestLength => Code::BAD_BODY,
        }
    }
}

impl Connection {
    /// `guard` (a limit's permit, a gauge) is dropped when the connection ends.
    pub fn new(stream: Stream, limits: Limits, home: Home, guard: impl Any) -> Connection {
        let wire = Rc::new(RefCell::new(Wire::new(stream, limits)));
        Connection { wire, home: Some(home), _guard: Box::new(guard) }
    }

    /// Whether the peer has neither closed the idle connection nor sent bytes unasked.
    pub fn is_usable(&self) -> bool {
        let mut wire = self.wire.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        wire.buffer.is_empty() && wire.poll_fill(&mut cx).is_pending()
    }

    /// Sends a request and waits for the head of its response. Call it inside a `LocalSet`; ask
    /// [`is_usable`](Connection::is_usable) before each reuse.
    ///
    /// An authority in the URI takes the place of `Host`. When both messages have ended cleanly the
    /// connection goes home, else it is closed. Dropping the future closes it too. Interim responses are passed over.
    ///
    /// # Errors
    /// There is no response; the connection is closed.
    pub fn send<B>(
        self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Body>, SendError>> + use<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        let (mut head, body) = request.into_parts();
        async move {
            let interim = Interim::default();
            self.send_parts(&mut head, body, None, &interim).await
        }
    }

    /// As [`send`](Connection::send), of a head that is wanted again if the request is: only the fields
    /// of framing and `Host` are made those of HTTP/1 in it. It may ask to leave HTTP by a `way`. What comes before
    /// the response is noted in `interim`.
    ///
    /// # Errors
    /// There is no response; the connection is closed.
    pub(crate) fn send_parts<'i, B>(
        self,
        head: &mut request::Parts,
        body: B,
        way: Option<&Way>,
        interim: &'i Interim,
    ) -> impl Future<Output = Result<Response<Body>, SendError>> + use<'i, B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        // Made outside the future, which would keep the room of the request.
        let mut upload = Upload::new(head, body, way);
        async move {
            match read_response(&self.wire, &mut upload, interim).await {
                Ok(head) if head.body == BodyFraming::Tunnel => self.opened(head, upload),
                Ok(head) => Ok(self.response(head, upload)),
                Err(kind) => Err(SendError { not_delivered: upload.outgoing.written == 0, kind }),
            }
        }
    }

    fn response<B>(mut self, head: ResponseHead, upload: Upload<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        if !head.persistent || !upload.is_done() {
            self.home = None;
        }
        let body = self.body(&head, upload);
        with_body(head, body)
    }

    /// The server has left HTTP: the connection is nobody's but the request's.
    fn opened<B>(self, head: ResponseHead, upload: Upload<B>) -> Result<Response<Body>, SendError> {
        drop(upload);
        let Connection { wire, _guard: guard, .. } = self;
        let closed = || SendError { not_delivered: false, kind: SendErrorKind::Closed };
        let stream = Wire::into_stream(wire).ok_or_else(closed)?;
        Ok(with_body(head, Body::Tunnel(Box::new(Opened::new(stream, Some(guard))))))
    }

    /// What is here already is handed out whole, and the connection is free at once.
    fn body<B>(self, head: &ResponseHead, upload: Upload<B>) -> Body
    where
        B: http_body::Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        let mut wire = self.wire.borrow_mut();
        wire.begin_body(head.body, false);
        let whole = wire.take_whole_body();
        let ended = wire.body_has_ended();
        drop(wire);
        if ended {
            self.go_home();
            return whole.map_or(Body::Empty, Body::Full);
        }
        let refused_unsent = upload.wait.is_some(); // answered in place of `100 Continue`
        if !upload.is_done() && !refused_unsent {
            tokio::task::spawn_local(upload.go_on_beside(self.wire.clone()));
        }
        Body::Http1(Incoming { wire: self.wire.clone(), connection: Some(self) })
    }

    /// Both messages have ended.
    pub(super) fn go_home(mut self) {
        let unasked = !self.wire.borrow().buffer.is_empty();
        if let Some(home) = self.home.take().filter(|_| !unasked) {
            self.home = Some(home.clone());
            home(self);
        }
    }
}

fn with_body<B>(head: ResponseHead, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers;
    response
}

/// A request on its way out.
struct Upload<B> {
    method: Method,
    way: Option<Way>,
    outgoing: Outgoing<B>,
    /// The body waits for `100 Continue`, at most so long.
    wait: Option<Pin<Box<Sleep>>>,
    state: Uploading,
}

enum Uploading {
    Going,
    Done,
    /// The server does not read on; perhaps it has answered already.
    Failed(io::Error),
}

impl<B> Upload<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    fn new(parts: &mut request::Parts, body: B, way: Option<&Way>) -> Upload<B> {
        let framing = framing_of_request(parts, &body);
        let offer = way.and_then(Way::offer);
        settle(&mut parts.headers, framing, offer.map(|_| "upgrade"));
        parts.headers.extend(offer.map(|offer| (UPGRADE, offer.clone())));
        set_host(&parts.uri, &mut parts.headers);
        let target = match parts.uri.authority() {
            Some(authority) if parts.method == Method::CONNECT => authority.as_str(),
            _ => parts.uri.path_and_query().map_or("/", |target| target.as_str()),
        };
        let mut head = BytesMut::new();
        write_request_head(&mut head, &parts.method, target, &parts.headers);
        let waits = parts.headers.contains_key(EXPECT) && framing != Framing::Nothing;
        Upload {
            method: parts.method.clone(),
            way: way.cloned(),
            outgoing: Outgoing::new(head, framing, body),
            wait: waits.then(|| Box::pin(sleep(CONTINUE_WAIT))),
            state: Uploading::Going,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state, Uploading::Done)
    }

    /// Writes what can be written now.
    ///
    /// # Errors
    /// The body failed. A connection that failed may still hold a response, so that is only noted.
    fn drive(&mut self, wire: &RefCell<Wire>, cx: &mut Context<'_>) -> Result<(), SendErrorKind> {
        if !matches!(self.state, Uploading::Going) {
            return Ok(());
        }
        match self.poll(wire, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.state = Uploading::Done,
            Poll::Ready(Err(WriteError::Io(error))) => self.state = Uploading::Failed(error),
            Poll::Ready(Err(WriteError::Body(error))) => return Err(SendErrorKind::RequestBody(error)),
            Poll::Ready(Err(WriteError::Length)) => return Err(SendErrorKind::RequestLength),
        }
        Ok(())
    }

    fn poll(&mut self, wire: &RefCell<Wire>, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        if let Some(wait) = &mut self.wait {
            ready!(self.outgoing.poll_head(wire, cx))?;
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        self.outgoing.poll(wire, cx)
    }

    /// The server leaves HTTP, if that was asked of it. What follows begins where the request has ended (RFC 9110, 7.8).
    async fn switched(
        &mut self,
        head: ResponseHead,
        wire: &RefCell<Wire>,
    ) -> Result<ResponseHead, SendErrorKind> {
        if !self.way.as_ref().is_some_and(|way| way.is_taken_up(head.status, &head.headers)) {
            return Err(SendErrorKind::Upgraded);
        }
        self.wait = None;
        poll_fn(|cx| {
            self.drive(wire, cx)?;
            match &mut self.state {
                Uploading::Done => Poll::Ready(Ok(())),
                Uploading::Failed(error) => Poll::Ready(Err(take(error).into())),
                Uploading::Going => Poll::Pending,
            }
        })
        .await
        .map(|()| head)
    }

    /// Goes on while the response is read by somebody else; ends with either.
    async fn go_on_beside(mut self, wire: Rc<RefCell<Wire>>) {
        poll_fn(|cx| {
            if Rc::strong_count(&wire) == 1 || wire.borrow().body_has_ended() {
                return Poll::Ready(());
            }
            wire.borrow_mut().wait_for_body(cx);
            self.poll(&wire, cx).map(drop)
        })
        .await;
    }
}

/// Reads the response's head while the request is written.
async fn read_response<B>(
    wire: &RefCell<Wire>,
    upload: &mut Upload<B>,
    interim: &Interim,
) -> Result<ResponseHead, SendErrorKind>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let limits = wire.borrow().limits;
    let mut persistent = true; // a body that an interim response declares, and must not have, may still come
    for _ in 0..=INTERIM_MAX {
        let mut scan = HeadScan::of_response();
        let bytes = poll_fn(|cx| {
            upload.drive(wire, cx)?;
            let head = wire.borrow_mut().poll_head(cx, &mut scan);
            match (head, &mut upload.state) {
                (Poll::Ready(Ok(Some(head))), _) => Poll::Ready(Ok(head)),
                (Poll::Ready(Err(ReadError::Malformed(problem))), _) => Poll::Ready(Err(problem.into())),
                // Also when writing has failed: what was answered before that may not be read yet, and the
                // end of a connection that failed is always heard.
                (Poll::Pending, _) => Poll::Pending,
                (_, Uploading::Failed(error)) => Poll::Ready(Err(take(error).into())),
                (Poll::Ready(Err(ReadError::Io(error))), _) => Poll::Ready(Err(error.into())),
                (Poll::Ready(Ok(None) | Err(ReadError::Incomplete)), _) => {
                    Poll::Ready(Err(SendErrorKind::Closed))
                }
            }
        })
        .await?;
        let head = response_head(bytes, &limits, &upload.method)?;
        persistent &= head.persistent;
        match head.status {
            _ if head.body == BodyFraming::Tunnel => return upload.switched(head, wire).await,
            StatusCode::CONTINUE => upload.wait = None,
            status if status.is_informational() => interim.note(with_body(head, ())),
            _ => return Ok(ResponseHead { persistent, ..head }),
        }
    }
    Err(SendErrorKind::Interim)
}

fn take(error: &mut io::Error) -> io::Error {
    std::mem::replace(error, io::ErrorKind::BrokenPipe.into())
}

/// RFC 9110, 8.6: a length of 0 is said only where a body could have been expected.
fn framing_of_request<B: http_body::Body>(parts: &request::Parts, body: &B) -> Framing {
    let could_have = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    match framing_of(&parts.headers, body) {
        _ if parts.method == Method::CONNECT => Framing::Nothing,
        Framing::Length(0) if !could_have && !parts.headers.contains_key(CONTENT_LENGTH) => Framing::Nothing,
        framing => framing,
    }
}

/// RFC 9112, 3.2.2 and RFC 9113, 8.3.1: the authority of the target counts, not the field.
fn set_host(uri: &Uri, headers: &mut HeaderMap) {
    let Some(authority) = uri.authority() else { return };
    if headers.get(HOST).is_some_and(|host| host.as_bytes() == authority.as_str().as_bytes()) {
        return;
    }
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        headers.insert(HOST, host);
    }
}
