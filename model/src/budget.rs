//! How much may be retried in all: retries are a share of the requests of the last seconds, so that a service
//! that fails is not brought down by those who try again (Linkerd's terms).
//!
//! [`Budget`] counts for one cluster and all workers of a process; time is an argument. It waits for
//! nothing and takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much of a cluster's requests may be retries (Envoy `CircuitBreakers.Thresholds.RetryBudget`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Of the requests of the last `interval` (Envoy `budget_percent`).
    pub percent: u32,
    /// Retries a second that are always allowed, on average over `interval` (Linkerd
    /// `minRetriesPerSecond`). On the wire it is Envoy's `min_retry_concurrency`, which bounds those at once.
    pub min_per_second: u32,
    /// Whole seconds, 1 to 60 (Envoy `budget_interval`).
    pub interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { percent: 20, min_per_second: 10, interval: Duration::from_secs(10) }
    }
}

/// The longest [`RetryBudget::interval`].
pub const INTERVAL_LIMIT: Duration = Duration::from_secs(SECONDS as u64 - 1);

/// One slot for each second of the longest interval, and one for the second that has just begun.
const SECONDS: usize = 61;

/// What was sent to a cluster in the last seconds, by this process.
#[derive(Debug)]
pub struct Budget {
    requests: [Slot; SECONDS],
    retries: [Slot; SECONDS],
}

/// The count of one second: the second in the upper half, the count in the lower.
type Slot = AtomicU64;

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            requests: std::array::from_fn(|_| Slot::default()),
            retries: std::array::from_fn(|_| Slot::default()),
        }
    }
}

impl Budget {
    /// Counts a request, once however often it is tried. `now` is since any moment that stays the same.
    pub fn count_request(&self, now: Duration) {
        add(&self.requests, second(now));
    }

    /// Takes one retry from the budget; `false`: it is spent.
    ///
    /// The retry is counted first and taken back if it is one too many: two that come at once may both be
    /// refused, never both be allowed.
    pub fn take_retry(&self, budget: &RetryBudget, now: Duration) -> bool {
        let (second, interval) = (second(now), interval(budget));
        add(&self.retries, second);
        // The last `interval` begins within a second: retries are counted from the begin of that second on,
        // requests from its end on, so that the share holds for the interval whenever it is looked at.
        let retries = sum(&self.retries, second, interval + 1);
        let requests = sum(&self.requests, second, interval);
        let allowed = requests * u64::from(budget.percent) / 100
            + u64::from(budget.min_per_second) * u64::from(interval);
        let is_allowed = retries <= allowed;
        if !is_allowed {
            take_back(&self.retries, second);
        }
        is_allowed
    }
}

/// Whole seconds, from 1 on, so that no slot begins as one of them.
fn second(now: Duration) -> u32 {
    u32::try_from(now.as_secs() + 1).unwrap_or(u32::MAX)
}

fn interval(budget: &RetryBudget) -> u32 {
    let limit = INTERVAL_LIMIT.as_secs();
    u32::try_from(budget.interval.as_secs().clamp(1, limit)).unwrap_or(1)
}

fn slot(slots: &[Slot; SECONDS], second: u32) -> &Slot {
    &slots[second as usize % SECONDS]
}

fn pack(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// A slot of an earlier second begins anew. One whose clock is behind counts for the later second.
fn add(slots: &[Slot; SECONDS], second: u32) {
    let added = |word| {
        let (held, count) = unpack(word);
        Some(if held < second { pack(second, 1) } else { pack(held, count.saturating_add(1)) })
    };
    let _ = slot(slots, second).fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
}

fn take_back(slots: &[Slot; SECONDS], second: u32) {
    let less = |word| {
        let (held, count) = unpack(word);
        (held == second).then(|| pack(held, count.saturating_sub(1)))
    };
    let _ = slot(slots, second).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

/// What was counted in the second `last` and before it, `seconds` in all.
fn sum(slots: &[Slot; SECONDS], last: u32, seconds: u32) -> u64 {
    let first = last.saturating_sub(seconds - 1);
    let counts = slots.iter().map(|slot| unpack(slot.load(Ordering::Relaxed)));
    counts.filter(|(second, _)| (first..=last).contains(second)).map(|(_, count)| u64::from(count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: RetryBudget =
        RetryBudget { percent: 20, min_per_second: 1, interval: Duration::from_secs(10) };

    /// How many of `asked` retries are allowed at `now`, in milliseconds.
    fn taken(budget: &Budget, now: u64, asked: u32) -> u32 {
        let now = Duration::from_millis(now);
        (0..asked).map(|_| u32::from(budget.take_retry(&BUDGET, now))).sum()
    }

    fn count(budget: &Budget, now: u64, requests: u32) {
        (0..requests).for_each(|_| budget.count_request(Duration::from_millis(now)));
    }

    #[test]
    fn a_fifth_of_the_requests_and_the_minimum_may_be_retried() {
        let budget = Budget::default();
        assert_eq!(taken(&budget, 0, 50), 10, "no request: the minimum of 10 seconds");
        count(&budget, 3_000, 100);
        assert_eq!(taken(&budget, 3_500, 50), 20, "and a fifth of 100 requests");
        assert_eq!(taken(&budget, 9_999, 50), 0, "all within the interval");
        assert_eq!(taken(&budget, 11_000, 50), 10, "those of the first second are forgotten");
        assert_eq!(
            taken(&budget, 13_000, 50),
            0,
            "the requests are; the retries of their second are not yet"
        );
        assert_eq!(taken(&budget, 60_000, 50), 10, "long after");
    }

    /// Numbers that follow from a seed (SplitMix64).
    struct Draws(u64);

    impl Draws {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % bound
        }
    }

    /// Of sorted moments, how many lie after `since`.
    fn after(moments: &[Duration], since: Option<Duration>) -> u64 {
        let before = since.map_or(0, |since| moments.partition_point(|moment| *moment <= since));
        (moments.len() - before) as u64
    }

    /// Looked at to the millisecond, not to the second in which the budget counts.
    #[test]
    fn no_schedule_of_failures_makes_retries_exceed_the_budget() {
        let (mut allowed, mut refused) = (0, 0);
        for seed in 0..10_000 {
            let mut draws = Draws(seed);
            let settings = RetryBudget {
                percent: draws.below(101) as u32,
                min_per_second: draws.below(3) as u32,
                interval: Duration::from_secs(1 + draws.below(60)),
            };
            let budget = Budget::default();
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            let mut now = Duration::from_millis(draws.below(100_000));
            let pace = [1, 50, 1_000, 20_000][draws.below(4) as usize];
            let failing = draws.below(101);
            for _ in 0..200 {
                now += Duration::from_millis(draws.below(pace));
                budget.count_request(now);
                requests.push(now);
                let wants_retries = draws.below(100) < failing;
                for _ in 0..if wants_retries { draws.below(4) } else { 0 } {
                    if !budget.take_retry(&settings, now) {
                        refused += 1;
                        continue;
                    }
                    retries.push(now);
                    let since = now.checked_sub(settings.interval);
                    let share = after(&requests, since) * u64::from(settings.percent) / 100;
                    let minimum = u64::from(settings.min_per_second) * settings.interval.as_secs();
                    let made = after(&retries, since);
                    assert!(made <= share + minimum, "seed {seed} at {now:?}: {made} of {share} + {minimum}");
                    allowed += 1;
                }
            }
        }
        assert!(allowed > 100_000 && refused > 100_000, "{allowed} allowed, {refused} refused");
    }

    #[test]
    fn workers_that_retry_at_once_share_one_budget() {
        let budget = Budget::default();
        let taken: u32 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(|| taken(&budget, 5_000, 1_000))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!((1..=10).contains(&taken), "{taken} of 10");
        assert_eq!(taken + self::taken(&budget, 5_000, 1_000), 10, "what was refused was given back");
    }
}
