//! Whether this replica should be sent proxies, and if not, why not.

use std::collections::BTreeMap;
use std::fmt;

use tokio::sync::watch;

/// A reason to send proxies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unready {
    /// SIGTERM was received.
    Stopping,
    /// Its objects are old, and another replica's are not.
    Lagging,
    /// It has no root to sign and to be known with.
    NoRoot,
    /// Not all objects have been read once.
    NotSynced,
}

impl Unready {
    /// Whether proxies that are connected must go too: others serve them better.
    pub fn ends_streams(self) -> bool {
        matches!(self, Unready::Stopping | Unready::Lagging)
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unready::Stopping => "stopping",
            Unready::Lagging => "the objects of this replica are old, and those of another are not",
            Unready::NoRoot => "there is no root certificate yet",
            Unready::NotSynced => "not all objects have been read yet",
        })
    }
}

/// All reasons that hold now.
#[derive(Debug)]
pub struct Readiness {
    /// Each with what more there is to say of it.
    reasons: watch::Sender<BTreeMap<Unready, String>>,
}

impl Default for Readiness {
    /// Of a process that has just begun.
    fn default() -> Readiness {
        Readiness {
            reasons: watch::Sender::new(
                [Unready::NoRoot, Unready::NotSynced].map(|reason| (reason, String::new())).into(),
            ),
        }
    }
}

impl Readiness {
    /// Says whether a reason holds.
    pub fn set(&self, reason: Unready, holds: bool) {
        self.reasons.send_if_modified(|reasons| match holds {
            true => reasons.insert(reason, String::new()).is_none(),
            false => reasons.remove(&reason).is_some(),
        });
    }

    /// Says more about a reason, as long as it holds.
    pub fn explain(&self, reason: Unready, text: String) {
        self.reasons.send_if_modified(|reasons| {
            if let Some(detail) = reasons.get_mut(&reason) {
                *detail = text;
            }
            false
        });
    }

    /// The first reason that holds, in words.
    pub fn explanation(&self) -> Option<String> {
        let reasons = self.reasons.borrow();
        let (reason, detail) = reasons.first_key_value()?;
        Some(if detail.is_empty() { reason.to_string() } else { format!("{reason}: {detail}") })
    }

    /// The first reason that holds; none, if the replica is ready.
    pub fn why_not(&self) -> Option<Unready> {
        self.reasons.borrow().keys().next().copied()
    }

    /// Resolves as soon as a reason holds for which `which` is true.
    pub async fn until(&self, which: impl Fn(Unready) -> bool) -> Unready {
        let mut reasons = self.reasons.subscribe();
        loop {
            let found = reasons.borrow_and_update().keys().copied().find(|reason| which(*reason));
            if let Some(found) = found {
                return found;
            }
            if reasons.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_is_ready_when_no_reason_is_left() {
        let readiness = Readiness::default();
        assert_eq!(readiness.why_not(), Some(Unready::NoRoot));
        readiness.explain(Unready::NoRoot, "nobody made one".to_owned());
        let explained = "there is no root certificate yet: nobody made one";
        assert_eq!(readiness.explanation().as_deref(), Some(explained));
        readiness.set(Unready::NoRoot, false);
        readiness.explain(Unready::NoRoot, "too late".to_owned());
        readiness.set(Unready::NotSynced, false);
        assert_eq!(readiness.explanation(), None);
        readiness.set(Unready::Lagging, true);
        assert_eq!(readiness.until(Unready::ends_streams).await, Unready::Lagging);
        readiness.set(Unready::Lagging, false);
        assert_eq!(readiness.why_not(), None);
    }
}
