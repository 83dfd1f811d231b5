//! A request on its way out: its head as often as it is sent, its body, and how far the body has come.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Version};
use http_body::{Frame, SizeHint};

use crate::body::BodyError;
use crate::headers::{GAUZE_PEER, cleanse_trailers};
use crate::interim::Interim;
use crate::retry::replay::{Replay, TryBody};
use crate::upgrade::Way;

/// A request that goes out once, or more often.
pub(crate) struct Sending<'i> {
    pub(crate) head: Parts,
    body: Replay,
    progress: Rc<Progress>,
    /// Whether the current try has a connection, and anything may have been sent on it.
    has_begun: bool,
    /// How it asks to leave HTTP.
    pub(crate) way: Option<Way>,
    /// Where what comes before its response is noted.
    pub(crate) interim: &'i Interim,
}

/// The body that one try sends.
pub(crate) struct Outgoing {
    body: TryBody,
    progress: Rc<Progress>,
}

/// How far the body of a request has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// Payload bytes so far, of the last try.
    moved: Cell<u64>,
    has_ended: Cell<bool>,
}

impl Progress {
    pub(crate) fn moved(&self) -> u64 {
        self.moved.get()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }
}

impl<'i> Sending<'i> {
    pub(crate) fn new(
        head: Parts,
        body: Replay,
        way: Option<Way>,
        progress: Rc<Progress>,
        interim: &'i Interim,
    ) -> Sending<'i> {
        Sending { head, body, progress, has_begun: false, way, interim }
    }

    /// Whether it can be sent from its start now.
    pub(crate) fn can_begin(&self) -> bool {
        self.body.can_begin()
    }

    /// Whether it asks for another protocol on a stream of HTTP/2 (RFC 8441).
    pub(crate) fn is_extended_connect(&self) -> bool {
        matches!(self.way, Some(Way::Connect(Some(_))))
    }

    /// The response is passed on: no try follows.
    pub(crate) fn release(&mut self) {
        self.body.release();
    }

    /// Whether anything of the current try may have been sent.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Another try follows: takes out of the head what the last one wrote into it for its connection or peer.
    pub(crate) fn reset(&mut self) {
        self.has_begun = false;
        for of_a_hop in [HOST, TRANSFER_ENCODING, GAUZE_PEER] {
            self.head.headers.remove(of_a_hop);
        }
    }

    /// For HTTP/1, which writes the head from where it stands: the head, the body from its start, and how to leave.
    pub(crate) fn begin(&mut self) -> (&mut Parts, Outgoing, Option<&Way>) {
        let body = self.begin_body();
        (&mut self.head, body, self.way.as_ref())
    }

    /// For HTTP/2, which takes the head away: a copy of it if another try may follow.
    pub(crate) fn begin_http2(&mut self) -> Request<Outgoing> {
        let is_last = self.body.goes_out_once();
        let mut request = Request::new(self.begin_body());
        let Parts { method, uri, headers, .. } = &mut self.head;
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = method.clone();
        if is_last {
            *request.uri_mut() = std::mem::take(uri);
            *request.headers_mut() = std::mem::take(headers);
        } else {
            request.uri_mut().clone_from(uri);
            request.headers_mut().clone_from(headers);
        }
        if let Some(Way::Connect(Some(protocol))) = &self.way {
            request.extensions_mut().insert(protocol.clone());
        }
        request
    }

    fn begin_body(&mut self) -> Outgoing {
        self.has_begun = true;
        let body = self.body.begin();
        self.progress.moved.set(0);
        self.progress.has_ended.set(http_body::Body::is_end_stream(&body));
        Outgoing { body, progress: Rc::clone(&self.progress) }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(BodyError::GivenUp(_))) = &frame {
            return Poll::Ready(frame); // another try counts now
        }
        if let Some(Ok(frame)) = &mut frame {
            cleanse_trailers(frame);
            self.progress.moved.set(self.progress.moved.get() + payload(frame));
        }
        // Whoever sends it need not ask again to hear that nothing follows.
        let has_ended = !matches!(frame, Some(Ok(_))) || http_body::Body::is_end_stream(&self.body);
        self.progress.has_ended.set(has_ended);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

/// The payload bytes of a frame.
pub(crate) fn payload(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

#[cfg(test)]
use crate::body::Body;

#[cfg(test)]
impl Sending<'static> {
    /// A request that nobody watches.
    pub(crate) fn of(request: Request<Body>, body: impl FnOnce(Body) -> Replay) -> Sending<'static> {
        let (head, of_request) = request.into_parts();
        Sending::new(head, body(of_request), None, Rc::default(), Box::leak(Box::default()))
    }
}
