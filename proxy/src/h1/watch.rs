//! What a server waits for beside its work: the client's end, and the time.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::wire::{Broken, Wire};

/// Sees that nobody waits for the response any more, or that the request cannot be read on.
pub(super) struct Watch {
    /// How long it may wait after its FIN.
    patience: Duration,
    /// When its FIN was read.
    half_closed: Option<Instant>,
    alarm: Alarm,
}

impl Watch {
    pub(super) fn new(patience: Duration) -> Watch {
        Watch { patience, half_closed: None, alarm: Alarm::default() }
    }

    pub(super) fn poll(&mut self, wire: &RefCell<Wire>, cx: &mut Context<'_>) -> Poll<Broken> {
        let mut wire = wire.borrow_mut();
        if let Some(broken) = wire.broken_body() {
            return Poll::Ready(broken);
        }
        if self.half_closed.is_none() {
            if !wire.body_has_ended() {
                wire.wait_for_body(cx);
                return Poll::Pending;
            }
            if !wire.buffer.is_empty() {
                return Poll::Pending; // the next request is here already; it waits its turn
            }
            match ready!(wire.poll_fill(cx)) {
                Ok(0) => self.half_closed = Some(Instant::now()),
                Ok(_) => return Poll::Pending,
                Err(_) => return Poll::Ready(Broken::Connection),
            }
        }
        let since = self.half_closed.unwrap_or_else(Instant::now);
        self.alarm.poll(since + self.patience, cx).map(|()| Broken::Connection)
    }
}

/// A timer that is set anew only when it rings too early: a busy connection touches no timer at all.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready at `deadline`; each call may name another one.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() < deadline {
            sleep.as_mut().reset(deadline);
            return sleep.as_mut().poll(cx);
        }
        Poll::Ready(())
    }
}
