//! A stream that has left HTTP, as bytes in both directions (RFC 9113, 8.5). END_STREAM ends a direction; a stream that is
//! dropped before both have ended is reset, so that nobody takes a tunnel that broke for one that ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of the stream of a CONNECT.
pub(crate) struct Tunnelled {
    outgoing: SendStream<Bytes>,
    incoming: RecvStream,
    /// What was received and not read yet.
    received: Bytes,
    is_shut: bool,
}

impl Tunnelled {
    pub(super) fn new(outgoing: SendStream<Bytes>, incoming: RecvStream) -> Tunnelled {
        Tunnelled { outgoing, incoming, received: Bytes::new(), is_shut: false }
    }

    /// Why nothing can be written any more.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.outgoing.poll_reset(cx).map(|reason| match reason {
            Ok(Reason::NO_ERROR) => io::ErrorKind::BrokenPipe.into(),
            Ok(reason) => broken(reason.into()),
            Err(error) => broken(error),
        })
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(self.incoming.poll_data(cx)) {
                Some(Ok(received)) => self.received = received,
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.received.len().min(buffer.remaining());
        buffer.put_slice(&self.received[..length]);
        self.received.advance(length);
        // Credit is given back for what was read, so that a slow reader slows the writer. It fails only if more is
        // given back than was taken.
        let _ = self.incoming.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.outgoing.reserve_capacity(bytes.len());
        while self.outgoing.capacity() == 0 {
            if !matches!(ready!(self.outgoing.poll_capacity(cx)), Some(Ok(_))) {
                return self.poll_over(cx).map(Err);
            }
        }
        let length = self.outgoing.capacity().min(bytes.len());
        let sent = self.outgoing.send_data(Bytes::copy_from_slice(&bytes[..length]), false);
        Poll::Ready(sent.map(|()| length).map_err(broken))
    }

    /// The task of the connection writes out what was sent.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_shut {
            return Poll::Ready(Ok(()));
        }
        self.is_shut = true;
        Poll::Ready(self.outgoing.send_data(Bytes::new(), true).map_err(broken))
    }
}

fn broken(error: h2::Error) -> io::Error {
    let kind = if error.is_io() { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
    io::Error::new(kind, error)
}
