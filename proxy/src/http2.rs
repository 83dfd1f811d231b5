//! HTTP/2 on the wire: the `h2` crate does frames, HPACK, flow control and the states of streams; what a proxy needs
//! around it stands here, flat. One task drives a connection, and everything of it stays on one worker. A request of a
//! client is a task there; a request to an endpoint runs in the task of whoever sends it.
//!
//! What is pooled, and what a connection counts against, is decided above (`connect`, `serve`).

pub(crate) mod client; // requests to an endpoint
mod incoming; // bodies that are read
mod keep_alive; // whether a peer still answers
mod outgoing; // bodies that are written
pub(crate) mod server; // requests of a client
mod tunnel; // a stream that has left HTTP

pub use incoming::Incoming;
pub(crate) use keep_alive::KeepAlive;
pub(crate) use tunnel::Tunnelled;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, Entry};
use http_body::Body;

use crate::headers::strip_hop_by_hop;

/// How many bytes of credit a peer may fill before we read: of one stream, of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Streams that we may have to reset for a peer's errors before its connection is ended.
const RESETS_LOCAL_MAX: usize = 1024;

/// What a stream may have written that the connection has not sent yet, in bytes.
const SEND_BUFFER_MAX: usize = 400 * 1024;

/// Makes the fields of a head those of HTTP/2: nothing of one hop (RFC 9113, 8.2.2), which a route may have set, and
/// the length of a body that is known whole.
fn settle(headers: &mut HeaderMap, body: &impl Body, says_none: bool) {
    strip_hop_by_hop(headers);
    let Some(length) = body.size_hint().exact().filter(|length| *length > 0 || says_none) else { return };
    if let Entry::Vacant(missing) = headers.entry(CONTENT_LENGTH) {
        missing.insert(length.into());
    }
}

#[cfg(test)]
mod tests;
