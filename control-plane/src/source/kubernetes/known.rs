//! What is known of the cluster: takes up what each watch says and tells what that changes. Pure.
//!
//! A kind that is read anew replaces what was known of it in one step, so nothing that exists is ever
//! missing in between. An object that cannot be used keeps its last good version and is a problem.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gauze_model::{Code, Origin};
use ipnet::IpNet;

use super::read::{Item, Read};
use super::watched::Watched;
use super::watching::Said;
use crate::problem::Problem;
use crate::source::Update;
use crate::world::{Event, Object, ObjectKey};

/// A watch that fails for so long is a problem; one that only begins anew is none.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Known {
    kinds: BTreeMap<Watched, Kind>,
    /// Those that were told last.
    networks: Vec<IpNet>,
    synced: bool,
}

/// Namespace and name.
type Key = (String, String);

#[derive(Default)]
struct Kind {
    /// Whether all that exists was read once.
    complete: bool,
    /// What the world holds; it is told of nothing that is as it was, such as a status that we wrote.
    known: BTreeMap<Key, Object>,
    networks: BTreeMap<Key, Vec<IpNet>>,
    problems: BTreeMap<Key, Vec<Problem>>,
    /// Since when it cannot be watched, and why.
    failing: Option<(Instant, String)>,
}

impl Known {
    /// Nothing yet, of these kinds.
    pub(super) fn nothing_of(kinds: &[Watched]) -> Known {
        let kinds = kinds.iter().map(|watched| (*watched, Kind::default())).collect();
        Known { kinds, networks: Vec::new(), synced: false }
    }

    /// Takes up what watches said, in order.
    pub(super) fn hear(&mut self, said: Vec<(Watched, Said)>, now: Instant) -> Update {
        let mut events = Vec::new();
        for (watched, said) in said {
            self.kinds.entry(watched).or_default().hear(watched, said, now, &mut events);
        }
        let networks = self.networks();
        if networks != self.networks {
            self.networks.clone_from(&networks);
            events.push(Event::MeshNetworks(networks));
        }
        if !self.synced && self.kinds.values().all(|kind| kind.complete) {
            self.synced = true;
            events.push(Event::Synced);
        }
        Update { events, problems: self.problems(now) }
    }

    /// The networks that Nodes and ServiceCIDRs name, as few as say the same.
    fn networks(&self) -> Vec<IpNet> {
        let named = self.kinds.values().flat_map(|kind| kind.networks.values().flatten().copied());
        let mut networks = IpNet::aggregate(&named.collect());
        networks.sort_unstable();
        networks
    }

    /// All that is wrong now.
    pub(super) fn problems(&self, now: Instant) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.kinds.values().flat_map(|kind| kind.problems.values().flatten().cloned()).collect();
        let failing = self.kinds.iter().filter_map(|(watched, kind)| Some((watched, kind.failing_for(now)?)));
        let failing: Vec<(&Watched, &str)> = failing.collect();
        match failing.as_slice() {
            [] => {}
            [(_, why), ..] if failing.len() == self.kinds.len() => {
                let message = format!(
                    "the API server cannot be reached; what was last read of it stays in force: {why}"
                );
                problems.push(Problem::new(Code::API_SERVER_AWAY, Origin::default(), message));
            }
            failing => problems.extend(failing.iter().map(|(watched, why)| {
                let origin = Origin { kind: watched.to_string(), ..Origin::default() };
                let message = format!("objects of this kind cannot be watched: {why}");
                Problem::new(Code::KIND_NOT_WATCHED, origin, message)
            })),
        }
        problems
    }

    /// Kinds that cannot be watched now.
    pub(super) fn failing(&self) -> usize {
        self.kinds.values().filter(|kind| kind.failing.is_some()).count()
    }

    /// How many objects of each kind are known.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Watched, usize)> {
        self.kinds.iter().map(|(watched, kind)| (*watched, kind.known.len() + kind.networks.len()))
    }
}

impl Kind {
    fn hear(&mut self, watched: Watched, said: Said, now: Instant, events: &mut Vec<Event>) {
        match said {
            Said::All(reads) => self.replace(watched, reads, events),
            Said::Apply(read) => self.apply(read, events),
            Said::Delete { namespace, name } => self.delete(watched, &(namespace, name), events),
            Said::Working => self.failing = None,
            Said::Served { .. } => {}
            Said::Failing(why) => {
                // The first reason stays: the later ones only sound different.
                self.failing.get_or_insert((now, why));
            }
        }
    }

    fn replace(&mut self, watched: Watched, reads: Vec<Read>, events: &mut Vec<Event>) {
        let mut gone: BTreeSet<Key> = self.known.keys().chain(self.networks.keys()).cloned().collect();
        self.problems.clear();
        for read in reads {
            gone.remove(&(read.namespace.clone(), read.name.clone()));
            self.apply(read, events);
        }
        gone.iter().for_each(|key| self.delete(watched, key, events));
        self.complete = true;
    }

    fn apply(&mut self, read: Read, events: &mut Vec<Event>) {
        let key = (read.namespace, read.name);
        match read.problems.is_empty() {
            true => drop(self.problems.remove(&key)),
            false => drop(self.problems.insert(key.clone(), read.problems)),
        }
        match read.item {
            Some(Item::Object(object)) if self.known.get(&key) != Some(&object) => {
                self.known.insert(key, object.clone());
                events.push(Event::Apply(object));
            }
            Some(Item::Networks(networks)) => drop(self.networks.insert(key, networks)),
            Some(Item::Object(_)) | None => {}
        }
    }

    fn delete(&mut self, watched: Watched, key: &Key, events: &mut Vec<Event>) {
        self.problems.remove(key);
        self.networks.remove(key);
        if self.known.remove(key).is_some()
            && let Watched::Object(kind) = watched
        {
            events.push(Event::Delete(ObjectKey::new(kind, &key.0, &key.1)));
        }
    }

    fn failing_for(&self, now: Instant) -> Option<&str> {
        let (since, why) = self.failing.as_ref()?;
        (now.duration_since(*since) >= PATIENCE).then_some(why.as_str())
    }
}

#[cfg(test)]
mod tests;
