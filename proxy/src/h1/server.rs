//! The server side of an HTTP/1.x connection.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::body::{Body, BodyError};
use crate::stream::Stream;

/// Safe limits of a connection from an app or a peer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From the first byte of a request to the end of its head; then 408.
    pub header_timeout: Duration,
    /// Between two requests; then the connection is closed.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { header_timeout: Duration::from_secs(10), idle_timeout: Duration::from_secs(300) }
    }
}

/// Why a connection ended otherwise than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The response ended early, so the client must not take it for whole.
    #[error("the response body failed: {0}")]
    ResponseBody(BodyError),
}

/// Serves requests one after another until the connection ends.
///
/// When `drain` completes, an idle connection is closed at once, a busy one says `Connection: close`
/// in its current response. A request whose framing is bad never reaches the handler: it is answered
/// here, with our code.
///
/// # Errors
/// The connection broke, or a response could not be sent whole.
pub async fn serve<B>(
    stream: Stream,
    settings: &Settings,
    drain: impl Future<Output = ()>,
    handler: impl AsyncFn(Request<Body>) -> Response<B>,
) -> Result<(), ServeError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let _ = (stream, settings, drain, handler);
    unimplemented!("transport")
}
