//! Message bodies: one concrete enum, so that no body is boxed on the request path.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::h1;
use crate::http2;
use crate::upgrade::Opened;

/// The body of a request or response, as it comes from a connection or from ourselves.
#[derive(Debug)]
pub enum Body {
    Empty,
    /// All of it at once; without trailers.
    Full(Bytes),
    /// Read from an HTTP/1.x connection as it is polled.
    Http1(h1::Incoming),
    /// Read from a stream of HTTP/2 as it is polled.
    Http2(http2::Incoming),
    /// What was looked at already, and what follows it.
    Ahead(Box<(Frame<Bytes>, Body)>),
    /// None: what follows the head is not HTTP.
    Tunnel(Box<Opened>),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Http1(#[from] h1::ReadError),
    #[error("HTTP/2 stream: {0}")]
    Http2(#[from] h2::Error),
    #[error("nothing moved for too long")]
    Idle,
    #[error("the time of the request is over")]
    Late,
    /// Of a request, when its try was given up; its stream is reset with CANCEL.
    #[error("the try was given up: {0}")]
    GivenUp(#[source] h2::Error),
}

impl BodyError {
    pub(crate) fn given_up() -> BodyError {
        BodyError::GivenUp(h2::Reason::CANCEL.into())
    }
}

impl Body {
    pub fn empty() -> Body {
        Body::Empty
    }

    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body::Full(bytes.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match body {
            Body::Empty | Body::Tunnel(_) => Poll::Ready(None),
            Body::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Body::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Body::Http1(incoming) => {
                Poll::Ready(ready!(incoming.poll_frame(cx)).map(|frame| frame.map_err(BodyError::Http1)))
            }
            Body::Http2(incoming) => {
                Poll::Ready(ready!(incoming.poll_frame(cx)).map(|frame| frame.map_err(BodyError::Http2)))
            }
            Body::Ahead(_) => {
                let Body::Ahead(ahead) = std::mem::replace(body, Body::Empty) else {
                    return Poll::Ready(None);
                };
                let (frame, rest) = *ahead;
                *body = rest;
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty | Body::Tunnel(_) => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Http1(incoming) => incoming.is_end_stream(),
            Body::Http2(incoming) => incoming.is_end_stream(),
            Body::Ahead(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty | Body::Tunnel(_) => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Http1(incoming) => incoming.size_hint(),
            // What was declared stands in the headers.
            Body::Http2(_) | Body::Ahead(_) => SizeHint::default(),
        }
    }
}
