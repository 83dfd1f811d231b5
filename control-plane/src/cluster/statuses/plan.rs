//! What to write, and when: the objects whose status is not as it should be, each with its time. No IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::events::{self, Announcement, Trouble};
use super::write::Failed;
use crate::problem::Problem;
use crate::source::kubernetes::{Stands, Statuses};
use crate::status::{self, Difference, Heard, Ours, Past, Shape, difference, when_to_write};
use crate::world::{ObjectKey, World};

/// Statuses written in a second, and at most at once after a pause: thousands of objects must not keep the API server
/// from its other work.
pub(super) const WRITES_PER_SECOND: f64 = 50.0;
/// The pause after a conflict: until the watch has brought what the other wrote.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a failed write, from the first to all after the last.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A status to be written.
pub(super) struct Order {
    pub(super) key: ObjectKey,
    pub(super) shape: Shape,
    pub(super) stands: Arc<Stands>,
    pub(super) wanted: Ours,
    pub(super) events: Vec<Announcement>,
    /// Failures before this attempt.
    failures: u32,
}

pub(super) struct Plan {
    began: Instant,
    wanted: BTreeMap<ObjectKey, Ours>,
    objects: BTreeMap<ObjectKey, Known>,
    due: BTreeMap<ObjectKey, Due>,
    allowance: Allowance,
}

/// What is remembered of an object.
struct Known {
    past: Past,
    failures: u32,
    not_before: Instant,
    troubles: BTreeSet<Trouble>,
}

struct Due {
    at: Instant,
    difference: Difference,
    stands: Arc<Stands>,
}

impl Plan {
    pub(super) fn beginning(now: Instant) -> Plan {
        let allowance = Allowance { left: WRITES_PER_SECOND, at: now };
        Plan {
            began: now,
            wanted: BTreeMap::new(),
            objects: BTreeMap::new(),
            due: BTreeMap::new(),
            allowance,
        }
    }

    /// Computes what should stand there, and what does not.
    pub(super) fn want(
        &mut self,
        world: &World,
        problems: &[Problem],
        heard: &Heard,
        statuses: &Statuses,
        now: Instant,
    ) {
        // What has no parent of ours has nothing of ours.
        let known = world.objects().map(|object| object.key()).filter(|key| Shape::of(key.kind).is_some());
        self.wanted = known.map(|key| (key, Ours::default())).collect();
        for wanted in status::conditions(world, problems, heard) {
            let Some(shape) = Shape::of(wanted.object.kind) else { continue };
            let stands = statuses.get(&wanted.object);
            let references = stands.map(|stands| stands.references.as_slice()).unwrap_or_default();
            let mut ours = Ours::of(&wanted, references);
            ours.entries.truncate(shape.room(stands.map_or(0, |stands| stands.foreign.len())));
            self.wanted.insert(wanted.object, ours);
        }
        self.objects.retain(|key, _| statuses.contains_key(key));
        self.due.clear();
        self.look(statuses.keys().cloned(), statuses, now);
    }

    /// Looks anew whether these are as they should be.
    pub(super) fn look(
        &mut self,
        keys: impl IntoIterator<Item = ObjectKey>,
        statuses: &Statuses,
        now: Instant,
    ) {
        for key in keys {
            match self.due(&key, statuses.get(&key), now) {
                Some(due) => drop(self.due.insert(key, due)),
                None => drop(self.due.remove(&key)),
            }
        }
    }

    fn due(&mut self, key: &ObjectKey, stands: Option<&Arc<Stands>>, now: Instant) -> Option<Due> {
        let (stands, wanted) = (stands?, self.wanted.get(key)?);
        let difference = difference(&stands.ours, wanted);
        if difference == Difference::Nothing {
            if let Some(object) = self.objects.get_mut(key) {
                object.past.since = None;
                object.failures = 0;
            }
            return None;
        }
        let object = self.objects.entry(key.clone()).or_insert_with(|| Known::new(self.began));
        object.past.since.get_or_insert(now);
        let at = when_to_write(difference, wanted, &object.past, now)?.max(object.not_before);
        Some(Due { at, difference, stands: Arc::clone(stands) })
    }

    /// What is to be written now, changes of state first.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Order> {
        let due = self.due.iter().filter(|(_, due)| due.at <= now);
        let mut due: Vec<(Difference, Instant, ObjectKey)> =
            due.map(|(key, due)| (due.difference, due.at, key.clone())).collect();
        due.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
        due.truncate(self.allowance.take(due.len(), now));
        due.into_iter().filter_map(|(_, _, key)| self.order(key)).collect()
    }

    fn order(&mut self, key: ObjectKey) -> Option<Order> {
        let Due { stands, .. } = self.due.remove(&key)?;
        let (wanted, object) = (self.wanted.get(&key)?.clone(), self.objects.get_mut(&key)?);
        let events = events::of(&stands.ours, &wanted, &mut object.troubles.clone());
        Some(Order { shape: Shape::of(key.kind)?, stands, wanted, events, failures: object.failures, key })
    }

    /// Takes note of what became of an order.
    pub(super) fn note(&mut self, order: Order, written: Result<(), Failed>, now: Instant) {
        let object = self.objects.entry(order.key).or_insert_with(|| Known::new(self.began));
        match written {
            Ok(()) => {
                events::of(&order.stands.ours, &order.wanted, &mut object.troubles);
                let is_same = object.past.wrote.as_ref() == Some(&order.wanted);
                let repeated = if is_same { object.past.repeated.saturating_add(1) } else { 0 };
                object.past = Past { at: now, wrote: Some(order.wanted), repeated, since: None };
                (object.failures, object.not_before) = (0, now);
            }
            Err(failed) => {
                let first = if failed == Failed::Conflict { CONFLICT_PAUSE } else { PAUSE_MIN };
                let pause = first.saturating_mul(2_u32.saturating_pow(object.failures)).min(PAUSE_MAX);
                object.not_before = now + pause;
                object.failures = object.failures.saturating_add(1);
            }
        }
    }

    /// How many statuses are not as they should be.
    pub(super) fn waiting(&self) -> usize {
        self.due.len()
    }

    /// When there is something to be written next.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let next = self.due.values().map(|due| due.at).min()?;
        Some(next.max(self.allowance.next(now)))
    }
}

impl Known {
    fn new(began: Instant) -> Known {
        let past = Past::beginning(began);
        Known { past, failures: 0, not_before: began, troubles: BTreeSet::new() }
    }
}

impl Order {
    /// Tells of the first failure; the others are only counted.
    pub(super) fn complain(&self, why: &str) {
        if self.failures == 0 {
            warn!(object = %self.key, "its status cannot be written: {why}");
        }
    }
}

/// How many more writes there may be.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        self.left = self.at(now);
        self.at = now;
        let taken = wanted.min(self.left as usize);
        self.left -= taken as f64;
        taken
    }

    fn at(&self, now: Instant) -> f64 {
        let earned = now.duration_since(self.at).as_secs_f64() * WRITES_PER_SECOND;
        (self.left + earned).min(WRITES_PER_SECOND)
    }

    /// When there may be one.
    fn next(&self, now: Instant) -> Instant {
        let missing = (1.0 - self.at(now)).max(0.0);
        now + Duration::from_secs_f64(missing / WRITES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests;
