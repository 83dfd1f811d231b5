//! One connection: plain TCP or mesh TLS, from either side; or a stream of HTTP/2 that has left HTTP.
//!
//! Concrete and flat: the request path never sees a boxed stream. Protocol detection reads first and
//! puts the bytes back, since `peek` spins while a partial preface lies unread.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use gauze_model::SpiffeId;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::http2::Tunnelled;
use crate::tls::Alpn;

/// One connection, with bytes already read put back in front.
pub struct Stream {
    replay: Bytes,
    io: Io,
    local: SocketAddr,
    remote: SocketAddr,
}

enum Io {
    Plain(TcpStream),
    Server(Box<Tls<server::TlsStream<Plain>>>),
    Client(Box<Tls<client::TlsStream<Plain>>>),
    /// A stream of an HTTP/2 connection, behind a CONNECT.
    Http2(Box<Tunnelled>),
}

/// A stream below TLS: the socket, and what was read of it before it was known to be TLS.
pub(crate) struct Plain {
    replay: Bytes,
    tcp: TcpStream,
}

/// A mesh TLS stream and what its handshake proved.
struct Tls<S> {
    stream: S,
    mesh: Mesh,
}

/// What the handshake of a mesh TLS stream proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Who is at the other end.
    pub peer: SpiffeId,
    /// What is spoken inside.
    pub alpn: Alpn,
    /// The earlier expiry of the two leaves.
    pub leaf_expiry: SystemTime,
}

impl Stream {
    /// A plain connection; small writes are not delayed (`TCP_NODELAY`).
    ///
    /// # Errors
    /// The socket is not connected (any more).
    pub fn plain(tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        let (local, remote) = (tcp.local_addr()?, tcp.peer_addr()?);
        Ok(Stream { replay: Bytes::new(), io: Io::Plain(tcp), local, remote })
    }

    /// Puts bytes that were read back in front: the next read sees them first.
    pub fn put_back(&mut self, bytes: Bytes) {
        if self.replay.is_empty() {
            self.replay = bytes;
        } else {
            self.replay = [bytes, std::mem::take(&mut self.replay)].concat().into();
        }
    }

    /// What the handshake proved; `None` on a plain connection.
    pub fn mesh(&self) -> Option<&Mesh> {
        match &self.io {
            Io::Plain(_) | Io::Http2(_) => None,
            Io::Server(tls) => Some(&tls.mesh),
            Io::Client(tls) => Some(&tls.mesh),
        }
    }

    /// Who is at the other end; known only over mesh TLS.
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.mesh().map(|mesh| &mesh.peer)
    }

    /// When the first of the two leaves expires: an HTTP connection is replaced before.
    pub fn leaf_expiry(&self) -> Option<SystemTime> {
        self.mesh().map(|mesh| mesh.leaf_expiry)
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub fn remote_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Waits until a read will not block: bytes, an end, or an error. No buffer is needed to wait.
    ///
    /// It may be wrong on a plain connection (readiness is a hint) and on HTTP/2, so the read may still be pending.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.replay.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Plain(tcp) => tcp.poll_read_ready(cx),
            Io::Server(tls) => Pin::new(&mut tls.stream).poll_fill_buf(cx).map_ok(|_| ()),
            Io::Client(tls) => Pin::new(&mut tls.stream).poll_fill_buf(cx).map_ok(|_| ()),
            Io::Http2(_) => Poll::Ready(Ok(())), // only a read can tell
        }
    }

    /// As [`Stream::poll_readable`].
    pub async fn readable(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Ends a plain connection with a reset (RST), so that nobody takes it for a clean end. Over TLS the
    /// missing `close_notify` says the same.
    pub fn reset_on_drop(&self) {
        if let Io::Plain(tcp) = &self.io {
            // Fails only on a socket that is broken already.
            let _ = tcp.set_zero_linger();
        }
    }

    pub(crate) fn over_server(tls: server::TlsStream<Plain>, mesh: Mesh, ends: Ends) -> Stream {
        let io = Io::Server(Box::new(Tls { stream: tls, mesh }));
        Stream { replay: Bytes::new(), io, local: ends.local, remote: ends.remote }
    }

    pub(crate) fn over_client(tls: client::TlsStream<Plain>, mesh: Mesh, ends: Ends) -> Stream {
        let io = Io::Client(Box::new(Tls { stream: tls, mesh }));
        Stream { replay: Bytes::new(), io, local: ends.local, remote: ends.remote }
    }

    /// What a CONNECT opened; the addresses are those of its client or server.
    pub(crate) fn over_http2(tunnelled: Tunnelled, local: SocketAddr, remote: SocketAddr) -> Stream {
        Stream { replay: Bytes::new(), io: Io::Http2(Box::new(tunnelled)), local, remote }
    }

    /// Takes a plain connection apart, to put TLS over it; `None` if there is TLS already.
    pub(crate) fn into_plain(self) -> Option<(Plain, Ends)> {
        let ends = Ends { local: self.local, remote: self.remote };
        match self.io {
            Io::Plain(tcp) => Some((Plain { replay: self.replay, tcp }, ends)),
            Io::Server(_) | Io::Client(_) | Io::Http2(_) => None,
        }
    }
}

/// The two addresses of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
}

/// Hands out what was put back, as far as it fits.
fn read_replay(replay: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let length = replay.len().min(buffer.remaining());
    buffer.put_slice(&replay.split_to(length));
}

/// Polls whichever stream lies below with the same method and arguments.
macro_rules! below {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match &mut $stream.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).$method($($argument),*),
            Io::Server(tls) => Pin::new(&mut tls.stream).$method($($argument),*),
            Io::Client(tls) => Pin::new(&mut tls.stream).$method($($argument),*),
            Io::Http2(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.replay.is_empty() {
            read_replay(&mut self.replay, buffer);
            return Poll::Ready(Ok(()));
        }
        below!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        below!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        below!(self, poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true // TcpStream and tokio-rustls both are; HTTP/2 takes the first slice
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, poll_flush(cx))
    }

    /// Half-close: over TLS a `close_notify`, then a FIN. Reading goes on.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, poll_shutdown(cx))
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.replay.is_empty() {
            read_replay(&mut self.replay, buffer);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("mesh", &self.mesh())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        (Stream::plain(near).unwrap(), Stream::plain(far).unwrap())
    }

    #[tokio::test]
    async fn bytes_put_back_are_read_again_first_and_in_order() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"c").await.unwrap();
        near.shutdown().await.unwrap();
        far.put_back(Bytes::from_static(b"b"));
        far.put_back(Bytes::from_static(b"a"));
        far.readable().await.unwrap();
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "abc");
    }

    #[tokio::test]
    async fn a_plain_connection_half_closes_and_knows_its_ends() {
        let (mut near, mut far) = pair().await;
        assert_eq!((near.local_addr(), near.remote_addr()), (far.remote_addr(), far.local_addr()));
        assert_eq!((near.mesh(), near.peer(), near.leaf_expiry()), (None, None, None));
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let mut read = String::new();
        near.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "answer");
    }
}
