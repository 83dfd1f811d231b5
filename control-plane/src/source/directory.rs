//! A directory of YAML as a source: what one would `kubectl apply`, in as many files as one likes.
//!
//! A file that is not YAML keeps the objects that were last read of it, and an object that cannot be
//! used keeps its last good version; both are problems. Whatever starts with a dot is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use gauze_model::{Code, Origin};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::document::{self, Read};
use super::{Update, yaml};
use crate::problem::{Place, Problem};
use crate::world::{Event, Object, ObjectKey};

/// A change is read when nothing has changed for this long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(30);
/// A change is read after this long even if the directory never comes to rest.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked whether anybody still listens, and whether a directory that vanished is back.
const LOOK: Duration = Duration::from_secs(1);
/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 64 << 20;
/// How deep directories are followed: a link may lead back up.
const DEPTH_MAX: usize = 16;
/// Updates that wait for their reader.
const UPDATES: usize = 16;

/// Reads all objects below `directory`, once.
pub fn read(directory: &Path) -> (Vec<Object>, Vec<Problem>) {
    let mut files = Files::default();
    let update = files.refresh(directory);
    (files.objects.into_values().collect(), update.problems)
}

/// Reads all objects below `directory`, now and after every change. The first update comes even if
/// the directory is empty; the watch ends when the receiver is dropped.
///
/// # Errors
/// The directory does not exist.
pub fn watch(directory: &Path) -> io::Result<mpsc::Receiver<Update>> {
    let directory = directory.canonicalize()?;
    let changes = Changes::of(&directory);
    let (updates, receiver) = mpsc::channel(UPDATES);
    thread::Builder::new()
        .name("directory".to_owned())
        .spawn(move || follow(&directory, changes, &updates))?;
    Ok(receiver)
}

/// Tells of every change until nobody listens any more.
fn follow(directory: &Path, mut changes: Changes, updates: &mpsc::Sender<Update>) {
    let mut files = Files::default();
    let mut told: Option<Vec<Problem>> = None;
    loop {
        let mut update = files.refresh(directory);
        update.problems.extend(changes.not_seen.clone());
        if told.is_none() {
            update.events.push(Event::Synced);
        }
        if !update.events.is_empty() || told.as_ref() != Some(&update.problems) {
            told = Some(update.problems.clone());
            if updates.blocking_send(update).is_err() {
                return;
            }
        }
        if !changes.wait(directory, || updates.is_closed()) {
            return;
        }
    }
}

/// What the operating system says about changes of files. Where it says nothing, it is looked at intervals.
struct Changes {
    /// Dropped, it stops; none while the directory is away or cannot be watched.
    watcher: Option<notify::RecommendedWatcher>,
    /// Which directory is watched: one that was moved away is followed by the watcher, but is another.
    watched: Option<(u64, u64)>,
    heard: std_mpsc::Receiver<()>,
    /// Why it cannot be watched.
    not_seen: Option<Problem>,
}

impl Changes {
    fn of(directory: &Path) -> Changes {
        let (hear, heard) = std_mpsc::channel();
        let watched = identity(directory);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is not a change; an error (lost events) is reason enough to look again.
            if event.as_ref().map_or(true, |event| !event.kind.is_access()) {
                let _ = hear.send(());
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        let not_seen = watcher.as_ref().err().filter(|_| watched.is_some()).map(|error| {
            let message = format!("the directory cannot be watched, so it is read every second: {error}");
            let place = Place { file: directory.display().to_string(), line: 1, column: 1 };
            Problem { place: Some(place), ..Problem::new(Code::CHANGE_NOT_SEEN, Origin::default(), message) }
        });
        Changes { watcher: watcher.ok(), watched, heard, not_seen }
    }

    /// Waits until something may have changed and come to rest; false if `ended` says so first.
    fn wait(&mut self, directory: &Path, ended: impl Fn() -> bool) -> bool {
        loop {
            if ended() {
                return false;
            }
            let changed = self.heard.recv_timeout(LOOK) == Ok(());
            if self.watcher.is_none() {
                // Nobody sends any more: without this it would be a busy loop.
                thread::sleep(LOOK);
            }
            if identity(directory) != self.watched || self.not_seen.is_some() {
                *self = Changes::of(directory);
                break;
            }
            if changed {
                break;
            }
        }
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience && self.heard.recv_timeout(QUIET) == Ok(()) {}
        true
    }
}

/// Which directory stands under this path now, if there is one.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(directory).ok().filter(fs::Metadata::is_dir).map(|found| (found.dev(), found.ino()))
}

/// What was read of all files.
#[derive(Default)]
struct Files {
    files: BTreeMap<PathBuf, File>,
    /// What the world was told.
    objects: BTreeMap<ObjectKey, Object>,
}

/// What was read of one file.
#[derive(Default)]
struct File {
    /// Of its text when it was last read.
    hash: u64,
    /// In the order of the file; an object that cannot be used stands with its last good version.
    objects: Vec<(ObjectKey, Place, Object)>,
    problems: Vec<Problem>,
}

impl Files {
    /// Reads what has changed and says what that means for the world.
    fn refresh(&mut self, directory: &Path) -> Update {
        let mut problems = Vec::new();
        if let Err(error) = self.read(directory) {
            let place = Place { file: directory.display().to_string(), line: 1, column: 1 };
            let message = format!("the directory cannot be read: {error}; what was last read stays in force");
            let problem = Problem::new(Code::OBJECT_UNREADABLE, Origin::default(), message);
            problems.push(Problem { place: Some(place), ..problem });
        }
        let now = self.merge(&mut problems);
        let events = changes(&self.objects, &now);
        self.objects = now;
        Update { events, problems }
    }

    fn read(&mut self, directory: &Path) -> io::Result<()> {
        let paths = paths(directory)?;
        self.files.retain(|path, _| paths.contains(path));
        for path in paths {
            let name = name(directory, &path);
            self.files.entry(path.clone()).or_default().refresh(&path, &name);
        }
        Ok(())
    }

    /// The objects of all files; of one that stands in several, the first.
    fn merge(&self, problems: &mut Vec<Problem>) -> BTreeMap<ObjectKey, Object> {
        let mut first = BTreeMap::<&ObjectKey, (&Place, &Object)>::new();
        problems.extend(self.files.values().flat_map(|file| file.problems.iter().cloned()));
        for (key, place, object) in self.files.values().flat_map(|file| &file.objects) {
            if let Some((earlier, _)) = first.get(key) {
                problems.push(twice(key, place, earlier));
            } else {
                first.insert(key, (place, object));
            }
        }
        first.into_iter().map(|(key, (_, object))| (key.clone(), object.clone())).collect()
    }
}

impl File {
    fn refresh(&mut self, path: &Path, name: &str) {
        let text = match read_text(path) {
            Ok(text) => text,
            // It vanished between being listed and being read: the next look will not list it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.hash = 0;
                return self.unreadable(name, (1, 1), &error.to_string());
            }
        };
        let hash = hash(&text);
        if self.hash == hash {
            return;
        }
        self.hash = hash;
        match yaml::parse(&text) {
            Ok(nodes) => self.replace(nodes.iter().flat_map(|node| document::read(name, node))),
            Err(error) => self.unreadable(name, error.position, &error.message),
        }
    }

    fn unreadable(&mut self, name: &str, (line, column): yaml::Position, message: &str) {
        let kept = match self.objects.len() {
            0 => String::new(),
            count => format!("; the {count} objects last read of it stay in force"),
        };
        let place = Place { file: name.to_owned(), line, column };
        let problem = Problem::new(
            Code::OBJECT_UNREADABLE,
            Origin::default(),
            format!("the file cannot be read: {message}{kept}"),
        );
        self.problems = vec![Problem { place: Some(place), ..problem }];
    }

    fn replace(&mut self, reads: impl Iterator<Item = Read>) {
        let last = std::mem::take(&mut self.objects);
        self.problems.clear();
        for read in reads {
            self.problems.extend(read.problems);
            let Some(key) = read.key else { continue };
            let last_good =
                || last.iter().find(|(known, ..)| *known == key).map(|(.., object)| object.clone());
            if let Some(object) = read.object.or_else(last_good) {
                self.objects.push((key, read.place, object));
            }
        }
    }
}

fn twice(key: &ObjectKey, place: &Place, earlier: &Place) -> Problem {
    let origin = Origin {
        kind: key.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ..Origin::default()
    };
    let message =
        format!("the object stands in {earlier} already, and that one counts; remove or rename one of them");
    Problem { place: Some(place.clone()), ..Problem::new(Code::DUPLICATE_OBJECT, origin, message) }
}

/// What leads from the one to the other.
fn changes(old: &BTreeMap<ObjectKey, Object>, new: &BTreeMap<ObjectKey, Object>) -> Vec<Event> {
    let gone = old.keys().filter(|key| !new.contains_key(key)).cloned().map(Event::Delete);
    let changed = new.iter().filter(|(key, object)| old.get(key) != Some(object));
    gone.chain(changed.map(|(_, object)| Event::Apply(object.clone()))).collect()
}

/// All files of YAML or JSON below a directory, in order.
fn paths(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    collect(directory, DEPTH_MAX, &mut found)?;
    Ok(found)
}

fn collect(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                // One that vanished meanwhile holds nothing.
                let _ = collect(&path, depth - 1, found);
            }
        } else if path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json") {
            found.insert(path);
        }
    }
    Ok(())
}

/// The text of a file, if it is not too large.
fn read_text(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > FILE_MAX {
        return Err(io::Error::other(format!("it has {length} bytes, and at most {FILE_MAX} are read")));
    }
    fs::read_to_string(path)
}

/// A file as the user knows it.
fn name(directory: &Path, path: &Path) -> String {
    path.strip_prefix(directory).unwrap_or(path).display().to_string()
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
