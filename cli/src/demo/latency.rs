//! Latencies in buckets a twelfth wider than the one before: any quantile within 9 %, in 256 counters.

use std::time::Duration;

/// How many took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

const BUCKETS: usize = 256;
/// Buckets to each doubling.
const PER_DOUBLING: f64 = 8.0;

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Latencies {
    pub(crate) fn note(&mut self, taken: Duration) {
        let micros = taken.as_micros().max(1) as f64;
        let bucket = (micros.log2() * PER_DOUBLING) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        for (own, count) in self.counts.iter_mut().zip(&other.counts) {
            *own += count;
        }
        self.total += other.total;
    }

    /// Those that were noted after `older` was a copy of this.
    pub(crate) fn since(&self, older: &Latencies) -> Latencies {
        let counts = self.counts.iter().zip(&older.counts);
        Latencies {
            counts: counts.map(|(now, before)| now.saturating_sub(*before)).collect(),
            total: self.total.saturating_sub(older.total),
        }
    }

    /// The latency in milliseconds that the given share of requests did not exceed; 0 if there were none.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return ((bucket as f64 + 0.5) / PER_DOUBLING).exp2() / 1000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_tenth() {
        let mut latencies = Latencies::default();
        for millis in 1..=1000 {
            latencies.note(Duration::from_millis(millis));
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.0, 1.0)] {
            let seen = latencies.quantile_ms(share);
            assert!((seen / expected - 1.0).abs() < 0.1, "{share}: {seen}");
        }
    }

    #[test]
    fn nothing_and_the_extreme_are_no_problem() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_ms(0.99), 0.0);
        latencies.note(Duration::ZERO);
        latencies.note(Duration::from_secs(1 << 40));
        assert!(latencies.quantile_ms(1.0) > 1000.0);
    }
}
