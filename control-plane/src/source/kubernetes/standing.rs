//! The statuses that stand in the API server, as the watches see them: for who writes them, and for nobody else. The
//! world knows nothing of them, so that what we write changes nothing that we compute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::watched::Watched;
use super::watching::Said;
use crate::status::{Ours, Shape};
use crate::world::{ObjectKey, ObjectKind};

/// The status of one object, as it was last seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stands {
    /// `gauze.dev/v1alpha1`.
    pub api_version: String,
    pub uid: String,
    pub resource_version: String,
    /// What of its status is ours.
    pub ours: Ours,
    /// The entries of other controllers, as they are.
    pub foreign: Vec<Value>,
    /// `parentRefs` or `targetRefs`, where nothing else of the object can be read.
    pub references: Vec<Value>,
}

/// All statuses as they were last seen. A clone shares them.
#[derive(Clone)]
pub struct Standing(Arc<Shared>);

struct Shared {
    seen: Mutex<Seen>,
    /// Counts what was seen.
    changes: watch::Sender<u64>,
}

/// The statuses of all objects that have or may have one.
pub type Statuses = Arc<BTreeMap<ObjectKey, Arc<Stands>>>;

#[derive(Default)]
struct Seen {
    statuses: Statuses,
    /// The kinds whose status can be written, with their plural.
    written: BTreeMap<ObjectKind, &'static str>,
    /// Those that are others since they were last taken.
    changed: BTreeSet<ObjectKey>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing(Arc::new(Shared { seen: Mutex::default(), changes: watch::Sender::new(0) }))
    }
}

impl Standing {
    /// Tells whenever something was seen.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// All as they are now.
    pub fn statuses(&self) -> Statuses {
        Arc::clone(&self.lock().statuses)
    }

    /// Which ones are others since this was last asked.
    pub fn take_changed(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.lock().changed)
    }

    /// The kind's plural, if the API server takes statuses of it.
    pub fn plural(&self, kind: ObjectKind) -> Option<&'static str> {
        self.lock().written.get(&kind).copied()
    }

    /// Takes up what watches said, before the world is told of it.
    pub(super) fn hear(&self, said: &mut [(Watched, Said)]) {
        let mut seen = self.lock();
        for (watched, said) in said {
            if let Watched::Object(kind) = *watched
                && Shape::of(kind).is_some()
            {
                seen.hear(kind, *watched, said);
            }
        }
        let changed = !seen.changed.is_empty();
        drop(seen);
        if changed {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn hear(&mut self, kind: ObjectKind, watched: Watched, said: &mut Said) {
        match said {
            Said::All(reads) => {
                let of_kind = self.statuses.keys().filter(|key| key.kind == kind);
                let mut gone: BTreeSet<ObjectKey> = of_kind.cloned().collect();
                for read in reads {
                    let key = ObjectKey::new(kind, &read.namespace, &read.name);
                    gone.remove(&key);
                    self.set(key, read.stands.take());
                }
                gone.into_iter().for_each(|key| self.set(key, None));
            }
            Said::Apply(read) => {
                self.set(ObjectKey::new(kind, &read.namespace, &read.name), read.stands.take());
            }
            Said::Delete { namespace, name } => self.set(ObjectKey::new(kind, &*namespace, &*name), None),
            Said::Served { has_status: true } => drop(self.written.insert(kind, watched.plural())),
            Said::Served { has_status: false } => drop(self.written.remove(&kind)),
            Said::Working | Said::Failing(_) => {}
        }
    }

    /// Copies the map only if a reader still holds it.
    fn set(&mut self, key: ObjectKey, stands: Option<Box<Stands>>) {
        let statuses = Arc::make_mut(&mut self.statuses);
        match stands {
            Some(stands) => drop(statuses.insert(key.clone(), Arc::from(stands))),
            None => drop(statuses.remove(&key)),
        }
        self.changed.insert(key);
    }
}
