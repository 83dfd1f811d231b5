//! The client side of an HTTP/1.x connection.

use std::any::Any;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};

use crate::body::{Body, BodyError};
use crate::stream::Stream;

/// A connection that can carry a request now.
pub struct Connection {}

/// Where a connection goes when it can carry the next request: its pool.
pub type Home = Rc<dyn Fn(Connection)>;

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct SendError {
    /// No byte of the request was written: it is safe to send it again, whatever its method.
    pub not_delivered: bool,
    pub kind: SendErrorKind,
}

#[derive(Debug, thiserror::Error)]
pub enum SendErrorKind {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed before the response")]
    Closed,
    #[error("the request body failed: {0}")]
    RequestBody(BodyError),
}

impl Connection {
    /// `guard` (a limit's permit, a gauge) is dropped when the connection ends.
    pub fn new(stream: Stream, home: Home, guard: impl Any) -> Connection {
        let _ = (stream, home, guard);
        unimplemented!("transport")
    }

    /// Whether the peer has neither closed the idle connection nor sent bytes unasked. Costs one system call
    /// at most; ask before each reuse.
    pub fn is_usable(&mut self) -> bool {
        unimplemented!("transport")
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// An authority in the URI takes the place of `Host`. When both messages have ended cleanly the
    /// connection goes home; otherwise it is closed.
    ///
    /// # Errors
    /// There is no response; the connection is closed.
    pub async fn send<B>(self, request: Request<B>) -> Result<Response<Body>, SendError>
    where
        B: http_body::Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        let _ = request;
        unimplemented!("transport")
    }
}
