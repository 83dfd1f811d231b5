//! A TCP stream that can be made to misbehave between two bytes: cut, half closed or slowed down.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// RST.
    Reset,
    /// FIN, and nothing is read any more.
    End,
    /// FIN, and what comes is read on.
    HalfClose,
}

/// What is to be done to a stream, told while it is used.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Orders>>);

#[derive(Default)]
struct Orders {
    /// How it ends after so many more bytes.
    cut: Option<(Cut, usize)>,
    /// The pause before each byte.
    drip: Option<Duration>,
    waker: Option<Waker>,
}

impl Line {
    /// Ends the stream so when `after` more bytes were written.
    pub(crate) fn cut(&self, how: Cut, after: usize) {
        let mut orders = self.orders();
        orders.cut = Some((how, after));
        if let Some(waker) = orders.waker.take() {
            waker.wake();
        }
    }

    /// Writes a byte at a time, with this pause before each.
    pub(crate) fn drip(&self, pause: Duration) {
        self.orders().drip = Some(pause);
    }

    fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.0.lock().expect("nobody panics with the orders open")
    }
}

pub(crate) struct Wire {
    stream: TcpStream,
    line: Line,
    pause: Option<Pin<Box<Sleep>>>,
    has_ended: bool,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, line: Line) -> Wire {
        Wire { stream, line, pause: None, has_ended: false }
    }

    /// Keeps it open, and does nothing.
    pub(crate) async fn hold(self) {
        std::future::pending().await
    }

    /// Ends it with RST when there is something to read.
    pub(crate) async fn reset_unread(self) {
        let _ = self.stream.peek(&mut [0]).await;
        make_hard(&self.stream);
    }

    /// Reads something, and says what no protocol says.
    pub(crate) async fn babble(mut self) {
        let _ = self.stream.read(&mut [0; 4096]).await;
        let _ = self.stream.write_all(b"what is it that you want?\r\n\r\n").await;
        let _ = self.stream.shutdown().await;
        let _ = tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await;
    }

    /// Ends the stream as ordered; nothing is written from here on.
    fn end(&mut self, how: Cut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match how {
            Cut::Reset => make_hard(&self.stream),
            Cut::End | Cut::HalfClose => {
                self.has_ended = true;
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            }
        }
        if how == Cut::HalfClose {
            Poll::Pending
        } else {
            Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
        }
    }
}

/// Closing it sends RST and drops what is not sent.
fn make_hard(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (cut, drip) = {
            let orders = self.line.orders();
            (orders.cut, orders.drip)
        };
        if let Some((how, 0)) = cut {
            return self.end(how, cx);
        }
        let mut count = cut.map_or(bytes.len(), |(_, left)| left.min(bytes.len()));
        if let Some(pause) = drip {
            let wait = self.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(wait.as_mut().poll(cx));
            self.pause = None;
            count = count.min(1);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..count]))?;
        if let Some((_, left)) = &mut self.line.orders().cut {
            *left -= written.min(*left);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let cut = {
            let mut orders = self.line.orders();
            orders.waker = Some(cx.waker().clone());
            orders.cut
        };
        match cut {
            // A server that has nothing to write would not notice: whoever reads ends it.
            Some((Cut::HalfClose, 0)) if !self.has_ended => {
                let _ = self.end(Cut::HalfClose, cx);
            }
            Some((how @ (Cut::Reset | Cut::End), 0)) => {
                ready!(self.end(how, cx))?;
            }
            _ => {}
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
