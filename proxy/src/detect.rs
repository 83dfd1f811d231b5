//! What a connection speaks: reads its first bytes, asks `model::detect`, and puts them back. On ports
//! where nothing is declared, a silent client may be waiting for its server to speak first.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use gauze_model::client_hello::{self, Reading};
use gauze_model::detect::{Detected, detect};
use prometheus::IntCounter;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::Proxy;
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::tcp::Upstream;
use crate::tls::{Hello, hello};

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
    /// TLS of a peer: it offers one of the mesh's protocols.
    Mesh,
    /// The app's own TLS, to be passed through.
    Tls,
    Opaque,
}

/// What a connection of our app asks for, where somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nobody looked, or there is nothing to see.
    #[default]
    Unseen,
    /// TLS to this server name, or to none.
    Tls(Option<Box<str>>),
    /// TLS that cannot be read, and why.
    Unreadable(&'static str),
}

/// How long detection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Silence after which a server may speak first.
    pub(crate) silence: Duration,
    /// From the first byte until the protocol is known.
    pub(crate) head: Duration,
}

impl Speaks {
    /// On a port that is declared to speak HTTP: what else it may look like is for the codec to refuse.
    pub(crate) fn as_http(self) -> Speaks {
        if self == Speaks::Http2 { Speaks::Http2 } else { Speaks::Http1 }
    }

    /// On a port that is declared to speak TLS: what else it may look like is carried as it is.
    pub(crate) fn as_tls(self) -> Speaks {
        if matches!(self, Speaks::Tls | Speaks::Mesh) { Speaks::Tls } else { Speaks::Opaque }
    }
}

impl Patience {
    pub(crate) fn of(proxy: &Proxy) -> Patience {
        let limits = &proxy.settings.limits;
        Patience { silence: limits.detect_timeout, head: limits.header_read_timeout }
    }
}

/// Bytes asked of the socket at once; a post-quantum ClientHello has 1.5 KiB.
const CHUNK: usize = 2048;

/// Waits for the client's first bytes, however long it takes: the server does not speak first here.
///
/// # Errors
/// The connection failed, or its first bytes came too slowly.
pub(crate) async fn client_first(stream: &mut Stream, patience: Patience) -> io::Result<Speaks> {
    Front::of(stream, patience).speaks().await
}

/// Waits for whoever speaks first. After some silence `open` opens the way to the server; that decides
/// nothing: if it fails or ends, or if the client then speaks HTTP, it is forgotten. Only bytes of the
/// *server* make a silent client's connection opaque, with the way that they came. `silent` counts how
/// often it came to that.
///
/// # Errors
/// As [`client_first`].
pub(crate) async fn anyone_first(
    stream: &mut Stream,
    patience: Patience,
    silent: &IntCounter,
    open: impl Future<Output = Result<Upstream, Refusal>>,
) -> io::Result<(Speaks, Option<Upstream>)> {
    let mut front = Front::of(stream, patience);
    if let Ok(first) = timeout(patience.silence, front.first()).await {
        first?;
        return Ok((front.speaks().await?, None));
    }
    silent.inc();
    let mut upstream = tokio::select! {
        biased;
        first = front.first() => { first?; None }
        opened = open => opened.ok(),
    };
    if let Some(open) = &mut upstream {
        tokio::select! {
            biased;
            first = front.first() => first?,
            spoke = has_spoken(&mut open.stream) => match spoke {
                Ok(true) => return Ok((Speaks::Opaque, upstream)),
                Ok(false) | Err(_) => upstream = None,
            }
        }
    }
    let speaks = front.speaks().await?;
    Ok((speaks, upstream.filter(|_| matches!(speaks, Speaks::Opaque | Speaks::Tls))))
}

/// What the ClientHello that a connection begins with asks for; waits until it is whole.
///
/// # Errors
/// As [`client_first`].
pub(crate) async fn server_name(stream: &mut Stream, patience: Patience) -> io::Result<Asks> {
    timeout(patience.head, Front::of(stream, patience).server_name()).await?
}

/// Whether the server's first event is bytes (kept for the client), not an end.
async fn has_spoken(server: &mut Stream) -> io::Result<bool> {
    let mut bytes = BytesMut::new();
    read_some(server, &mut bytes).await?;
    let has_spoken = !bytes.is_empty();
    server.put_back(bytes.freeze());
    Ok(has_spoken)
}

/// The front of a connection, read and put back when this drops.
struct Front<'s> {
    stream: &'s mut Stream,
    bytes: BytesMut,
    has_ended: bool,
    patience: Patience,
}

impl Front<'_> {
    fn of(stream: &mut Stream, patience: Patience) -> Front<'_> {
        Front { stream, bytes: BytesMut::new(), has_ended: false, patience }
    }

    /// Waits for the first byte or the end. May be dropped and called again.
    async fn first(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() && !self.has_ended {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        self.has_ended = read_some(self.stream, &mut self.bytes).await? == 0;
        Ok(())
    }

    async fn speaks(&mut self) -> io::Result<Speaks> {
        self.first().await?;
        timeout(self.patience.head, self.speaks_at_last()).await?
    }

    async fn speaks_at_last(&mut self) -> io::Result<Speaks> {
        loop {
            match detect(&self.bytes, self.has_ended) {
                Detected::Http1 => return Ok(Speaks::Http1),
                Detected::Http2 => return Ok(Speaks::Http2),
                Detected::Opaque => return Ok(Speaks::Opaque),
                Detected::Tls => return self.whose_tls().await,
                Detected::NeedMore => self.more().await?,
            }
        }
    }

    async fn whose_tls(&mut self) -> io::Result<Speaks> {
        loop {
            match hello(&self.bytes) {
                Hello::Mesh => return Ok(Speaks::Mesh),
                Hello::Foreign => return Ok(Speaks::Tls),
                Hello::NeedMore if self.has_ended => return Ok(Speaks::Tls),
                Hello::NeedMore => self.more().await?,
            }
        }
    }

    async fn server_name(&mut self) -> io::Result<Asks> {
        loop {
            match client_hello::read(&self.bytes) {
                Reading::Whole(hello) => return Ok(Asks::Tls(hello.server_name().map(Box::from))),
                Reading::Unreadable(why) => return Ok(Asks::Unreadable(why)),
                Reading::NeedMore if self.has_ended => return Ok(Asks::Unreadable("it ends in the middle")),
                Reading::NeedMore => self.more().await?,
            }
        }
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        self.stream.put_back(self.bytes.split().freeze());
    }
}

/// Reads what is there, without holding a buffer while nothing is.
async fn read_some(stream: &mut Stream, bytes: &mut BytesMut) -> io::Result<usize> {
    stream.readable().await?;
    bytes.reserve(CHUNK);
    stream.read_buf(bytes).await
}

#[cfg(test)]
mod tests;
