//! One of two endpoints fails before it does any work: its calls are retried, and nobody notices.

use serde_json::json;

use super::faulty_v2::{self, Fate, FaultyV2};
use super::stage::{Seen, Stage};

pub(super) const PROMISE: &str =
    "one endpoint of v2 answers 503: its calls are retried, none fails and none is executed twice";

/// Nothing is ejected: that is the next step.
const NEVER: &str = "{consecutiveGatewayFailure: 0}";
const REQUESTS: u64 = 1_000;
/// Percent of the requests that come to an end well, at the caller.
const SUCCESS: f64 = 99.9;
/// One request in ten meets the failing endpoint first: within the budget for retries.
const REFUSED_MIN: u64 = REQUESTS / 20;

/// Adds the failing endpoint, and counts what it refused and what was executed.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    stage.begin("switch on");
    stage.set_split(80, 20)?;
    let faulty = FaultyV2::switch_on(stage, NEVER).await?;
    let seen = watch(stage).await;
    stage.begin("switch off");
    faulty.switch_off(stage).await?;
    seen
}

async fn watch(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    let before = faulty_v2::fate(stage, "").await?.repeated;
    let run = stage.begin("retried");
    stage.sent(&run, REQUESTS).await?;
    stage.settle(&run).await?;
    let fate = faulty_v2::fate(stage, &run).await?;
    let (sent, failed) = (stage.load.tally(&run).sent, stage.load.tally(&run).failed);
    let twice = executed_twice(fate, sent, before);
    let success = success(sent, failed);
    Ok(Seen {
        ok: success >= SUCCESS && twice == 0 && fate.refused >= REFUSED_MIN,
        wanted: json!({ "success_percent": SUCCESS, "executed_twice": 0, "refused_at_least": REFUSED_MIN }),
        seen: json!({ "success_percent": success, "executed_twice": twice, "refused": fate.refused }),
    })
}

/// How much more was executed than sent, anywhere.
pub(super) fn executed_twice(fate: Fate, sent: u64, repeated_before: u64) -> u64 {
    let more = fate.executed.max(fate.paid).saturating_sub(sent);
    more + fate.repeated.saturating_sub(repeated_before)
}

/// Percent, to a hundredth.
pub(super) fn success(sent: u64, failed: u64) -> f64 {
    let percent = 100.0 * sent.saturating_sub(failed) as f64 / sent.max(1) as f64;
    (100.0 * percent).floor() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_executed_more_often_than_sent_or_seen_twice_by_an_app_was_executed_twice() {
        let fate = |executed, paid, repeated| Fate { refused: 9, executed, paid, repeated };
        for (fate, twice) in [
            (fate(100, 100, 2), 0),
            (fate(99, 99, 2), 0), // lost, which is counted elsewhere
            (fate(101, 100, 2), 1),
            (fate(100, 102, 2), 2),
            (fate(100, 100, 3), 1),
        ] {
            assert_eq!(executed_twice(fate, 100, 2), twice, "{fate:?}");
        }
    }

    #[test]
    fn nearly_all_is_not_rounded_up() {
        assert_eq!((success(1000, 1), success(10_000, 11), success(0, 0)), (99.9, 99.89, 0.0));
    }
}
