//! Bodies on their way through: counted, watched for idleness, and holding what a request holds
//! (its record, its places within limits, its stream) until the last byte of the response is gone.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gauze_model::Code;
use gauze_model::deadline::{self, Expiry, read_grpc_timeout, write_grpc_timeout};
use gauze_model::retry::Stop;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::balance::InFlight;
use crate::body::{Body, BodyError};
use crate::connect::StreamHeld;
use crate::h1::server::Payload;
use crate::headers::{GAUZE_NOT_DELIVERED, cleanse_trailers};
use crate::interim::Interim;
use crate::metrics::RetryReason;
use crate::record::Record;
use crate::refusal::{Reader, Refusal};
use crate::retry::deadline::Deadline;
use crate::retry::replay::Replay;
use crate::sending::{Progress, Sending, payload};
use crate::target::{EndpointTarget, Permit};
use crate::upgrade::{Leaving, Tunnel};

/// What goes back behind the head of a response.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every response has a body, and a box would cost each one"
)]
pub(crate) enum Answer {
    Body(Watched),
    /// No HTTP; `None` when somebody has taken it to carry it.
    Tunnel(Option<Box<Tunnel>>),
}

/// A body on its way back.
pub(crate) struct Watched {
    body: Body,
    record: Record,
    reader: Reader,
    progress: Rc<Progress>,
    idle: Idle,
    _held: Option<Held>,
}

/// What a request holds until its response has ended.
#[expect(dead_code, reason = "what is held is given back when it drops")]
pub(crate) struct Held {
    pub(crate) stream: Option<StreamHeld>,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) place: Option<Permit>,
}

/// One request and its response, as they are told and watched.
pub(crate) struct Exchange<'i> {
    record: Record,
    reader: Reader,
    /// Whether the client is the proxy of a peer, which may hear what is between proxies only.
    is_for_peer: bool,
    progress: Rc<Progress>,
    interim: &'i Interim,
    idle_limit: Duration,
    deadline: Option<Deadline>,
    /// That it asks to leave HTTP.
    leaving: Option<Box<Leaving>>,
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// `DEADLINE_EXCEEDED` (gRPC, "Status codes").
const GRPC_DEADLINE_EXCEEDED: u16 = 4;

/// Ends a body on which nothing moves, either way, or whose time is over.
struct Idle {
    limit: Duration,
    deadline: Option<Deadline>,
    /// Made when the body waits for the first time; short bodies never do.
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

impl<'i> Exchange<'i> {
    pub(crate) fn new(
        record: Record,
        reader: Reader,
        interim: &'i Interim,
        idle_limit: Duration,
    ) -> Exchange<'i> {
        let (progress, is_for_peer) = (Rc::default(), false);
        Exchange { record, reader, is_for_peer, progress, interim, idle_limit, deadline: None, leaving: None }
    }

    /// The client is the proxy of a peer, if `is_peer`.
    #[must_use]
    pub(crate) fn for_peer(self, is_peer: bool) -> Exchange<'i> {
        Exchange { is_for_peer: is_peer, ..self }
    }

    /// The request asks to leave HTTP, if there is `leaving`.
    #[must_use]
    pub(crate) fn leaving(self, leaving: Option<Box<Leaving>>) -> Exchange<'i> {
        Exchange { leaving, ..self }
    }

    /// What is told of the request.
    pub(crate) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// The endpoint is chosen: from here on the request counts there.
    pub(crate) fn goes_to(&mut self, endpoint: &EndpointTarget) {
        self.record.edge = Arc::clone(&endpoint.metrics);
        self.record.endpoint = Some(endpoint.peer.address);
    }

    /// It goes to our own app, and counts with its caller.
    pub(crate) fn goes_to_app(&mut self, app: &EndpointTarget) {
        self.record.endpoint = Some(app.peer.address);
    }

    /// The time that it has in all begins: its route's, and what a gRPC client brings with the call.
    pub(crate) fn must_end_within(&mut self, route: Option<Duration>, headers: &HeaderMap) {
        let call = (self.reader == Reader::Grpc).then(|| headers.get(GRPC_TIMEOUT)).flatten();
        let call = call.and_then(|value| read_grpc_timeout(value.as_bytes()));
        self.deadline = Deadline::begin(route, call);
    }

    /// What is left of that time; `None`: there is no limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.left())
    }

    /// Tells the next hop of a gRPC call how long we wait.
    pub(crate) fn tell_deadline(&self, per_try: Option<Duration>, headers: &mut HeaderMap) {
        if self.reader != Reader::Grpc {
            return;
        }
        if let Some((waits, _)) = deadline::of_try(self.left(), per_try)
            && let Ok(value) = HeaderValue::try_from(write_grpc_timeout(waits))
        {
            headers.insert(GRPC_TIMEOUT, value);
        }
    }

    /// The request, to be sent.
    pub(crate) fn sending(&mut self, head: Parts, body: Replay) -> Sending<'i> {
        self.record.goes_on(&head.headers);
        let way = self.leaving.as_ref().map(|leaving| leaving.way.clone());
        Sending::new(head, body, way, Rc::clone(&self.progress), self.interim)
    }

    /// Whether the client reads the status of gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.reader == Reader::Grpc
    }

    /// How often it was tried again.
    pub(crate) fn retries(&self) -> u32 {
        self.record.retries
    }

    /// It is tried again for this reason.
    pub(crate) fn is_tried_again(&mut self, reason: RetryReason) {
        self.record.edge.retried(reason);
        self.record.retries += 1;
        self.record.retry_reason = Some(reason);
    }

    /// It could have been tried again, and is not.
    pub(crate) fn is_not_tried_again(&mut self, stop: Stop) {
        self.record.edge.not_retried(stop);
        self.record.retry_stop = Some(stop);
    }

    /// Waits for the response: as long as the request's body moves or interim responses come, as this try may take,
    /// and as the request may take in all. One timer serves the three.
    ///
    /// # Errors
    /// Those of `sent`; or one of the times is over.
    pub(crate) async fn in_time<T>(
        &self,
        per_try: Option<Duration>,
        sent: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut sent = pin!(sent);
        let ends = deadline::of_try(self.left(), per_try);
        let ends = ends.and_then(|(after, expiry)| Some((Instant::now().checked_add(after)?, expiry)));
        loop {
            let seen = self.moved();
            let idle_at = Instant::now() + self.idle_limit;
            let at = ends.map_or(idle_at, |(at, _)| at.min(idle_at));
            if let Ok(sent) = timeout_at(at, sent.as_mut()).await {
                return sent;
            }
            if let Some((_, expiry)) = ends.filter(|(ends, _)| *ends <= at) {
                return Err(self.expired(expiry, per_try));
            }
            if self.moved() == seen {
                let is_server_silent = self.progress.has_ended();
                let code = if is_server_silent { Code::STREAM_IDLE } else { Code::REQUEST_IDLE };
                return Err(Refusal::new(code, format!("nothing moved for {:?}", self.idle_limit)));
            }
        }
    }

    fn moved(&self) -> u64 {
        self.progress.moved() + self.interim.noted() as u64
    }

    fn expired(&self, expiry: Expiry, per_try: Option<Duration>) -> Refusal {
        match (expiry, self.deadline) {
            (Expiry::Request, Some(deadline)) => deadline.over(),
            _ => Refusal::new(Code::TRY_TIMEOUT, format!("{:?}", per_try.unwrap_or_default())),
        }
    }

    /// What goes back to the client, whatever became of its request.
    pub(crate) fn answer(
        mut self,
        carried: Result<(Response<Body>, Option<Held>), Refusal>,
    ) -> Response<Answer> {
        let (response, held) = match carried {
            Ok(carried) => carried,
            Err(refusal) => {
                self.record.error = Some(refusal.code);
                (self.refused(&refusal), None)
            }
        };
        self.record.responds(response.status(), response.headers());
        if self.reader == Reader::Grpc {
            self.record.grpc_status = grpc_status(response.headers());
        }
        let Exchange { record, reader, progress, idle_limit, deadline, leaving, .. } = self;
        response.map(|body| match (body, leaving) {
            (Body::Tunnel(server), Some(leaving)) => {
                Answer::Tunnel(Some(Box::new(Tunnel::new(leaving, server, record, held))))
            }
            (body, _) => {
                let idle = Idle { limit: idle_limit, deadline, timer: None, seen: 0 };
                Answer::Body(Watched { body, record, reader, progress, idle, _held: held })
            }
        })
    }

    fn refused(&self, refusal: &Refusal) -> Response<Body> {
        let mut response = refusal.to_response(self.reader);
        if self.is_for_peer && refusal.was_not_delivered() {
            response.headers_mut().insert(GAUZE_NOT_DELIVERED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl Watched {
    /// The time is over: the stream to the endpoint ends here. A gRPC client is told by trailers.
    fn end_late(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let had_ended = http_body::Body::is_end_stream(&self.body);
        self.body = Body::Empty;
        self._held = None;
        let late = Err(BodyError::Late);
        if had_ended {
            return None;
        }
        self.note(Some(&late));
        self.idle.deadline = None;
        if self.reader != Reader::Grpc {
            return Some(late);
        }
        let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(GRPC_DEADLINE_EXCEEDED))]);
        self.record.grpc_status = grpc_status(&trailers);
        Some(Ok(Frame::trailers(trailers)))
    }

    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => {
                self.record.sent += payload(frame);
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.ends_with(trailers);
                    self.record.grpc_status = grpc_status(trailers).or(self.record.grpc_status);
                }
            }
            Some(Err(BodyError::Idle)) => self.record.error = Some(Code::STREAM_IDLE),
            Some(Err(BodyError::Late)) => {
                self.record.error = self.idle.deadline.map(|deadline| deadline.code)
            }
            Some(Err(_)) => self.record.error = Some(Code::UPSTREAM_RESET),
            None => {}
        }
    }
}

/// What a gRPC server says of its call, in headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Answer::Body(body) => Pin::new(body).poll_frame(cx),
            Answer::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Body(body) => body.is_end_stream(),
            Answer::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Body(body) => body.size_hint(),
            Answer::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

impl Payload for Answer {
    fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match self {
            Answer::Body(_) => None,
            Answer::Tunnel(tunnel) => tunnel.take(),
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let answer = &mut *self;
        if answer.idle.is_late() {
            return Poll::Ready(answer.end_late());
        }
        let mut frame = match Pin::new(&mut answer.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let moved = answer.progress.moved() + answer.record.sent;
                ready!(answer.idle.poll(moved, cx));
                if answer.idle.is_late() {
                    return Poll::Ready(answer.end_late());
                }
                Some(Err(BodyError::Idle))
            }
        };
        if let Some(Ok(frame)) = &mut frame {
            cleanse_trailers(frame);
        }
        answer.note(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.record.received = self.progress.moved();
    }
}

impl Idle {
    /// Looked at for each frame, but only where there is a deadline.
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline.is_over())
    }

    /// Ready when nothing moved for the limit, or at the deadline.
    fn poll(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() || self.seen != moved {
            self.seen = moved;
            let idle_at = Instant::now() + self.limit;
            let at = self.deadline.map_or(idle_at, |deadline| deadline.at.min(idle_at));
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                none => *none = Some(Box::pin(sleep_until(at))),
            }
        }
        let timer = self.timer.as_mut().expect("it was set just now, or before");
        timer.as_mut().poll(cx)
    }
}
