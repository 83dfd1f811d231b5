//! The body of a request, kept while it goes out so that another try can begin from its start. What the
//! client has not sent yet still comes from the client: a try replays what was kept and then goes on with it.
//!
//! Pieces are kept as they came (shared, not copied), trailers too, up to a limit; what exceeds it is
//! let go at once, and the request can no longer be tried again. When the response is passed on nothing is
//! kept any more. A body that is empty or at hand as a whole costs nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use gauze_model::retry::RetryPolicy;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};

/// The body of a request, for as long as another try may follow.
pub(crate) enum Replay {
    /// Empty, or all there.
    AtHand(Body),
    Kept(Rc<RefCell<Kept>>),
    /// It goes out once; `None`: it did.
    Once(Option<Body>),
}

/// The body as one try sends it.
pub(crate) enum TryBody {
    Whole(Body),
    /// Of the try of this number.
    Kept(Rc<RefCell<Kept>>, u32),
}

/// What was read of a body, and where the rest comes from.
pub(crate) struct Kept {
    source: Body,
    /// Whether anything was read from it.
    begun: bool,
    pieces: VecDeque<Piece>,
    /// How many of them the current try has sent.
    next: usize,
    /// Bytes of all of them.
    size: usize,
    /// Bytes at most; `None`: nothing is kept any more, pieces are let go when they are sent.
    limit: Option<usize>,
    /// The number of the current try; bodies of earlier ones end with an error.
    current: u32,
    /// Whether the current try is the last, for good.
    is_released: bool,
    /// The task that sends the current one, while it waits for the client.
    waiting: Option<Waker>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

/// Pieces kept at most: each holds on to the memory that it was read into, however small it is.
const PIECES_MAX: usize = 1024;

/// What a field of the trailers counts beside its bytes (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

impl Replay {
    /// Keeps up to `limit` bytes.
    pub(crate) fn new(body: Body, limit: usize) -> Replay {
        match body {
            Body::Empty => Replay::AtHand(Body::Empty),
            Body::Full(bytes) if bytes.len() <= limit => Replay::AtHand(Body::Full(bytes)),
            body if body.is_end_stream() => Replay::AtHand(Body::Empty),
            body => Replay::Kept(Rc::new(RefCell::new(Kept::new(body, limit)))),
        }
    }

    /// Keeps what the policy says, if it allows any retry.
    pub(crate) fn for_retries(body: Body, policy: &RetryPolicy) -> Replay {
        match policy.retries {
            0 => Replay::at_hand(body),
            _ => Replay::new(body, policy.replay_limit as usize),
        }
    }

    /// Of a request that is sent once: what is at hand can still be sent again at once on another
    /// connection to the same endpoint.
    pub(crate) fn at_hand(body: Body) -> Replay {
        match body {
            Body::Empty | Body::Full(_) => Replay::AtHand(body),
            body => Replay::Once(Some(body)),
        }
    }

    pub(crate) fn goes_out_once(&self) -> bool {
        matches!(self, Replay::Once(_))
    }

    /// Whether a try that begins now sends the whole body.
    pub(crate) fn can_begin(&self) -> bool {
        match self {
            Replay::AtHand(_) => true,
            Replay::Kept(kept) => kept.borrow().can_begin(),
            Replay::Once(body) => body.is_some(),
        }
    }

    /// The body from its start, for the next try; that of the try before ends. Only if it
    /// [can begin](Replay::can_begin); else it is cut short.
    pub(crate) fn begin(&mut self) -> TryBody {
        match self {
            Replay::AtHand(Body::Full(bytes)) => TryBody::Whole(Body::Full(bytes.clone())),
            Replay::AtHand(_) => TryBody::Whole(Body::Empty),
            Replay::Once(body) => TryBody::Whole(body.take().unwrap_or(Body::Empty)),
            Replay::Kept(kept) => {
                let current = kept.borrow_mut().begin();
                TryBody::Kept(Rc::clone(kept), current)
            }
        }
    }

    /// The response is passed on: the rest of the body goes through the current try, and nothing is kept.
    pub(crate) fn release(&mut self) {
        if let Replay::Kept(kept) = self {
            kept.borrow_mut().release();
        }
    }
}

impl Drop for Replay {
    /// Nobody waits for a response any more: whoever still sends the body ends its stream.
    fn drop(&mut self) {
        if let Replay::Kept(kept) = self {
            kept.borrow_mut().give_up();
        }
    }
}

impl Kept {
    fn new(source: Body, limit: usize) -> Kept {
        // What says that it is too long is not begun to be kept.
        let fits = source.size_hint().lower() <= limit as u64;
        Kept {
            source,
            begun: false,
            pieces: VecDeque::new(),
            next: 0,
            size: 0,
            limit: fits.then_some(limit),
            current: 0,
            is_released: false,
            waiting: None,
        }
    }

    fn can_begin(&self) -> bool {
        !self.begun || self.limit.is_some()
    }

    fn begin(&mut self) -> u32 {
        self.next = 0;
        self.current += 1;
        self.wake();
        self.current
    }

    fn release(&mut self) {
        self.is_released = true;
        self.pieces.drain(..self.next);
        self.stop_keeping();
    }

    fn give_up(&mut self) {
        if !self.is_released {
            self.current += 1;
            self.wake();
        }
    }

    /// Pieces that are still to be sent stay until they are.
    fn stop_keeping(&mut self) {
        self.limit = None;
        self.next = 0;
    }

    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn poll_frame(
        &mut self,
        number: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if number != self.current {
            return Poll::Ready(Some(Err(BodyError::given_up())));
        }
        if let Some(piece) = self.next_kept() {
            return Poll::Ready(Some(Ok(piece.into_frame())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.source).poll_frame(cx) else {
            match &mut self.waiting {
                Some(waiting) => waiting.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        self.begun = true;
        match &frame {
            Some(Ok(frame)) => self.keep(frame),
            Some(Err(_)) => self.forget(), // the client went away: there is no whole body any more
            None => {}
        }
        Poll::Ready(frame)
    }

    fn next_kept(&mut self) -> Option<Piece> {
        if self.limit.is_none() {
            return self.pieces.pop_front();
        }
        let piece = self.pieces.get(self.next)?.clone();
        self.next += 1;
        Some(piece)
    }

    /// Keeps a frame that the current try sends now, if it still fits.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(limit) = self.limit else { return };
        let Some((piece, size)) = Piece::of(frame) else { return };
        self.size += size;
        if self.size > limit || self.pieces.len() >= PIECES_MAX {
            return self.forget();
        }
        self.pieces.push_back(piece);
        self.next += 1;
    }

    fn forget(&mut self) {
        self.pieces = VecDeque::new();
        self.stop_keeping();
    }

    fn is_end(&self) -> bool {
        self.next >= self.pieces.len() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut left = 0;
        for piece in self.pieces.iter().skip(self.next) {
            match piece {
                Piece::Data(bytes) => left += bytes.len() as u64,
                Piece::Trailers(_) => return SizeHint::default(), // a length would leave no room for them
            }
        }
        let source = self.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(source.lower() + left);
        if let Some(upper) = source.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}

impl Piece {
    /// A piece, and what it counts.
    fn of(frame: &Frame<Bytes>) -> Option<(Piece, usize)> {
        if let Some(data) = frame.data_ref() {
            return Some((Piece::Data(data.clone()), data.len()));
        }
        let trailers = frame.trailers_ref()?;
        let fields = trailers.iter();
        let size = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
        Some((Piece::Trailers(Box::new(trailers.clone())), size))
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

impl http_body::Body for TryBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            TryBody::Whole(body) => Pin::new(body).poll_frame(cx),
            TryBody::Kept(kept, number) => kept.borrow_mut().poll_frame(*number, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            TryBody::Whole(body) => body.is_end_stream(),
            TryBody::Kept(kept, number) => {
                let kept = kept.borrow();
                *number == kept.current && kept.is_end()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            TryBody::Whole(body) => body.size_hint(),
            TryBody::Kept(kept, _) => kept.borrow().size_hint(),
        }
    }
}

#[cfg(test)]
mod tests;
