//! The answer to each name that somebody is subscribed to: translated once, encoded once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gauze_model::{Kind, Name, Origin};
use gauze_xds::EncodedResource;
use gauze_xds::delta::Answer;

use super::StreamId;
use crate::metrics::Metrics;
use crate::translate::{self, translate};
use crate::world::{Touched, World};

#[derive(Default)]
pub(super) struct Answers {
    by_name: BTreeMap<Name, Answered>,
}

/// The answer to one name; for `cluster/…` of two kinds.
#[derive(Default)]
struct Answered {
    resources: Vec<Arc<EncodedResource>>,
    undecided: bool,
    subscribers: BTreeSet<(Kind, StreamId)>,
}

/// An answer that is another one now.
pub(super) struct Change {
    pub(super) key: (Kind, Name),
    pub(super) subscribers: Vec<StreamId>,
    /// The origins of the answer before.
    pub(super) former: BTreeSet<Origin>,
}

impl Answers {
    /// How many names are answered.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The answer to a name, from memory if there is one.
    pub(super) fn answer(&mut self, world: &World, kind: Kind, name: &Name, metrics: &Metrics) -> Answer {
        if let Some(answered) = self.by_name.get(name) {
            return answered.of(kind);
        }
        let answered = Answered::new(world, name, metrics);
        let answer = answered.of(kind);
        self.by_name.insert(name.clone(), answered);
        answer
    }

    /// The answer that is remembered.
    pub(super) fn known(&self, kind: Kind, name: &Name) -> Answer {
        self.by_name.get(name).map_or(Answer::Undecided, |answered| answered.of(kind))
    }

    pub(super) fn subscribe(&mut self, stream: StreamId, (kind, name): &(Kind, Name)) {
        if let Some(answered) = self.by_name.get_mut(name) {
            answered.subscribers.insert((*kind, stream));
        }
    }

    /// A name to which nobody is subscribed is forgotten.
    pub(super) fn unsubscribe(&mut self, stream: StreamId, (kind, name): &(Kind, Name)) {
        let Some(answered) = self.by_name.get_mut(name) else { return };
        answered.subscribers.remove(&(*kind, stream));
        if answered.subscribers.is_empty() {
            self.by_name.remove(name);
        }
    }

    /// Translates what was touched anew; returns the answers that are others now, by their bytes.
    pub(super) fn update(&mut self, world: &World, touched: &Touched, metrics: &Metrics) -> Vec<Change> {
        let touched = self.by_name.iter_mut().filter(|(name, _)| touched.contains(name));
        touched.flat_map(|(name, answered)| answered.update(world, name, metrics)).collect()
    }
}

impl Answered {
    fn new(world: &World, name: &Name, metrics: &Metrics) -> Answered {
        let _timer = metrics.translate_duration.start_timer();
        let translate::Translation { answer, policies, .. } = translate(world, name);
        let undecided = answer == translate::Answer::Undecided;
        let resources = match answer {
            translate::Answer::Known(resources) => resources,
            translate::Answer::Absent | translate::Answer::Undecided => Vec::new(),
        };
        let encode = |resource| {
            let mut encoded = EncodedResource::new(name.clone(), resource);
            encoded.origins.extend(policies.iter().cloned());
            Arc::new(encoded)
        };
        Answered { resources: resources.iter().map(encode).collect(), undecided, ..Answered::default() }
    }

    fn of(&self, kind: Kind) -> Answer {
        match self.resource(kind) {
            Some(resource) => Answer::Known(Arc::clone(resource)),
            None if self.undecided => Answer::Undecided,
            None => Answer::Absent,
        }
    }

    fn resource(&self, kind: Kind) -> Option<&Arc<EncodedResource>> {
        self.resources.iter().find(|resource| resource.kind == kind)
    }

    fn update(&mut self, world: &World, name: &Name, metrics: &Metrics) -> Vec<Change> {
        let subscribers = std::mem::take(&mut self.subscribers);
        let former = std::mem::replace(self, Answered { subscribers, ..Answered::new(world, name, metrics) });
        let kinds = gauze_xds::KINDS.into_iter().filter(|kind| name.is_of(*kind));
        let changed = kinds.filter(|kind| version(&former.of(*kind)) != version(&self.of(*kind)));
        changed.map(|kind| self.change(kind, name, &former)).collect()
    }

    fn change(&self, kind: Kind, name: &Name, former: &Answered) -> Change {
        let subscribers = self.subscribers.iter().filter(|(of, _)| *of == kind);
        Change {
            key: (kind, name.clone()),
            subscribers: subscribers.map(|(_, stream)| *stream).collect(),
            former: former.resource(kind).map(|resource| resource.origins.clone()).unwrap_or_default(),
        }
    }
}

/// What tells two answers apart: the hash of the bytes, or that there are none, or that nobody knows.
pub(super) fn version(answer: &Answer) -> Result<&str, bool> {
    match answer {
        Answer::Known(resource) => Ok(&resource.version),
        Answer::Absent => Err(true),
        Answer::Undecided => Err(false),
    }
}
