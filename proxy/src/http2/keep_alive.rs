//! Whether a peer still answers: PING while it matters (RFC 9113, 6.7). A peer that is gone without a word is noticed by
//! nothing else.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// From one answer to the next question (Linkerd's interval), and how long an answer may take.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pings of one connection.
pub(crate) struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    /// Of the next question, or of the answer that is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    has_asked: bool,
}

impl KeepAlive {
    pub(super) fn new(pings: PingPong) -> KeepAlive {
        KeepAlive::every(INTERVAL, TIMEOUT, pings)
    }

    pub(super) fn every(interval: Duration, timeout: Duration, pings: PingPong) -> KeepAlive {
        KeepAlive { pings, interval, timeout, timer: None, has_asked: false }
    }

    /// Ready when the peer has not answered in time. Polled behind its connection, which may have read the answer just
    /// now, and only as long as something waits for the peer does it ask.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, is_awaited: bool) -> Poll<()> {
        if self.has_asked && self.pings.poll_pong(cx).is_ready() {
            self.has_asked = false;
            self.timer = None;
        }
        // Left as it is while nothing is awaited: requests come and go far more often than it ends.
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None if !is_awaited => return Poll::Pending,
            none => none.insert(Box::pin(sleep(self.interval))),
        };
        while timer.as_mut().poll(cx).is_ready() {
            if self.has_asked {
                return Poll::Ready(());
            }
            if !is_awaited {
                self.timer = None;
                return Poll::Pending;
            }
            self.has_asked = self.pings.send_ping(Ping::opaque()).is_ok();
            let next = if self.has_asked { self.timeout } else { self.interval };
            timer.as_mut().reset(Instant::now() + next);
        }
        Poll::Pending
    }
}
