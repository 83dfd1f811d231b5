//! Bodies that are written to a stream, as far as its window and its connection let them.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use crate::body::BodyError;

/// A body on its way out.
pub(super) struct Upload<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// A piece that waits for room, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    has_sent: bool,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    pub(super) fn new(stream: SendStream<Bytes>, body: B) -> Upload<B> {
        Upload { stream, body, waiting: None, has_sent: false }
    }

    /// Writes what can be written now. Ready when the body has ended, or nobody takes more of it; whoever reads the
    /// stream hears why. A body that fails resets its stream, for the reason of the stream that it came on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let step = match self.waiting {
                Some(_) => ready!(self.poll_waiting(cx)),
                None => match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => self.take(frame),
                    // Nothing else tells that nobody wants it any more.
                    Poll::Pending => return self.stream.poll_reset(cx).map(drop),
                },
            };
            if step.is_break() {
                return Poll::Ready(());
            }
        }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> ControlFlow<()> {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.stream.send_reset(reason_of(&error.into()));
                return ControlFlow::Break(());
            }
            None => return self.send(Bytes::new(), true),
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.send_trailers(frame),
        };
        let is_last = self.body.is_end_stream();
        // Most bodies are one piece: it need not wait, for h2 keeps it until there is room.
        if !self.has_sent || data.is_empty() {
            return self.send(data, is_last);
        }
        self.stream.reserve_capacity(1);
        self.waiting = Some((data, is_last));
        ControlFlow::Continue(())
    }

    /// Waits until what was sent before has left.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(ControlFlow::Break(()));
            }
        }
        let (data, is_last) = self.waiting.take().unwrap_or_default();
        Poll::Ready(self.send(data, is_last))
    }

    fn send(&mut self, data: Bytes, is_last: bool) -> ControlFlow<()> {
        self.has_sent = true;
        match self.stream.send_data(data, is_last) {
            Ok(()) if !is_last => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn send_trailers(&mut self, frame: Frame<Bytes>) -> ControlFlow<()> {
        // A kind of frame that nobody knows yet means nothing.
        let Ok(trailers) = frame.into_trailers() else { return ControlFlow::Continue(()) };
        let _ = self.stream.send_trailers(trailers);
        ControlFlow::Break(())
    }
}

/// Why a stream ends with its body.
fn reason_of(error: &BodyError) -> Reason {
    let of_a_stream = match error {
        BodyError::Http2(error) | BodyError::GivenUp(error) => error.reason(),
        BodyError::Http1(_) | BodyError::Idle | BodyError::Late => None,
    };
    of_a_stream.unwrap_or(Reason::INTERNAL_ERROR)
}
