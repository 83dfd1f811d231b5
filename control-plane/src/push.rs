//! From a change of the world to what each stream must send.
//!
//! A change waits for a moment of quiet; then each name that it touched and that somebody is
//! subscribed to is translated once and encoded once, whoever asks. A stream is owed *names*, not
//! messages: one that is slow later gets the latest state, and holds up nobody.
//!
//! There is one lock, held for short computations only and never across an await; readers of the
//! world take an immutable `Arc`.

mod answers;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gauze_model::{Code, Kind, Name};
use gauze_xds::delta::Held;
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout_at;
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use crate::permission::{self, Refusal};
use crate::problem::Problem;
use crate::source::Update;
use crate::status::{self, Heard};
use crate::workload::Workload;
use crate::world::{MeshSettings, Touched, World};
use answers::Answers;
use stream::Stream;

/// A change waits until nothing else has changed for this long …
const QUIET: Duration = Duration::from_millis(10);
/// … but no longer than this.
const DEBOUNCE_MAX: Duration = Duration::from_millis(100);
/// How long a pod whose proxy went away still counts for `Programmed`.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Open streams of one pod: the one in use, and dead ones that nobody has noticed yet.
const STREAMS_PER_POD_MAX: usize = 4;

/// The world, and all streams.
pub struct Push {
    state: Mutex<State>,
    /// Counts the changes of the world.
    changes: watch::Sender<u64>,
    /// Counts the changes of what proxies hold and should hold, but for those of the world.
    holdings: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

/// An ADS stream, by the order in which they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

#[derive(Default)]
struct State {
    world: Arc<World>,
    /// What the source cannot read.
    problems: Vec<Problem>,
    answers: Answers,
    /// Open ones, and the last one of each pod that went away a short time ago.
    streams: BTreeMap<StreamId, Stream>,
    opened: u64,
}

/// A pod as the operator sees it.
pub struct ProxyView {
    pub workload: Workload,
    pub connected: bool,
    /// When its newest stream was opened.
    pub since: SystemTime,
    /// What it holds and should hold, and what is to be said of it in conditions.
    pub heard: status::Proxy,
    pub holds: BTreeMap<(Kind, Name), Held>,
}

impl Push {
    pub fn new(settings: MeshSettings, metrics: Arc<Metrics>) -> Push {
        let state = State { world: Arc::new(World::new(settings)), ..State::default() };
        Push {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            holdings: watch::Sender::new(0),
            metrics,
        }
    }

    /// The world as it is now.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.lock().world)
    }

    /// What the source cannot read now.
    pub fn problems(&self) -> Vec<Problem> {
        self.lock().problems.clone()
    }

    /// Tells of every change of the world, after debouncing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells whenever a proxy comes, goes, asks, or acknowledges or refuses something.
    pub fn holdings(&self) -> watch::Receiver<u64> {
        self.holdings.subscribe()
    }

    /// Forgets pods that have been away for too long to count.
    pub fn forget_those_who_left(&self) {
        if self.lock().forget_those_who_left(Instant::now()) {
            self.holdings_changed();
        }
    }

    fn holdings_changed(&self) {
        self.holdings.send_modify(|count| *count += 1);
    }

    /// Follows a source until it ends: several updates in a row become one change of the world.
    pub async fn follow(&self, mut updates: mpsc::Receiver<Update>) {
        while let Some(first) = updates.recv().await {
            let read = Instant::now();
            let mut batch = vec![first];
            while let Some(update) = next_soon(&mut updates, read + DEBOUNCE_MAX).await {
                batch.push(update);
            }
            self.update(batch, read);
        }
    }

    /// Applies what changed (first read at `read`), and wakes the streams that are owed something for it.
    pub fn update(&self, updates: Vec<Update>, read: Instant) {
        let timer = self.metrics.world_update_duration.start_timer();
        self.lock().update(updates, read, &self.metrics);
        timer.observe_duration();
        self.metrics.world_updates.inc();
        self.changes.send_modify(|count| *count += 1);
    }

    /// Opens a stream for a pod that was admitted. The notification comes whenever something is owed to it.
    /// The oldest of a pod's streams ends when there are too many.
    pub fn open(&self, workload: Workload) -> (StreamId, Arc<Notify>) {
        let opened = self.lock().open(workload, &self.metrics);
        self.holdings_changed();
        opened
    }

    /// Takes a request of a stream; returns what must be sent for it.
    ///
    /// # Errors
    /// It asks for what it may not have: the stream must end.
    pub fn hear(
        &self,
        id: StreamId,
        request: DeltaDiscoveryRequest,
    ) -> Result<Vec<DeltaDiscoveryResponse>, Refusal> {
        let heard = self.lock().hear(id, request, &self.metrics);
        self.holdings_changed();
        heard
    }

    /// What must be sent to a stream for all that has changed since it was last asked.
    ///
    /// # Errors
    /// The stream's pod is gone: the stream must end.
    pub fn owed(&self, id: StreamId) -> Result<Vec<DeltaDiscoveryResponse>, Refusal> {
        self.lock().owed(id, &self.metrics)
    }

    /// Closes a stream; what it held is remembered for a while.
    pub fn close(&self, id: StreamId) {
        self.lock().close(id, Instant::now(), &self.metrics);
        self.holdings_changed();
    }

    /// Each pod with a stream, or with one a short time ago: what it holds and should hold.
    pub fn proxies(&self) -> Vec<ProxyView> {
        self.lock().proxies(Instant::now())
    }

    /// The same for [`status::conditions`](crate::status::conditions).
    pub fn heard(&self) -> Heard {
        let proxies = self.proxies().into_iter().map(|proxy| proxy.heard).collect();
        Heard { proxies, unheard: Vec::new() }
    }

    /// A panic in a computation poisons the lock; what it guards is replaced piece by piece, so going on is right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next update, if it comes before quiet and before `latest`.
async fn next_soon(updates: &mut mpsc::Receiver<Update>, latest: Instant) -> Option<Update> {
    let until = latest.min(Instant::now() + QUIET);
    timeout_at(until.into(), updates.recv()).await.ok().flatten()
}

impl State {
    fn update(&mut self, updates: Vec<Update>, read: Instant, metrics: &Metrics) {
        let mut touched = Touched::default();
        // Copies the world only if a reader still holds it.
        let world = Arc::make_mut(&mut self.world);
        for update in updates {
            for event in update.events {
                touched.extend(world.apply(event));
            }
            log_changes(&self.problems, &update.problems);
            self.problems = update.problems;
        }
        metrics.source_problems.set(count(self.problems.len()));
        self.forget_those_who_left(Instant::now());
        for change in self.answers.update(&self.world, &touched, metrics) {
            for id in &change.subscribers {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.owe(change.key.clone(), &change.former, read);
                }
            }
        }
        self.end_streams_without_pod(&touched);
        self.count_waiting(metrics);
    }

    fn end_streams_without_pod(&mut self, touched: &Touched) {
        for stream in self.streams.values_mut() {
            if touched.contains(&stream.workload.inbound()) && !stream.workload.exists_in(&self.world) {
                info!(pod = %stream.workload, "the pod of this proxy is gone");
                stream.end(Refusal::PodGone);
            }
        }
    }

    fn open(&mut self, workload: Workload, metrics: &Metrics) -> (StreamId, Arc<Notify>) {
        self.make_room(&workload);
        self.opened += 1;
        let id = StreamId(self.opened);
        let stream = Stream::new(workload);
        let wake = stream.wake();
        self.streams.insert(id, stream);
        metrics.streams.inc();
        self.count_connected(metrics);
        (id, wake)
    }

    /// Forgets what earlier streams of a pod left behind, and ends its oldest if there are too many.
    fn make_room(&mut self, workload: &Workload) {
        let of_pod = self.streams.iter().filter(|(_, stream)| stream.workload.is_same_pod(workload));
        let (open, left): (Vec<StreamId>, Vec<StreamId>) =
            of_pod.map(|(id, _)| *id).partition(|id| self.streams[id].is_open());
        left.into_iter().for_each(|id| self.forget(id));
        if open.len() >= STREAMS_PER_POD_MAX
            && let Some(oldest) = self.streams.get_mut(&open[0])
        {
            oldest.end(Refusal::Replaced);
        }
    }

    fn hear(
        &mut self,
        id: StreamId,
        request: DeltaDiscoveryRequest,
        metrics: &Metrics,
    ) -> Result<Vec<DeltaDiscoveryResponse>, Refusal> {
        let State { world, answers, streams, .. } = self;
        let stream = streams.get_mut(&id).ok_or(Refusal::PodGone)?;
        permission::permit(&request, &stream.workload, stream.delta.subscribed().len())?;
        let mut answer = |kind, name: &Name| answers.answer(world, kind, name, metrics);
        let (heard, responses) = stream.delta.on_request(request, &mut answer);
        for key in heard.subscribed.union(&heard.unsubscribed) {
            match stream.delta.held().contains_key(key) {
                true => answers.subscribe(id, key),
                false => answers.unsubscribe(id, key),
            }
        }
        log_heard(&heard, &stream.workload, metrics);
        if heard.acknowledged || !heard.unsubscribed.is_empty() {
            stream.settle(answers);
        }
        metrics.names.set(count(answers.len()));
        count_sent(&responses, metrics);
        Ok(responses)
    }

    fn owed(&mut self, id: StreamId, metrics: &Metrics) -> Result<Vec<DeltaDiscoveryResponse>, Refusal> {
        let State { world, answers, streams, .. } = self;
        let stream = streams.get_mut(&id).ok_or(Refusal::PodGone)?;
        let owed = stream.take_owed()?;
        let mut answer = |kind, name: &Name| answers.answer(world, kind, name, metrics);
        let responses = stream.delta.on_change(&owed.names, &mut answer);
        if let Some(since) = owed.since {
            metrics.push_latency.observe(since.elapsed().as_secs_f64());
        }
        count_sent(&responses, metrics);
        self.count_waiting(metrics);
        Ok(responses)
    }

    fn close(&mut self, id: StreamId, now: Instant, metrics: &Metrics) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.leave(now);
        let workload = stream.workload.clone();
        let others = self.streams.values().filter(|stream| stream.workload.is_same_pod(&workload));
        if others.count() > 1 || !workload.exists_in(&self.world) {
            self.forget(id);
        }
        self.count_connected(metrics);
        self.count_waiting(metrics);
        metrics.names.set(count(self.answers.len()));
    }

    fn proxies(&mut self, now: Instant) -> Vec<ProxyView> {
        self.forget_those_who_left(now);
        let State { answers, streams, .. } = self;
        // Of several streams of a pod the newest says what it holds.
        let newest: BTreeMap<&Workload, &Stream> =
            streams.values().map(|stream| (&stream.workload, stream)).collect();
        newest.values().map(|stream| stream.view(answers)).collect()
    }

    /// Whether there were any.
    fn forget_those_who_left(&mut self, now: Instant) -> bool {
        let world = &self.world;
        let forgotten = self.streams.iter().filter(|(_, stream)| {
            stream.left_before(now, REMEMBERED) || (!stream.is_open() && !stream.workload.exists_in(world))
        });
        let forgotten: Vec<StreamId> = forgotten.map(|(id, _)| *id).collect();
        forgotten.iter().for_each(|id| self.forget(*id));
        !forgotten.is_empty()
    }

    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for key in stream.delta.subscribed() {
            self.answers.unsubscribe(id, key);
        }
    }

    fn count_connected(&self, metrics: &Metrics) {
        metrics.connected_proxies.set(count(self.streams.values().filter(|stream| stream.is_open()).count()));
    }

    fn count_waiting(&self, metrics: &Metrics) {
        metrics
            .waiting_streams
            .set(count(self.streams.values().filter(|stream| stream.is_waiting()).count()));
    }
}

/// Tells each problem of the source once, and when it is gone.
fn log_changes(former: &[Problem], current: &[Problem]) {
    let by_text = |problems: &'_ [Problem]| -> BTreeMap<String, Problem> {
        problems.iter().map(|problem| (problem.to_string(), problem.clone())).collect()
    };
    let (former, current) = (by_text(former), by_text(current));
    for (_, problem) in current.iter().filter(|(text, _)| !former.contains_key(*text)) {
        let Problem { code, origin, place, message } = problem;
        let place = place.as_ref().map(ToString::to_string);
        warn!(%code, %origin, place, "{message}");
    }
    for (text, problem) in former.iter().filter(|(text, _)| !current.contains_key(*text)) {
        info!(code = %problem.code, "no longer: {text}");
    }
}

fn log_heard(heard: &gauze_xds::delta::Heard, workload: &Workload, metrics: &Metrics) {
    for rejection in &heard.rejections {
        let kind = format!("{:?}", rejection.kind).to_lowercase();
        metrics.rejections.with_label_values(&[&kind]).inc();
        warn!(pod = %workload, code = %rejection.code, %rejection, "a proxy refused configuration");
    }
    for name in &heard.unreadable {
        debug!(pod = %workload, code = %Code::NAME_UNREADABLE, name, "a proxy asked for a name that is none");
    }
}

fn count_sent(responses: &[DeltaDiscoveryResponse], metrics: &Metrics) {
    let resources = responses.iter().map(|sent| sent.resources.len() + sent.removed_resources.len());
    metrics.responses.inc_by(responses.len() as u64);
    metrics.resources_sent.inc_by(resources.sum::<usize>() as u64);
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
