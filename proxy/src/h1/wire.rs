//! A connection and what was read of it: heads, then bodies, frame by frame.
//!
//! The buffer owns memory only while it holds bytes: a read goes into one scratch buffer per thread, and
//! what arrived is copied out, as large as it is. That copy costs less than a buffer sized by guessing.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use gauze_model::framing::{BodyFraming, Chunk, ChunkDecoder, HeadScan, Limits, Malformed};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ReadError;
use crate::stream::Stream;

/// What one read takes at most, in bytes.
const READ_MAX: usize = 64 * 1024;

thread_local! {
    /// Every read of this thread goes here first.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX].into());
}

/// RFC 9110, 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub(super) struct Wire {
    pub(super) stream: Stream,
    /// Read and not yet used.
    pub(super) buffer: BytesMut,
    pub(super) limits: Limits,
    body: Reading,
    /// The client waits for `100 Continue`, until the body is read for the first time.
    owes_continue: bool,
    /// Interim responses that are still to be written or flushed.
    ahead: Option<Box<BytesMut>>,
    /// The task that waits for the end of the body, where another one reads it.
    other: Option<Waker>,
}

/// How far the body of the current message is.
enum Reading {
    Ended,
    Length(u64),
    /// Boxed, as what is large and not every message's.
    Chunked(Box<Chunks>),
    UntilClose,
    /// The data has ended, these are to be handed out.
    Trailers(Box<HeaderMap>),
    Broken(Broken),
}

/// Why a body will not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection failed or ended.
    Connection,
    Framing(Malformed),
}

struct Chunks {
    decoder: ChunkDecoder,
    /// What was seen already behind the last frame.
    ahead: Option<Chunk>,
}

impl Wire {
    pub(super) fn new(stream: Stream, limits: Limits) -> Wire {
        Wire {
            stream,
            buffer: BytesMut::new(),
            limits,
            body: Reading::Ended,
            owes_continue: false,
            ahead: None,
            other: None,
        }
    }

    /// What is left when no more HTTP follows: the connection, with what was read and not used back in front. `None`
    /// if somebody else still reads from it.
    pub(super) fn into_stream(wire: Rc<RefCell<Wire>>) -> Option<Stream> {
        let Wire { mut stream, buffer, .. } = Rc::try_unwrap(wire).ok()?.into_inner();
        if !buffer.is_empty() {
            stream.put_back(buffer.freeze());
        }
        Some(stream)
    }

    /// Reads the next head, up to its empty line; `None` if the connection ended before its first byte.
    /// The same `scan` goes with one head until it is whole.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scan: &mut HeadScan,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        loop {
            if let Some(length) = scan.end(&self.buffer, &self.limits)? {
                return Poll::Ready(Ok(Some(self.take(length))));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ReadError::Incomplete)
                });
            }
        }
    }

    /// The head was read: this follows.
    pub(super) fn begin_body(&mut self, framing: BodyFraming, expects_continue: bool) {
        self.body = match framing {
            BodyFraming::Empty | BodyFraming::Length(0) | BodyFraming::Tunnel => Reading::Ended,
            BodyFraming::Length(length) => Reading::Length(length),
            BodyFraming::Chunked => {
                let decoder = ChunkDecoder::new(self.limits);
                Reading::Chunked(Box::new(Chunks { decoder, ahead: None }))
            }
            BodyFraming::UntilClose => Reading::UntilClose,
        };
        self.owes_continue = expects_continue && !self.body_has_ended() && self.buffer.is_empty();
    }

    pub(super) fn body_has_ended(&self) -> bool {
        matches!(self.body, Reading::Ended)
    }

    pub(super) fn broken_body(&self) -> Option<Broken> {
        match self.body {
            Reading::Broken(broken) => Some(broken),
            _ => None,
        }
    }

    /// The client waits for `100 Continue`, which nobody has asked to be written.
    pub(super) fn owes_continue(&self) -> bool {
        self.owes_continue
    }

    pub(super) fn body_size_hint(&self) -> SizeHint {
        match self.body {
            Reading::Ended | Reading::Trailers(_) => SizeHint::with_exact(0),
            Reading::Length(length) => SizeHint::with_exact(length),
            Reading::Chunked(_) | Reading::UntilClose | Reading::Broken(_) => SizeHint::default(),
        }
    }

    /// All of the body at once, if it has arrived already; the way of most responses.
    pub(super) fn take_whole_body(&mut self) -> Option<Bytes> {
        let Reading::Length(length) = self.body else { return None };
        let length = usize::try_from(length).ok().filter(|length| *length <= self.buffer.len())?;
        self.body = Reading::Ended;
        Some(self.take(length))
    }

    /// The next frame of the body; an error ends it.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let frame = ready!(self.poll_frame(cx));
        if let Err(error) = &frame {
            self.body = Reading::Broken(match error {
                ReadError::Malformed(problem) => Broken::Framing(*problem),
                ReadError::Io(_) | ReadError::Incomplete => Broken::Connection,
            });
        }
        if frame.is_err() || self.body_has_ended() {
            self.other.take_if(|other| other.will_wake(cx.waker())); // it runs already
            self.wake_other();
        }
        Poll::Ready(frame.transpose())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, ReadError>> {
        if std::mem::take(&mut self.owes_continue) {
            self.ahead().extend_from_slice(CONTINUE);
        }
        // Who waits for it sends nothing before; nobody else need hear it first.
        let _ = self.poll_ahead(cx)?;
        loop {
            if let Some(frame) = self.next_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            match self.body {
                Reading::Ended => return Poll::Ready(Ok(None)),
                Reading::Broken(_) => return Poll::Ready(Err(ReadError::Incomplete)),
                Reading::Length(_) | Reading::Chunked(_) | Reading::UntilClose | Reading::Trailers(_) => {}
            }
            if ready!(self.poll_fill(cx))? > 0 {
                continue;
            }
            if !matches!(self.body, Reading::UntilClose) {
                return Poll::Ready(Err(ReadError::Incomplete));
            }
            self.body = Reading::Ended;
        }
    }

    /// The next frame, if enough of it is in the buffer.
    fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, Malformed> {
        match &mut self.body {
            Reading::Ended | Reading::Broken(_) => Ok(None),
            Reading::Trailers(trailers) => {
                let trailers = std::mem::take(&mut **trailers);
                self.body = Reading::Ended;
                Ok(Some(Frame::trailers(trailers)))
            }
            Reading::Length(_) | Reading::UntilClose if self.buffer.is_empty() => Ok(None),
            Reading::UntilClose => Ok(Some(Frame::data(self.take(self.buffer.len())))),
            Reading::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                *left -= length as u64;
                if *left == 0 {
                    self.body = Reading::Ended;
                }
                Ok(Some(Frame::data(self.take(length))))
            }
            Reading::Chunked(_) => self.next_chunk(),
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self.decode_chunk()? {
            Chunk::More { consumed } => {
                self.skip(consumed);
                Ok(None)
            }
            Chunk::Data { skip, length } => {
                self.skip(skip);
                let data = self.take(length);
                self.look_ahead()?;
                Ok(Some(Frame::data(data)))
            }
            Chunk::End { consumed, trailers } => {
                self.end_chunks(consumed, trailers);
                self.next_frame()
            }
        }
    }

    fn decode_chunk(&mut self) -> Result<Chunk, Malformed> {
        match &mut self.body {
            Reading::Chunked(chunks) => match chunks.ahead.take() {
                Some(seen) => Ok(seen),
                None => chunks.decoder.next(&self.buffer),
            },
            _ => Ok(Chunk::More { consumed: 0 }),
        }
    }

    /// Sees the last chunk if it arrived with the data, so that the end is known with the last frame.
    fn look_ahead(&mut self) -> Result<(), Malformed> {
        match self.decode_chunk()? {
            Chunk::More { consumed } => self.skip(consumed),
            Chunk::End { consumed, trailers } => self.end_chunks(consumed, trailers),
            data @ Chunk::Data { .. } => {
                if let Reading::Chunked(chunks) = &mut self.body {
                    chunks.ahead = Some(data);
                }
            }
        }
        Ok(())
    }

    fn end_chunks(&mut self, consumed: usize, trailers: HeaderMap) {
        self.skip(consumed);
        self.body = if trailers.is_empty() { Reading::Ended } else { Reading::Trailers(Box::new(trailers)) };
    }

    /// Where interim responses are put.
    pub(super) fn ahead(&mut self) -> &mut BytesMut {
        self.ahead.get_or_insert_default()
    }

    /// Writes interim responses.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(ahead) = &mut self.ahead else { return Poll::Ready(Ok(())) };
        while !ahead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, ahead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ahead.advance(written);
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.ahead = None;
        Poll::Ready(Ok(()))
    }

    /// The final response begins, with what is left of the interim ones in front; none follows.
    pub(super) fn end_ahead(&mut self) -> BytesMut {
        self.owes_continue = false;
        self.ahead.take().map_or_else(BytesMut::new, |ahead| *ahead)
    }

    /// Reads once; 0 is the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            self.buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// The first bytes of the buffer; its memory goes with the last of them.
    fn take(&mut self, length: usize) -> Bytes {
        if length == self.buffer.len() {
            return std::mem::take(&mut self.buffer).freeze();
        }
        self.buffer.split_to(length).freeze()
    }

    fn skip(&mut self, length: usize) {
        self.buffer.advance(length);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Remembers who is to be woken when the body ends or its reader is dropped.
    pub(super) fn wait_for_body(&mut self, cx: &Context<'_>) {
        match &mut self.other {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    pub(super) fn wake_other(&mut self) {
        if let Some(waker) = self.other.take() {
            waker.wake();
        }
    }
}
