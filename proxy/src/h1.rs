//! HTTP/1.x on the wire, both sides, on top of `gauze_model::framing`.
//!
//! The decision for a codec of our own, with its numbers, is in `docs/decisions/001-http1-codec.md`.
//! One request is in flight per connection. Everything of a connection runs on one worker, so it
//! and the body that reads from it share an `Rc`. No buffer is held while a connection is idle.
//! Not here: hop-by-hop headers (`headers.rs`), pools (`connect.rs`), what becomes of a connection that has left HTTP (`upgrade.rs`).

pub mod client;
mod outgoing; // a message on its way out
pub mod server;
mod watch; // the client's end, and the time
mod wire; // the connection, and reading from it

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gauze_model::framing::Malformed;
use http_body::{Frame, SizeHint};

use client::Connection;
use wire::Wire;

/// A message body that is read from its connection as it is polled.
pub struct Incoming {
    wire: Rc<RefCell<Wire>>,
    /// The connection to go home with when the body ends; on the client's side only.
    connection: Option<Connection>,
}

/// Why a message could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading from the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the connection ended inside a message")]
    Incomplete,
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

impl Incoming {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let frame = ready!(self.wire.borrow_mut().poll_body(cx));
        if self.is_end_stream() {
            self.go_home();
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.wire.borrow().body_has_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.wire.borrow().body_size_hint()
    }

    /// The last byte was read: the connection is free before the reader notices the end.
    fn go_home(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.go_home();
        }
    }
}

impl Drop for Incoming {
    /// A client's connection ends here if the body was not read to its end; a server goes on with the rest.
    fn drop(&mut self) {
        self.wire.borrow_mut().wake_other();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
