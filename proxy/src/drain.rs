//! How a proxy goes, one stage after the other and never back. Ordered to drain, it sends those who call the app to
//! other pods, and still accepts them: whoever has not heard of it yet loses nothing. Told to end (SIGTERM), it
//! finishes what is in flight, and waits for nothing idle. What each stage means for a connection is decided where
//! connections are carried.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How far the proxy is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    Serving,
    /// The pod begins to end. Inbound: not ready, clients are told to go elsewhere, all are still served. Outbound:
    /// nothing changes, for the app is still at work.
    Draining,
    /// The app is gone: what is in flight is finished, nothing else.
    Ending,
}

/// What is in flight at the end is given this long, whatever it is: kubelet leaves a sidecar 2 s in the worst case.
pub(crate) const FINISH_TIMEOUT: Duration = Duration::from_millis(900);

/// At the end, a connection that moves no byte for this long has none in flight.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

/// The stage of this process, seen by all its threads.
#[derive(Debug)]
pub struct Drain {
    stage: AtomicU8,
    changed: Notify,
}

impl Drain {
    pub(crate) fn new() -> Drain {
        Drain { stage: AtomicU8::new(Stage::Serving as u8), changed: Notify::new() }
    }

    /// The stage now; takes no lock.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Ending,
        }
    }

    /// Goes on to a stage. Says whether that is news: an order that comes twice changes nothing.
    pub(crate) fn advance(&self, to: Stage) -> bool {
        let former = self.stage.fetch_max(to as u8, Ordering::AcqRel);
        let is_news = former < to as u8;
        if is_news {
            self.changed.notify_waiters();
        }
        is_news
    }

    /// Completes when the proxy has come to this stage.
    pub(crate) async fn reached(&self, stage: Stage) {
        loop {
            // Made before the look, so that a change between the two is heard.
            let changed = self.changed.notified();
            if self.stage() >= stage {
                return;
            }
            changed.await;
        }
    }
}

/// Follows orders until the proxy has come to its last stage. `told` completes each time that somebody wants the end.
/// If nobody ordered to drain before, as kubelet does, the first stage lasts `drain_time`, or until told again.
pub(crate) async fn follow(drain: &Drain, drain_time: Duration, told: impl AsyncFn()) {
    told().await;
    if drain.advance(Stage::Draining) {
        tracing::info!(?drain_time, "draining: clients are told to go elsewhere, and still served");
        tokio::select! {
            () = tokio::time::sleep(drain_time) => {}
            () = told() => {}
        }
    }
    drain.advance(Stage::Ending);
    tracing::info!("ending: finishing what is in flight");
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn stages_only_follow_each_other_and_twice_is_once() {
        let drain = Drain::new();
        let mut seen = Vec::new();
        for to in [Stage::Draining, Stage::Draining, Stage::Ending, Stage::Draining] {
            seen.push((drain.advance(to), drain.stage()));
        }
        let expected = [
            (true, Stage::Draining),
            (false, Stage::Draining),
            (true, Stage::Ending),
            (false, Stage::Ending),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn whoever_waits_for_a_stage_hears_of_it_and_of_no_earlier_one() {
        let drain = Drain::new();
        let mut ending = Box::pin(drain.reached(Stage::Ending));
        assert_eq!(ending.as_mut().now_or_never(), None);
        drain.advance(Stage::Draining);
        assert_eq!(ending.as_mut().now_or_never(), None);
        drain.advance(Stage::Ending);
        assert_eq!(ending.as_mut().now_or_never(), Some(()));
        assert_eq!(drain.reached(Stage::Draining).now_or_never(), Some(()));
    }

    /// The stage after this many orders to end, all at once.
    fn followed(drained_before: bool, orders: usize) -> Stage {
        let drain = Drain::new();
        if drained_before {
            drain.advance(Stage::Draining);
        }
        let given = Cell::new(0);
        let told = async || {
            if given.replace(given.get() + 1) >= orders {
                std::future::pending::<()>().await;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        let ended = follow(&drain, Duration::from_secs(3600), told).now_or_never();
        assert_eq!(ended.is_some(), drain.stage() == Stage::Ending);
        drain.stage()
    }

    #[test]
    fn a_bare_process_drains_before_it_ends_and_one_that_was_ordered_to_drain_ends_at_once() {
        for (what, drained_before, orders, stage) in [
            ("nobody said anything", false, 0, Stage::Serving),
            ("a bare process", false, 1, Stage::Draining),
            ("told twice, it does not wait", false, 2, Stage::Ending),
            ("kubelet's order came before", true, 1, Stage::Ending),
            ("kubelet's order alone", true, 0, Stage::Draining),
        ] {
            assert_eq!(followed(drained_before, orders), stage, "{what}");
        }
    }
}
