//! Gathers what an HTTP/2 connection writes, so that the frames of many streams leave in one TLS record and one system
//! call. h2 by itself writes, and flushes, whenever a DATA frame is in the way of the next one: with 1 KiB responses
//! that is a record and a call for each.
//!
//! Whatever is written while the connection's task is polled goes out at the end of that poll, by [`Gathered::leave`]:
//! nothing waits longer than the task itself runs.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// What is gathered at most, in bytes; then writing waits for the socket. Four full TLS records.
const GATHERED_MAX: usize = 64 * 1024;

/// From this size on bytes are not copied to be gathered, they leave by themselves.
const LARGE: usize = 8 * 1024;

thread_local! {
    /// Room that no connection uses now: one that has nothing to write holds none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection, seen by its HTTP/2 side and by the task that polls it.
#[derive(Clone)]
pub(crate) struct Gathered(Rc<RefCell<Inner>>);

struct Inner {
    stream: Stream,
    gathered: Vec<u8>,
    /// How much of it has been written.
    written: usize,
}

impl Gathered {
    pub(crate) fn new(stream: Stream) -> Gathered {
        Gathered(Rc::new(RefCell::new(Inner { stream, gathered: Vec::new(), written: 0 })))
    }

    /// Polls the task of the connection, then lets leave what it has written.
    pub(crate) async fn drive<F: Future>(&self, task: F) -> F::Output {
        let mut task = std::pin::pin!(task);
        poll_fn(|cx| {
            let polled = task.as_mut().poll(cx);
            self.leave(cx);
            polled
        })
        .await
    }

    /// Writes out what was gathered, as far as the socket takes it; it wakes the task when it takes more. An error is
    /// heard by the next write or read.
    pub(crate) fn leave(&self, cx: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if !inner.gathered.is_empty() {
            let _ = inner.poll_flush(cx);
        }
    }
}

impl Inner {
    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(&mut self.stream)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        self.stream().poll_flush(cx)
    }

    /// Hands everything gathered to the stream.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(cx, &self.gathered[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        if self.written > 0 {
            self.gathered.clear();
            self.written = 0;
            SPARE.set(std::mem::take(&mut self.gathered));
        }
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.take();
        }
        self.gathered.extend_from_slice(bytes);
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length >= LARGE || inner.gathered.len() + length > GATHERED_MAX {
            ready!(inner.poll_empty(cx))?;
        }
        if length >= LARGE {
            return inner.stream().poll_write_vectored(cx, slices);
        }
        for slice in slices {
            inner.gather(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is held back for longer than the task of the connection runs.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        match inner.gathered.is_empty() {
            true => inner.stream().poll_flush(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        inner.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (Gathered, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        (Gathered::new(Stream::plain(near).unwrap()), far)
    }

    async fn write(to: &Gathered, bytes: &[u8]) {
        let mut to = to.clone();
        let mut left = bytes;
        while !left.is_empty() {
            let written = poll_fn(|cx| Pin::new(&mut to).poll_write(cx, left)).await.unwrap();
            left = &left[written..];
        }
        poll_fn(|cx| Pin::new(&mut to).poll_flush(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_task_writes_leaves_at_the_end_of_its_poll_and_not_before() {
        let (near, mut far) = pair().await;
        write(&near, b"HEAD").await;
        write(&near, b"BODY").await;
        let mut read = [0; 16];
        assert!(timeout(Duration::from_millis(20), far.read(&mut read)).await.is_err());
        assert!(near.drive(pending::<()>()).now_or_never().is_none());
        assert_eq!(far.read(&mut read).await.unwrap(), 8);
        assert_eq!(&read[..8], b"HEADBODY");
    }

    #[tokio::test]
    async fn sizes_change_no_order_and_nothing_is_left_behind_at_the_end() {
        let (near, mut far) = pair().await;
        let sent: Vec<u8> = (0..40).flat_map(|size: u8| vec![size; usize::from(size) * 997]).collect();
        let all = sent.len();
        let writer = async {
            for part in sent.chunk_by(|one, other| one == other) {
                near.drive(write(&near, part)).await;
            }
            near.drive(ready(())).await;
            let mut near = near.clone();
            poll_fn(|cx| Pin::new(&mut near).poll_shutdown(cx)).await.unwrap();
        };
        let mut read = Vec::with_capacity(all);
        let (_, length) = tokio::join!(writer, far.read_to_end(&mut read));
        assert_eq!((length.unwrap(), read == sent), (all, true));
    }

    #[tokio::test]
    async fn a_connection_that_has_written_everything_holds_no_room() {
        let (near, _far) = pair().await;
        near.drive(write(&near, b"answer")).await;
        assert_eq!(near.0.borrow().gathered.capacity(), 0);
    }
}
