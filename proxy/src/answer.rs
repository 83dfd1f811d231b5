//! Bodies on their way through: counted, watched for idleness, and holding what a request holds
//! (its record, its places within limits, its stream) until the last byte of the response is gone.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gauze_model::Code;
use http::request::Parts;
use http::{HeaderMap, Request, Response, Version};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, timeout};

use crate::balance::InFlight;
use crate::body::{Body, BodyError};
use crate::connect::{StreamHeld, Wire};
use crate::record::Record;
use crate::refusal::{Reader, Refusal};
use crate::target::{EndpointTarget, Permit};

/// The request body that goes out.
pub(crate) struct Outgoing {
    body: Body,
    progress: Rc<Progress>,
}

/// How far the body of a request has come.
#[derive(Default)]
struct Progress {
    /// Payload bytes so far.
    moved: Cell<u64>,
    has_ended: Cell<bool>,
}

/// The response body that goes back.
pub(crate) struct Answer {
    body: Body,
    record: Record,
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
pub(crate) struct Exchange {
    record: Record,
    reader: Reader,
    progress: Rc<Progress>,
    idle_limit: Duration,
}

/// Ends a body on which nothing moves, either way.
struct Idle {
    limit: Duration,
    /// Made when the body waits for the first time; short bodies never do.
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

impl Exchange {
    pub(crate) fn new(record: Record, reader: Reader, idle_limit: Duration) -> Exchange {
        Exchange { record, reader, progress: Rc::default(), idle_limit }
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

    /// The request as it goes out.
    pub(crate) fn request(&self, mut head: Parts, body: Body, wire: Wire) -> Request<Outgoing> {
        head.version = match wire {
            Wire::Http1 => Version::HTTP_11,
            Wire::Http2 => Version::HTTP_2,
        };
        self.progress.has_ended.set(http_body::Body::is_end_stream(&body));
        Request::from_parts(head, Outgoing { body, progress: Rc::clone(&self.progress) })
    }

    /// Waits for the response, as long as the request's body moves.
    ///
    /// # Errors
    /// Those of `sent`; or nothing moved for too long.
    pub(crate) async fn unless_idle<T>(
        &self,
        sent: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut sent = pin!(sent);
        loop {
            let seen = self.progress.moved.get();
            if let Ok(sent) = timeout(self.idle_limit, sent.as_mut()).await {
                return sent;
            }
            if self.progress.moved.get() == seen {
                let is_server_silent = self.progress.has_ended.get();
                let code = if is_server_silent { Code::STREAM_IDLE } else { Code::REQUEST_IDLE };
                return Err(Refusal::new(code, format!("nothing moved for {:?}", self.idle_limit)));
            }
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
                (refusal.to_response(self.reader), None)
            }
        };
        self.record.status = Some(response.status());
        if self.reader == Reader::Grpc {
            self.record.grpc_status = grpc_status(response.headers());
        }
        let Exchange { record, progress, idle_limit, .. } = self;
        let idle = Idle { limit: idle_limit, timer: None, seen: 0 };
        response.map(|body| Answer { body, record, progress, idle, _held: held })
    }
}

impl Outgoing {
    /// The request once more, where that costs nothing: its body is empty or at hand. It is for a
    /// connection that turns out to have ended; a body that streams is kept by nobody (retries will).
    pub(crate) fn copy(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
        let Outgoing { body, progress } = request.body();
        let body = match body {
            Body::Full(bytes) => Body::Full(bytes.clone()),
            body if http_body::Body::is_end_stream(body) => Body::Empty,
            _ => return None,
        };
        let mut copy = Request::new(Outgoing { body, progress: Rc::clone(progress) });
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        Some(copy)
    }

    /// It goes out from its start: what was sent before does not count.
    pub(crate) fn restart(&self) {
        self.progress.moved.set(0);
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.progress.moved.set(self.progress.moved.get() + payload(frame));
        }
        // Whoever sends it need not ask again to hear that nothing follows.
        self.progress.has_ended.set(!matches!(frame, Some(Ok(_))) || self.body.is_end_stream());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn payload(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl Answer {
    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => {
                self.record.sent += payload(frame);
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.grpc_status = grpc_status(trailers).or(self.record.grpc_status);
                }
            }
            Some(Err(BodyError::Idle)) => self.record.error = Some(Code::STREAM_IDLE),
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let answer = &mut *self;
        let frame = match Pin::new(&mut answer.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let moved = answer.progress.moved.get() + answer.record.sent;
                ready!(answer.idle.poll(moved, cx));
                Some(Err(BodyError::Idle))
            }
        };
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

impl Drop for Answer {
    fn drop(&mut self) {
        self.record.received = self.progress.moved.get();
    }
}

impl Idle {
    /// Ready when nothing moved for the limit.
    fn poll(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if self.seen != moved {
            self.seen = moved;
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
impl Outgoing {
    /// A body that nobody watches.
    pub(crate) fn of(body: Body) -> Outgoing {
        Outgoing { body, progress: Rc::default() }
    }
}
