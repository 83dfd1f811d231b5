//! A Lease, and when it may be taken: pure, so that it can be tested without waiting.
//!
//! Clocks of two machines differ, so the times written in a Lease are never compared with our own:
//! what counts is how long *we* have seen it unchanged (as client-go does).

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

/// What we have seen of a Lease that somebody else holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    last: Option<(LeaseSpec, Instant)>,
}

impl Observed {
    /// Whether the Lease may be taken now: nobody holds it, we do, or its holder has been silent for too long.
    pub(super) fn may_be_taken(&mut self, lease: &LeaseSpec, us: &str, now: Instant) -> bool {
        match lease.holder_identity.as_deref() {
            None | Some("") => return true,
            Some(holder) if holder == us => return true,
            Some(_) => {}
        }
        let unchanged_since = match &self.last {
            Some((seen, since)) if seen == lease => *since,
            _ => now,
        };
        self.last = Some((lease.clone(), unchanged_since));
        let life = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        now.duration_since(unchanged_since) >= life.map_or(LIFE, Duration::from_secs)
    }
}

/// How long a holder may be silent before others take its Lease.
pub(super) const LIFE: Duration = Duration::from_secs(15);

/// As exact as a Lease can say it, so that what is read back is what was written.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// The Lease as `holder` writes it now: taken, if somebody else held it before.
pub(super) fn renewed(former: Option<Lease>, name: &str, holder: &str, life: Duration) -> Lease {
    let mut lease = former.unwrap_or_default();
    lease.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        // Of another version than the one that we have seen, it is refused.
        resource_version: lease.metadata.resource_version,
        labels: lease.metadata.labels,
        owner_references: lease.metadata.owner_references,
        ..ObjectMeta::default()
    };
    let now = MicroTime(now());
    let mut spec = lease.spec.take().unwrap_or_default();
    if spec.holder_identity.as_deref() != Some(holder) {
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
        spec.acquire_time = Some(now.clone());
        spec.holder_identity = Some(holder.to_owned());
    }
    spec.lease_duration_seconds = i32::try_from(life.as_secs()).ok();
    spec.renew_time = Some(now);
    lease.spec = Some(spec);
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewed_at: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed_at).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_its_holder_was_seen_silent_for_its_life() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observed = Observed::default();
        for (what, lease, now, expected) in [
            ("nobody's", held_by("", 0), at(0), true),
            ("our own", held_by("us", 0), at(0), true),
            ("another's, seen for the first time, whatever its date", held_by("them", 0), at(1), false),
            ("not silent for long", held_by("them", 0), at(15), false),
            ("renewed meanwhile", held_by("them", 2), at(16), false),
            ("silent since", held_by("them", 2), at(30), false),
            ("silent for 15 s", held_by("them", 2), at(31), true),
            ("a third took it", held_by("others", 2), at(32), false),
        ] {
            assert_eq!(observed.may_be_taken(&lease, "us", now), expected, "{what}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_as_it_was() {
        let lease = renewed(None, "gauze", "us", LIFE);
        let read: Lease = serde_json::from_value(serde_json::to_value(&lease).unwrap()).unwrap();
        assert_eq!(read, lease);
    }

    #[test]
    fn a_lease_counts_its_holders_and_keeps_the_version_that_was_seen() {
        let mut former = Lease { spec: Some(held_by("them", 0)), ..Lease::default() };
        former.metadata.resource_version = Some("7".to_owned());
        let taken = renewed(Some(former), "gauze", "us", LIFE);
        let spec = taken.spec.clone().unwrap();
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("us"), Some(0)));
        let renewed = renewed(Some(taken), "gauze", "us", LIFE).spec.unwrap();
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (spec.acquire_time, Some(0)));
    }
}
