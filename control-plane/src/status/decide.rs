//! When a status is written: what changes its meaning at once, what is but a count at most every ten seconds, and
//! what stands there already never. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::ours::{DatedCondition, Entry, Ours};
use super::{Condition, Truth};

/// A mere count is written at most so often.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// A mere count that is another for less than this is not written: each change of endpoints leaves proxies behind for
/// some milliseconds.
const SETTLED: Duration = Duration::from_secs(2);
/// What we wrote and somebody else took away is written again after this, and each time after twice as long …
const RESTORE_MIN: Duration = Duration::from_secs(10);
/// … but no longer.
const RESTORE_MAX: Duration = Duration::from_secs(600);

/// How what stands differs from what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    Nothing,
    /// Only how many pods hold it, or are concerned.
    Count,
    State,
}

/// What we did with an object's status before.
#[derive(Clone, Debug)]
pub struct Past {
    /// When we last wrote it, or began to lead.
    pub at: Instant,
    /// What we wrote then.
    pub wrote: Option<Ours>,
    /// How often in a row we wrote the same.
    pub repeated: u32,
    /// Since when it differs by more than nothing.
    pub since: Option<Instant>,
}

impl Past {
    pub fn beginning(now: Instant) -> Past {
        Past { at: now, wrote: None, repeated: 0, since: None }
    }
}

/// How what stands differs from what should; times do not count.
pub fn difference(stands: &Ours, wanted: &Ours) -> Difference {
    if stands.split != wanted.split || stands.entries.len() != wanted.entries.len() {
        return Difference::State;
    }
    let entries = stands.entries.iter().zip(&wanted.entries);
    entries.map(|(stands, wanted)| of_entry(stands, wanted)).max().unwrap_or(Difference::Nothing)
}

fn of_entry(stands: &Entry, wanted: &Entry) -> Difference {
    if stands.reference != wanted.reference || stands.conditions.len() != wanted.conditions.len() {
        return Difference::State;
    }
    // In whatever order: the API server merges lists of conditions by their type.
    let differences = wanted.conditions.iter().map(|wanted| {
        let of_type =
            |stands: &&DatedCondition| stands.condition.condition_type == wanted.condition.condition_type;
        let stands = stands.conditions.iter().find(of_type);
        stands.map_or(Difference::State, |stands| of_condition(&stands.condition, &wanted.condition))
    });
    differences.max().unwrap_or(Difference::Nothing)
}

fn of_condition(stands: &Condition, wanted: &Condition) -> Difference {
    if stands == wanted {
        return Difference::Nothing;
    }
    let both = |is: fn(&Condition) -> bool| is(stands) && is(wanted);
    let same_text = without_count(&stands.message) == without_count(&wanted.message);
    let of_same_version = stands.observed_generation == wanted.observed_generation;
    let same_state = stands.reason == wanted.reason && stands.status == wanted.status;
    let mere_count = both(|condition| condition.condition_type == "Programmed")
        && of_same_version
        && same_text
        && (same_state || (both(is_count) && !is_better(stands, wanted)));
    if mere_count { Difference::Count } else { Difference::State }
}

/// Whether it says no more than how many.
fn is_count(condition: &Condition) -> bool {
    matches!(&*condition.reason, "Programmed" | "NotUsedYet" | "Reconciling")
}

/// What somebody may be waiting for: that all hold it, or that the first does.
fn is_better(stands: &Condition, wanted: &Condition) -> bool {
    wanted.status == Truth::True
        && (stands.status != Truth::True || wanted.reason == "Programmed" && stands.reason != "Programmed")
}

/// `37/40; shop/web-0 refused it: …; and 3 more` without its numbers.
pub fn without_count(message: &str) -> &str {
    let count = message.find(|c: char| !c.is_ascii_digit() && c != '/').unwrap_or(message.len());
    let text = &message[count..];
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match text.rsplit_once("; and ") {
        Some((before, more)) if more.strip_suffix(" more").is_some_and(is_number) => before,
        _ => text,
    }
}

/// When to write, if ever as things are; what lies in the past is due.
pub fn when_to_write(difference: Difference, wanted: &Ours, past: &Past, now: Instant) -> Option<Instant> {
    if difference == Difference::Nothing {
        return None;
    }
    if past.wrote.as_ref() == Some(wanted) {
        let pause = RESTORE_MIN.saturating_mul(2_u32.saturating_pow(past.repeated));
        return Some(past.at + pause.min(RESTORE_MAX));
    }
    Some(match difference {
        Difference::Count => (past.at + COUNT_EVERY).max(past.since.unwrap_or(now) + SETTLED),
        Difference::Nothing | Difference::State => now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A split's `Programmed`, as in `True Programmed 1/1`.
    fn programmed(text: &str, generation: i64) -> Ours {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().unwrap().to_owned();
        let status = serde_json::from_value(word().into()).unwrap();
        let condition = Condition {
            condition_type: "Programmed".into(),
            status,
            reason: word().into(),
            message: word(),
            observed_generation: generation,
        };
        let said = DatedCondition { condition, last_transition_time: None };
        Ours { split: None, entries: vec![Entry { reference: "cart".into(), conditions: vec![said] }] }
    }

    #[test]
    fn what_somebody_waits_for_is_a_change_of_state_and_coming_and_going_pods_are_a_count() {
        use Difference::{Count, Nothing, State};
        for (what, stands, wanted, expected) in [
            ("equal", "True Programmed 40/40", "True Programmed 40/40", Nothing),
            ("one more pod", "True Programmed 40/40", "True Programmed 41/41", Count),
            ("a pod is behind", "True Programmed 40/40", "False Reconciling 39/40", Count),
            ("fewer are behind", "False Reconciling 3/40", "False Reconciling 39/40", Count),
            ("all hold it", "False Reconciling 39/40", "True Programmed 40/40", State),
            ("the first uses it", "True NotUsedYet 0/0", "True Programmed 1/1", State),
            ("the first should use it", "True NotUsedYet 0/0", "False Reconciling 0/1", Count),
            ("nobody uses it any more", "True Programmed 1/1", "True NotUsedYet 0/0", Count),
            (
                "a refusal",
                "False Reconciling 1/2",
                "False PartiallyProgrammed 1/2; shop/web-0 refused it: x: no",
                State,
            ),
            (
                "the same refusal of more pods",
                "False PartiallyProgrammed 1/4; a/b refused it: x: no; and 1 more",
                "False PartiallyProgrammed 2/9; a/b refused it: x: no; and 7 more",
                Count,
            ),
            (
                "another refusal",
                "False PartiallyProgrammed 1/2; a/b refused it: x: no",
                "False PartiallyProgrammed 1/2; a/b refused it: y: no",
                State,
            ),
            (
                "nobody knows",
                "True Programmed 1/1",
                "Unknown ReplicaUnreachable 1/1 without the proxies of x",
                State,
            ),
            ("it is known again", "Unknown ReplicaUnreachable 1/1 without", "True Programmed 1/1", State),
            ("it is overridden", "True Programmed 1/1", "False Overridden spec.service: an HTTPRoute", State),
        ] {
            assert_eq!(difference(&programmed(stands, 1), &programmed(wanted, 1)), expected, "{what}");
        }
        let (stands, wanted) = (programmed("True Programmed 1/1", 1), programmed("True Programmed 1/1", 2));
        assert_eq!(difference(&stands, &wanted), State, "another version");
        assert_eq!(difference(&Ours::default(), &wanted), State, "nothing stands");
        assert_eq!(difference(&wanted, &Ours::default()), State, "nothing should");
        let split = Ours { split: Some("a=1".to_owned()), ..wanted.clone() };
        assert_eq!(difference(&wanted, &split), State, "the split in short");
    }

    #[test]
    fn a_state_is_written_at_once_a_count_every_ten_seconds_and_what_others_undo_ever_more_rarely() {
        use Difference::{Count, Nothing, State};
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let wanted = programmed("True Programmed 2/2", 1);
        let other = Some(programmed("True Programmed 1/1", 1));
        let same = Some(wanted.clone());
        for (what, difference, wrote, repeated, since, now, expected) in [
            ("equal", Nothing, other.clone(), 0, None, 1, None),
            ("a state, just after another", State, other.clone(), 0, Some(1), 1, Some(1)),
            ("a count, just after something", Count, other.clone(), 0, Some(1), 1, Some(10)),
            ("a count that lasts", Count, other.clone(), 0, Some(1), 12, Some(10)),
            ("a count that has just changed, long after", Count, other.clone(), 0, Some(60), 60, Some(62)),
            ("a count of a new leader", Count, None, 0, Some(0), 0, Some(10)),
            ("a state of a new leader", State, None, 0, Some(0), 0, Some(0)),
            ("the watch has not brought it back yet", State, same.clone(), 0, Some(0), 0, Some(10)),
            ("somebody undid it a second time", State, same.clone(), 1, Some(0), 0, Some(20)),
            ("somebody always undoes it", State, same, 40, Some(0), 0, Some(600)),
        ] {
            let past = Past { at: at(0), wrote, repeated, since: since.map(at) };
            assert_eq!(when_to_write(difference, &wanted, &past, at(now)), expected.map(at), "{what}");
        }
    }
}
