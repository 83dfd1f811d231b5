//! One watch: all objects of a kind, then each change, for as long as the kind is served.
//!
//! It resumes where it broke off (`resourceVersion`, kept young by bookmarks). Where the API server no
//! longer knows that place (410 Gone), or refuses it for any other reason, everything is read anew; what
//! vanished meanwhile is found by comparing (`known.rs`). Until then all stays as it was.
//!
//! This is on kube's `Client`, not on its `watcher`: that one does not tell that a broken watch works again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ListMeta, Request, Status};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::read::{Read, read};
use super::watched::{Served, Watched, served};
use crate::metrics::Metrics;

/// How long the API server keeps a watch open; then it is resumed.
const WATCH_LIFE: Duration = Duration::from_secs(290);
/// Bookmarks come every minute: a watch that says nothing for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// An API server that does not answer a request for so long is taken for away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a kind is served that was not.
const LOOK: Duration = Duration::from_secs(3);
/// How long a kind that was served must be missing to be taken for gone. Whoever removes a kind removes its
/// objects first, which is seen by watch; an API server that only begins may not know its kinds yet.
const MISSING: Duration = Duration::from_secs(10);
/// Pauses between attempts, from the first to all after the last.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Refusals in a row after which everything is read anew.
const REFUSALS: u32 = 3;
/// Objects of one page, where the API server cannot stream a list.
const PAGE: u32 = 500;

/// What a watch has to say.
#[derive(Debug)]
pub(super) enum Said {
    /// All that exists now.
    All(Vec<Read>),
    Apply(Read),
    Delete {
        namespace: String,
        name: String,
    },
    /// The API server serves the kind, and takes statuses of it or does not.
    Served {
        has_status: bool,
    },
    /// The API server answers.
    Working,
    /// It does not, or refuses.
    Failing(String),
}

/// Why a watch ended other than by its time.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{}", describe(.0))]
    Call(#[from] kube::Error),
    #[error("the API server ended the watch: {} ({})", .0.message, .0.code)]
    Refused(Box<Status>),
    #[error("the API server does not answer")]
    Silent,
}

impl Broken {
    fn status(&self) -> Option<&Status> {
        match self {
            Broken::Call(kube::Error::Api(status)) | Broken::Refused(status) => Some(status),
            Broken::Call(_) | Broken::Silent => None,
        }
    }

    fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }
}

/// An error with its causes: kube's own text often ends where it becomes interesting.
fn describe(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// The watch of one kind.
pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) watched: Watched,
    pub(super) said: mpsc::Sender<(Watched, Said)>,
    /// Changes when all connections must be made anew.
    pub(super) reconnect: watch::Receiver<u64>,
    pub(super) metrics: Arc<Metrics>,
}

/// How far a watch has read.
#[derive(Default)]
struct Place {
    /// None: everything must be read.
    version: Option<String>,
    /// Whether the API server cannot stream a list (KEP-3157), so that pages are asked for.
    pages: bool,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<Value>,
}

impl Watch {
    /// Watches until nobody listens.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        // Since when the kind is missing, and whether that was told.
        let mut missing: Option<(Instant, bool)> = None;
        let mut was_served = false;
        while !self.said.is_closed() {
            match timeout(ANSWER_TIMEOUT, served(&self.client, self.watched)).await {
                Ok(Ok(Some(Served { path, has_status }))) => {
                    (failures, missing, was_served) = (0, None, true);
                    self.tell(Said::Served { has_status }).await;
                    self.follow(&path).await;
                }
                Ok(Ok(None)) => {
                    failures = 0;
                    self.tell(Said::Working).await;
                    let (since, told) = missing.get_or_insert((Instant::now(), false));
                    if !*told && (!was_served || since.elapsed() >= MISSING) {
                        *told = true;
                        info!(kind = %self.watched, "the API server does not serve this kind");
                        self.tell(Said::All(Vec::new())).await;
                    }
                    sleep(LOOK).await;
                }
                Ok(Err(error)) => self.failed(&mut failures, error.into()).await,
                Err(_) => self.failed(&mut failures, Broken::Silent).await,
            }
        }
    }

    /// Watches while the kind is served under `path`.
    async fn follow(&mut self, path: &str) {
        let mut place = Place::default();
        let mut failures = 0;
        while !self.said.is_closed() {
            let Err(broken) = self.once(path, &mut place, &mut failures).await else { continue };
            match broken.code() {
                // The kind, or this version of it, is gone.
                Some(404) => return,
                Some(code) if is_lost(code, failures) && place.version.take().is_some() => {
                    info!(kind = %self.watched, "reading all objects anew: {broken}");
                    self.metrics.watch_restarts.with_label_values(&[&self.watched.to_string()]).inc();
                    if failures == 0 {
                        continue;
                    }
                }
                Some(400 | 422) if !place.pages => {
                    place.pages = true;
                    continue;
                }
                _ => {}
            }
            self.failed(&mut failures, broken).await;
        }
    }

    /// One connection: it ends after [`WATCH_LIFE`], or broken.
    async fn once(&mut self, path: &str, place: &mut Place, failures: &mut u32) -> Result<(), Broken> {
        let request = Request::new(path);
        if place.version.is_none() && place.pages {
            place.version = Some(self.list(&request).await?);
        }
        let parameters = WatchParams {
            send_initial_events: place.version.is_none(),
            bookmarks: true,
            ..WatchParams::default().timeout(WATCH_LIFE.as_secs() as u32)
        };
        // Without a version, what etcd holds now: never what a cache held at some time.
        let from = place.version.clone().unwrap_or_default();
        let request = request.watch(&parameters, &from).map_err(kube::Error::BuildRequest)?;
        let opened = timeout(ANSWER_TIMEOUT, self.client.request_events::<Value>(request)).await;
        let mut events = opened.map_err(|_| Broken::Silent)??.boxed();
        self.tell(Said::Working).await;
        // What is read before the API server says that this was all.
        let mut all = place.version.is_none().then(Vec::new);
        self.reconnect.mark_unchanged();
        loop {
            let event = tokio::select! {
                event = timeout(SILENCE_MAX, events.next()) => event.map_err(|_| Broken::Silent)?,
                _ = self.reconnect.changed() => return Ok(()),
            };
            let Some(event) = event else { return Ok(()) };
            self.hear(event?, place, &mut all).await?;
            *failures = 0;
        }
    }

    async fn hear(
        &self,
        event: WatchEvent<Value>,
        place: &mut Place,
        all: &mut Option<Vec<Read>>,
    ) -> Result<(), Broken> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version_of(&object);
                let read = self.read(object);
                match all {
                    Some(all) => all.push(read),
                    None => {
                        self.tell(Said::Apply(read)).await;
                        place.version = version.or(place.version.take());
                    }
                }
            }
            WatchEvent::Deleted(object) => {
                place.version = version_of(&object).or(place.version.take());
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                self.tell(Said::Delete { namespace: text("namespace"), name: text("name") }).await;
            }
            WatchEvent::Bookmark(bookmark) => {
                if let Some(all) = all.take_if(|_| bookmark.metadata.annotations.contains_key(INITIAL_END)) {
                    self.tell(Said::All(all)).await;
                }
                if all.is_none() {
                    place.version = Some(bookmark.metadata.resource_version);
                }
            }
            WatchEvent::Error(status) => return Err(Broken::Refused(status)),
        }
        Ok(())
    }

    /// Reads all objects page by page; returns where to watch from.
    async fn list(&self, request: &Request) -> Result<String, Broken> {
        let mut parameters = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = request.list(&parameters).map_err(kube::Error::BuildRequest)?;
            let page = timeout(ANSWER_TIMEOUT, self.client.request::<List>(page)).await;
            let List { metadata, items } = page.map_err(|_| Broken::Silent)??;
            all.extend(items.into_iter().map(|object| self.read(object)));
            parameters.continue_token = metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                self.tell(Said::All(all)).await;
                return Ok(metadata.resource_version.unwrap_or_default());
            }
        }
    }

    fn read(&self, object: Value) -> Read {
        self.metrics.watch_events.with_label_values(&[&self.watched.to_string()]).inc();
        read(self.watched, object)
    }

    async fn failed(&self, failures: &mut u32, broken: Broken) {
        debug!(kind = %self.watched, failures, "a watch broke off: {broken}");
        self.metrics.watch_failures.with_label_values(&[&self.watched.to_string()]).inc();
        self.tell(Said::Failing(broken.to_string())).await;
        sleep(pause(*failures, fastrand::f64())).await;
        *failures = failures.saturating_add(1);
    }

    async fn tell(&self, said: Said) {
        // Nobody listens: `run` ends.
        let _ = self.said.send((self.watched, said)).await;
    }
}

/// Marks the bookmark after the last object of a streamed list (KEP-3157).
const INITIAL_END: &str = "k8s.io/initial-events-end";

fn version_of(object: &Value) -> Option<String> {
    object["metadata"]["resourceVersion"].as_str().map(str::to_owned)
}

/// Whether the API server cannot go on from where we are: it says so (410), or refuses again and again, as
/// one does whose etcd was restored from a backup. One that is busy, starting or not for us to ask is no such.
fn is_lost(code: u16, failures: u32) -> bool {
    match code {
        410 => true,
        401 | 403 | 429 | 503 => false,
        _ => failures >= REFUSALS,
    }
}

/// The pause after so many failures in a row; `dice` from 0 to 1 spreads replicas and kinds over half of it.
fn pause(failures: u32, dice: f64) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(PAUSE_MAX);
    longest.mul_f64(0.5 + dice / 2.0)
}

#[cfg(test)]
mod tests;
