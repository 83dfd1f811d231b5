//! One stream: whose it is, what it is owed, and what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gauze_model::{Kind, Name, Origin};
use gauze_xds::delta::{Answer, Held, Holding};
use gauze_xds::{DeltaServer, Rejection};
use tokio::sync::Notify;

use super::ProxyView;
use super::answers::Answers;
use crate::permission::Refusal;
use crate::status::{self, ClosedPolicy, HoldingState};
use crate::workload::Workload;

pub(super) struct Stream {
    pub(super) workload: Workload,
    pub(super) delta: DeltaServer,
    opened: SystemTime,
    left: Option<Instant>,
    /// Why it must end.
    ended: Option<Refusal>,
    owed: Owed,
    /// The origins of answers that it may still hold though they are no longer given: who moved a
    /// route away wants to know when nobody follows it any more.
    former: BTreeMap<(Kind, Name), BTreeSet<Origin>>,
    wake: Arc<Notify>,
}

/// What changed since a stream was last told.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) names: BTreeSet<(Kind, Name)>,
    /// When the first of these changes was read.
    pub(super) since: Option<Instant>,
}

impl Stream {
    pub(super) fn new(workload: Workload) -> Stream {
        Stream {
            workload,
            delta: DeltaServer::new(),
            opened: SystemTime::now(),
            left: None,
            ended: None,
            owed: Owed::default(),
            former: BTreeMap::new(),
            wake: Arc::default(),
        }
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    pub(super) fn is_open(&self) -> bool {
        self.left.is_none()
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.is_open() && self.owed.since.is_some()
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.left = Some(now);
        self.owed = Owed::default();
    }

    pub(super) fn left_before(&self, now: Instant, remembered: Duration) -> bool {
        self.left.is_some_and(|left| now.duration_since(left) > remembered)
    }

    /// Lets it end as soon as it asks what it is owed.
    pub(super) fn end(&mut self, why: Refusal) {
        self.ended = Some(why);
        self.wake.notify_one();
    }

    /// The answer under `key` has changed, read at `read`; before, it had these origins.
    pub(super) fn owe(&mut self, key: (Kind, Name), former: &BTreeSet<Origin>, read: Instant) {
        if !former.is_empty() {
            self.former.entry(key.clone()).or_default().extend(former.iter().cloned());
        }
        if self.is_open() {
            self.owed.names.insert(key);
            self.owed.since.get_or_insert(read);
            self.wake.notify_one();
        }
    }

    /// What is owed; from now on nothing is.
    pub(super) fn take_owed(&mut self) -> Result<Owed, Refusal> {
        match &self.ended {
            Some(why) => Err(why.clone()),
            None => Ok(std::mem::take(&mut self.owed)),
        }
    }

    /// Forgets the former answers of names that it now holds as they are.
    pub(super) fn settle(&mut self, answers: &Answers) {
        let held = self.delta.held();
        self.former.retain(|(kind, name), _| {
            let held = held.get(&(*kind, name.clone()));
            held.is_some_and(|held| !is_current(held, &answers.known(*kind, name)))
        });
    }

    /// What it holds and should hold.
    pub(super) fn view(&self, answers: &Answers) -> ProxyView {
        let held = self.delta.held();
        let resources = held.iter().map(|(key, held)| self.holding(key, held, answers)).collect();
        let Workload { namespace, pod, .. } = self.workload.clone();
        ProxyView {
            workload: self.workload.clone(),
            connected: self.is_open(),
            since: self.opened,
            heard: status::Proxy { namespace, pod, resources },
            holds: held.clone(),
        }
    }

    fn holding(&self, key: &(Kind, Name), held: &Held, answers: &Answers) -> status::Holding {
        let (kind, name) = key;
        let wanted = answers.known(*kind, name);
        let mut origins = self.former.get(key).cloned().unwrap_or_default();
        if let Answer::Known(resource) = &wanted {
            origins.extend(resource.origins.iter().cloned());
        }
        status::Holding { kind: *kind, name: name.clone(), state: state(held, &wanted), origins }
    }
}

fn state(held: &Held, wanted: &Answer) -> HoldingState {
    match (&held.rejected, wanted) {
        (Some((version, rejection)), Answer::Known(wanted)) if *version == wanted.version => {
            HoldingState::Refused {
                path: rejection.path.clone(),
                problem: rejection.problem.clone(),
                origin: rejection.origin.as_deref().cloned(),
            }
        }
        _ if is_current(held, wanted) && !held.closed.is_empty() => {
            HoldingState::Closed(held.closed.iter().map(closed_policy).collect())
        }
        _ if is_current(held, wanted) => HoldingState::Current,
        _ => HoldingState::Behind,
    }
}

fn closed_policy(rejection: &Rejection) -> ClosedPolicy {
    let Rejection { kind: _, name: _, code: _, path, problem, origin } = rejection.clone();
    ClosedPolicy { origin: origin.map(|origin| *origin).unwrap_or_default(), path, problem }
}

fn is_current(held: &Held, wanted: &Answer) -> bool {
    match (&held.acknowledged, wanted) {
        (Holding::Version(held), Answer::Known(wanted)) => *held == wanted.version,
        (Holding::Absent, Answer::Absent) => true,
        // There is nothing to hold yet.
        (_, Answer::Undecided) => true,
        _ => false,
    }
}
