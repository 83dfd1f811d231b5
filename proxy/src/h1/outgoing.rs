//! A message on its way out: head, body in its framing, trailers. What is ready goes out in one
//! vectored write: a small message is one system call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use gauze_model::framing::{write_chunk_size, write_last_chunk};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWrite;

use super::wire::Wire;
use crate::body::BodyError;

/// How the end of a body is told to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body, whatever the headers say of one (an answer to HEAD, 204, 304).
    Nothing,
    /// So many bytes (still to come).
    Length(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Why a message could not be written to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("writing to the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Body(BodyError),
    #[error("the body has another length than Content-Length says")]
    Length,
}

/// A message that is being written.
pub(super) struct Outgoing<B> {
    /// `None` when the last byte was gathered.
    body: Option<B>,
    framing: Framing,
    batch: Batch,
    /// Bytes that the connection took so far.
    pub(super) written: u64,
}

/// What is written next, in this order.
#[derive(Default)]
struct Batch {
    before: BytesMut,
    data: Bytes,
    after: BytesMut,
    written: usize,
}

/// How the body of a message is framed, from what its headers declare and what the body knows of itself.
pub(super) fn framing_of<B: http_body::Body>(headers: &HeaderMap, body: &B) -> Framing {
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    match declared_length(headers).or_else(|| body.size_hint().exact()) {
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Makes the fields of framing and persistence ours: they belong to this connection, whatever stood there.
pub(super) fn settle(headers: &mut HeaderMap, framing: Framing, connection: Option<&'static str>) {
    headers.remove(TRANSFER_ENCODING);
    headers.remove(KEEP_ALIVE);
    headers.remove(CONNECTION);
    if let Some(option) = connection {
        headers.insert(CONNECTION, HeaderValue::from_static(option));
    }
    match framing {
        Framing::Length(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Framing::Chunked => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Framing::UntilClose => {
            headers.remove(CONTENT_LENGTH);
        }
        Framing::Nothing => {}
    }
}

impl<B> Outgoing<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    pub(super) fn new(head: BytesMut, framing: Framing, body: B) -> Outgoing<B> {
        let body = (!matches!(framing, Framing::Nothing | Framing::Length(0))).then_some(body);
        Outgoing { body, framing, batch: Batch { before: head, ..Batch::default() }, written: 0 }
    }

    /// Whether the other side would take the end of the connection for the end of the message.
    pub(super) fn ends_with_the_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Writes the head alone, without a look at the body.
    pub(super) fn poll_head(&mut self, wire: &RefCell<Wire>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_batch(wire, cx))?;
        poll_flush(wire, cx)
    }

    /// Writes all that can be written now; ready when the message has ended and was flushed.
    pub(super) fn poll(
        &mut self,
        wire: &RefCell<Wire>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        loop {
            let gathered = self.poll_gather(cx)?;
            ready!(self.poll_batch(wire, cx))?;
            if gathered.is_pending() || self.body.is_none() {
                ready!(poll_flush(wire, cx))?;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(gathered);
        }
    }

    /// Puts the next piece of the body into the batch, unless one is on its way already.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        if self.batch.has_data() {
            return Poll::Ready(Ok(()));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) else {
            return Poll::Ready(self.end(&HeaderMap::new()));
        };
        let frame = frame.map_err(|error| WriteError::Body(error.into()))?;
        Poll::Ready(match frame.into_data() {
            Ok(data) => self.put_data(data),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.end(&trailers),
                Err(_) => Ok(()),
            },
        })
    }

    fn put_data(&mut self, data: Bytes) -> Result<(), WriteError> {
        if data.is_empty() {
            return Ok(()); // an empty chunk would be the last one
        }
        let length = data.len() as u64;
        match &mut self.framing {
            Framing::Length(left) => *left = left.checked_sub(length).ok_or(WriteError::Length)?,
            Framing::Chunked => {
                write_chunk_size(&mut self.batch.before, data.len());
                self.batch.after.extend_from_slice(b"\r\n");
            }
            Framing::UntilClose | Framing::Nothing => {}
        }
        self.batch.data = data;
        match &self.body {
            Some(body) if body.is_end_stream() => self.end(&HeaderMap::new()),
            _ => Ok(()),
        }
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), WriteError> {
        self.body = None;
        match self.framing {
            Framing::Length(0) | Framing::UntilClose | Framing::Nothing => {}
            Framing::Length(_) => return Err(WriteError::Length),
            Framing::Chunked => write_last_chunk(&mut self.batch.after, trailers),
        }
        Ok(())
    }

    fn poll_batch(&mut self, wire: &RefCell<Wire>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.batch.is_empty() {
            let stream = &mut wire.borrow_mut().stream;
            let slices = self.batch.slices();
            let written = ready!(Pin::new(stream).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.batch.written += written;
            self.written += written as u64;
        }
        self.batch.clear();
        Poll::Ready(Ok(()))
    }
}

fn poll_flush(wire: &RefCell<Wire>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Pin::new(&mut wire.borrow_mut().stream).poll_flush(cx)
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.written == self.before.len() + self.data.len() + self.after.len()
    }

    /// Whether a piece of the body, or its end, is in it.
    fn has_data(&self) -> bool {
        !self.data.is_empty() || !self.after.is_empty()
    }

    /// What is not written yet.
    fn slices(&self) -> [IoSlice<'_>; 3] {
        let mut skip = self.written;
        [&self.before[..], &self.data[..], &self.after[..]].map(|piece| {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            IoSlice::new(&piece[skipped..])
        })
    }

    /// Keeps the memory for the next piece.
    fn clear(&mut self) {
        self.before.clear();
        self.data = Bytes::new();
        self.after.clear();
        self.written = 0;
    }
}
