//! Interim responses (RFC 9110, 15.2): 103 Early Hints and others that come before the final one, passed on by whoever
//! reads the endpoint's answer to whoever writes to the client. Both run in one task, the request's: what is noted while
//! the request's future is polled is taken when that poll returns, so no waker is needed.
//!
//! Not here: `100 Continue`, which each sidecar sees to by itself (`h1`), and 101, which ends HTTP (`upgrade`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};

use crate::headers;

/// The interim responses of one request, on their way to its client.
#[derive(Default)]
pub struct Interim {
    /// Allocates nothing while there are none.
    waiting: RefCell<VecDeque<Response<()>>>,
    noted: Cell<usize>,
}

/// How many of one request are passed on, over all its tries.
const NOTED_MAX: usize = 16;

impl Interim {
    /// Passes it on, cleared of what is not for the next hop and of what only a proxy may say. Those that end here, and those
    /// beyond the limit, are passed over.
    pub(crate) fn note(&self, mut response: Response<()>) {
        if !goes_on(response.status()) || self.noted.get() == NOTED_MAX {
            return;
        }
        self.noted.set(self.noted.get() + 1);
        headers::go_back(&mut response, false);
        response.headers_mut().remove(CONTENT_LENGTH); // RFC 9110, 8.6
        self.waiting.borrow_mut().push_back(response);
    }

    /// The next one to be written, in their order.
    pub(crate) fn take(&self) -> Option<Response<()>> {
        self.waiting.borrow_mut().pop_front()
    }

    /// How many there were.
    pub(crate) fn noted(&self) -> usize {
        self.noted.get()
    }
}

fn goes_on(status: StatusCode) -> bool {
    let ends_here = matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
    status.is_informational() && !ends_here
}
