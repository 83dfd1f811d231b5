//! Several replicas, one word on what is live. Each hears only the proxies that have a stream to it, so `Programmed` is
//! right only over all: the leader asks the others every second, and those pass on what the leader says.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::peers::{OBJECTS, PROXIES, Peer, Peers};
use crate::admin::views;
use crate::metrics::Metrics;
use crate::push::Push;
use crate::status::{self, Heard};

/// How often the others are asked.
const ASK: Duration = Duration::from_secs(1);
/// A replica that could not be asked for so long may know what we do not.
const UNHEARD: Duration = Duration::from_secs(10);

/// What all replicas know together.
#[derive(Clone)]
pub struct Replicas {
    push: Arc<Push>,
    peers: Peers,
    leads: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    others: Arc<Mutex<Others>>,
    /// Counts the changes of what the others say.
    changes: watch::Sender<u64>,
}

/// Who says what the conditions are.
pub(crate) enum Word {
    /// We lead: they follow from this.
    Ours(Heard),
    /// The leader's own answer to the same question.
    Leaders(Bytes),
}

/// What the others said while we lead, by pod.
#[derive(Default)]
struct Others {
    /// Each was asked at least once.
    asked: bool,
    by_pod: BTreeMap<String, Other>,
}

struct Other {
    /// When it last answered, or was first known.
    heard: Instant,
    said: Option<(HeaderValue, Arc<Value>)>,
}

impl Replicas {
    pub(crate) fn new(
        push: Arc<Push>,
        peers: Peers,
        leads: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
    ) -> Replicas {
        Replicas { push, peers, leads, metrics, others: Arc::default(), changes: watch::Sender::new(0) }
    }

    /// Asks the others for as long as we lead.
    pub(crate) async fn keep(self) {
        let mut leads = self.leads.clone();
        loop {
            if *leads.borrow_and_update() {
                self.push.forget_those_who_left();
                self.ask_all().await;
            } else {
                *self.lock() = Others::default();
            }
            tokio::select! {
                () = sleep(ASK) => {}
                changed = leads.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Tells of every change of what the others say.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until each of the others has said what its proxies hold, or has been silent for so long that nothing
    /// is claimed without it.
    pub(super) async fn settled(&self) {
        let mut changes = self.changes();
        while !self.lock().is_settled(Instant::now()) {
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(ASK) => {}
            }
        }
    }

    /// Who says what the conditions are, and what. Where nobody leads, it is said that something is missing.
    pub(crate) async fn word(&self) -> Word {
        if *self.leads.borrow() {
            return Word::Ours(self.heard());
        }
        match self.peers.any(&self.push.world(), OBJECTS).await {
            Some(objects) => Word::Leaders(objects),
            None => Word::Ours(Heard { unheard: vec!["the leader".to_owned()], ..self.push.heard() }),
        }
    }

    /// Answers another replica that asks for the proxies of this one, or for the leader's objects.
    pub(crate) async fn answer(&self, path: &str, known: Option<&HeaderValue>) -> Response<Bytes> {
        if path == OBJECTS && !*self.leads.borrow() {
            return empty(StatusCode::MISDIRECTED_REQUEST);
        }
        let (replicas, is_objects) = (self.clone(), path == OBJECTS);
        let made = tokio::task::spawn_blocking(move || match is_objects {
            true => views::objects(&replicas.push, &replicas.heard()).to_string(),
            false => views::proxies(&replicas.push).to_string(),
        });
        let Ok(json) = made.await else { return empty(StatusCode::INTERNAL_SERVER_ERROR) };
        let tag = tag(json.as_bytes());
        if known == Some(&tag) {
            return empty(StatusCode::NOT_MODIFIED);
        }
        let mut answer = Response::new(Bytes::from(json));
        answer.headers_mut().insert(header::ETAG, tag);
        answer
    }

    /// What all have heard, and whose word is missing.
    pub(super) fn heard(&self) -> Heard {
        let ours = views::proxies(&self.push);
        let others = self.lock();
        let said = others.by_pod.values().filter_map(|other| Some(other.said.as_ref()?.1.as_ref()));
        let answers: Vec<&Value> = std::iter::once(&ours).chain(said).collect();
        Heard { unheard: others.unheard(Instant::now()), ..status::heard_by_all(&answers) }
    }

    async fn ask_all(&self) {
        let peers = self.peers.all(&self.push.world());
        let answers = join_all(peers.iter().map(|peer| async {
            let known = self.lock().tag_of(&peer.pod);
            self.peers.ask(peer, PROXIES, known.as_ref()).await
        }));
        let answers = answers.await;
        let now = Instant::now();
        let mut others = self.lock();
        let (former, tags) = (others.unheard(now), others.tags());
        others.note(&peers, answers, now);
        let unheard = others.unheard(now);
        let changed = former != unheard || tags != others.tags();
        drop(others);
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
        self.metrics.replicas_unheard.set(unheard.len() as f64);
        tell(&former, &unheard);
    }

    fn lock(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Others {
    fn tag_of(&self, pod: &str) -> Option<HeaderValue> {
        Some(self.by_pod.get(pod)?.said.as_ref()?.0.clone())
    }

    /// What tells their answers apart.
    fn tags(&self) -> Vec<(String, Option<HeaderValue>)> {
        self.by_pod.keys().map(|pod| (pod.clone(), self.tag_of(pod))).collect()
    }

    /// Whether nobody is to be waited for.
    fn is_settled(&self, now: Instant) -> bool {
        let is_known = |other: &Other| other.said.is_some() || now.duration_since(other.heard) >= UNHEARD;
        self.asked && self.by_pod.values().all(is_known)
    }

    /// Takes note of a round of answers; who is no longer known is forgotten.
    fn note(&mut self, peers: &[Peer], answers: Vec<Option<Response<Bytes>>>, now: Instant) {
        self.asked = true;
        self.by_pod.retain(|pod, _| peers.iter().any(|peer| peer.pod == *pod));
        for (peer, answer) in peers.iter().zip(answers) {
            let other = self.by_pod.entry(peer.pod.clone()).or_insert(Other { heard: now, said: None });
            let Some(answer) = answer else { continue };
            if answer.status() == StatusCode::NOT_MODIFIED && other.said.is_some() {
                other.heard = now;
            } else if let Some(said) = read(&answer) {
                *other = Other { heard: now, said: Some(said) };
            }
        }
    }

    /// Those without whose word no count is right. One that never answered has ten seconds to begin: it may just be
    /// starting, and then nobody has a stream to it.
    fn unheard(&self, now: Instant) -> Vec<String> {
        if !self.asked {
            return vec!["the other replicas".to_owned()];
        }
        let silent = self.by_pod.iter().filter(|(_, other)| now.duration_since(other.heard) >= UNHEARD);
        silent.map(|(pod, _)| pod.clone()).collect()
    }
}

/// A whole answer that can be read.
fn read(answer: &Response<Bytes>) -> Option<(HeaderValue, Arc<Value>)> {
    let tag = answer.headers().get(header::ETAG).filter(|_| answer.status() == StatusCode::OK)?;
    Some((tag.clone(), Arc::new(serde_json::from_slice(answer.body()).ok()?)))
}

/// The same for the same bytes.
fn tag(bytes: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()))
        .expect("quoted hexadecimal is a header value")
}

fn empty(status: StatusCode) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}

fn tell(former: &[String], unheard: &[String]) {
    for pod in unheard.iter().filter(|pod| !former.contains(pod)) {
        warn!(pod, "a replica cannot be asked: what its proxies hold is unknown");
    }
    for pod in former.iter().filter(|pod| !unheard.contains(pod)) {
        info!(pod, "a replica can be asked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(pods: &[&str]) -> Vec<Peer> {
        pods.iter().map(|pod| Peer::for_tests(pod)).collect()
    }

    fn answer(status: StatusCode, json: &str) -> Option<Response<Bytes>> {
        let mut answer = Response::new(Bytes::from(json.to_owned()));
        *answer.status_mut() = status;
        answer.headers_mut().insert(header::ETAG, tag(json.as_bytes()));
        Some(answer)
    }

    #[test]
    fn a_replica_that_was_not_heard_for_ten_seconds_is_missing_until_it_answers_or_is_gone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut others = Others::default();
        assert_eq!(others.unheard(start), ["the other replicas"], "nobody was asked yet");
        let both = peers(&["gauze-1", "gauze-2"]);
        assert!(!others.is_settled(start));
        others.note(&both, vec![answer(StatusCode::OK, "{}"), None], at(0));
        assert_eq!([at(9), at(10)].map(|now| others.is_settled(now)), [false, true], "one is waited for");
        assert_eq!(others.unheard(at(9)), [""; 0], "one may just be starting");
        others.note(&both, vec![answer(StatusCode::NOT_MODIFIED, ""), None], at(9));
        assert_eq!(others.unheard(at(12)), ["gauze-2"], "one never answered");
        others.note(&both, vec![None, answer(StatusCode::OK, "{")], at(13));
        assert_eq!(others.unheard(at(20)), ["gauze-1", "gauze-2"], "what cannot be read is no answer");
        others.note(&both, vec![None, answer(StatusCode::OK, "{}")], at(21));
        assert_eq!(others.unheard(at(22)), ["gauze-1"]);
        others.note(&peers(&["gauze-2"]), vec![answer(StatusCode::OK, "{}")], at(23));
        assert_eq!(others.unheard(at(24)), [""; 0], "whose pod is gone has no proxies");
    }
}
