//! Bodies that are read from a stream.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::Frame;

use crate::body::Body;

/// A body that is read as it is polled; what was read is credit for the peer at once.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    /// What had come with the head.
    ahead: Option<Bytes>,
    has_data_ended: bool,
}

impl Incoming {
    /// The body behind a head that has just come; most are here already, whole.
    pub(super) fn body(mut stream: RecvStream) -> Body {
        if stream.is_end_stream() {
            return Body::Empty;
        }
        // What failed already fails again when it is read.
        let ahead = match poll_data(&mut stream, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(data))) if stream.is_end_stream() => return Body::Full(data),
            Poll::Ready(Some(Ok(data))) => Some(data),
            Poll::Ready(_) | Poll::Pending => None,
        };
        Body::Http2(Incoming { stream, ahead, has_data_ended: false })
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(ahead))));
        }
        if !self.has_data_ended {
            match ready!(poll_data(&mut self.stream, cx)) {
                Some(data) => return Poll::Ready(unless_over(data.map(Frame::data))),
                None => self.has_data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.and_then(|trailers| unless_over(trailers.map(Frame::trailers))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.stream.is_end_stream()
    }
}

fn poll_data(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
    let data = ready!(stream.poll_data(cx));
    if let Some(Ok(data)) = &data {
        // Fails only if more is given back than was taken.
        let _ = stream.flow_control().release_capacity(data.len());
    }
    Poll::Ready(data)
}

/// RST_STREAM with NO_ERROR says that the rest is not wanted, not that anything failed (RFC 9113, 8.1).
fn unless_over(frame: Result<Frame<Bytes>, h2::Error>) -> Option<Result<Frame<Bytes>, h2::Error>> {
    let is_over = frame.as_ref().is_err_and(|error| error.reason() == Some(Reason::NO_ERROR));
    (!is_over).then_some(frame)
}
