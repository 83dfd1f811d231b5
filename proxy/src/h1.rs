//! HTTP/1.x on the wire, both sides, on top of `gauze_model::framing`.
//!
//! One request is in flight per connection; everything runs on one worker, so a connection and the
//! body that reads from it share an `Rc`. No buffer is held while a connection is idle.

pub mod client;
pub mod server;

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A message body that is read from its connection as it is polled. Dropping it unread makes the
/// connection unusable.
#[derive(Debug)]
pub struct Incoming {}

/// Why a message could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading from the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the connection ended inside a message")]
    Incomplete,
}

impl Incoming {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let _ = cx;
        unimplemented!("transport")
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        unimplemented!("transport")
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        unimplemented!("transport")
    }
}
