//! Load from a client outside the mesh: an open loop at a fixed rate, HTTP/1.1, HTTP/2 and gRPC mixed.
//! A request that is due is sent whether or not earlier ones were answered, and its latency counts
//! from when it was due; unless the load is told to have only so many outstanding at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::call::{Answer, Protocol};
use super::client::{Call, CallError, Client};
use super::latency::Latencies;

/// The name under which the load appears in ledgers.
pub(crate) const CALLER: &str = "client";

/// A running load; it ends when this is dropped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    client: Client,
    /// Requests per second; 0: paused.
    rate: AtomicU32,
    /// Outstanding requests at which the next one waits, instead of being due.
    at_once: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    run: String,
    runs: BTreeMap<String, Tally>,
}

/// What became of the requests of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) by_protocol: BTreeMap<Protocol, Outcomes>,
    /// How often each failure was seen; at most [`REASONS_MAX`] different ones.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// How many answers came from each pod, of the first [`PODS_MAX`].
    pub(crate) pods: BTreeMap<String, u64>,
}

/// What became of the requests of one protocol.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) latencies: Latencies,
}

impl Tally {
    /// Requests that were sent and have come to no end yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.by_protocol.values().map(|outcomes| outcomes.answered + outcomes.failed).sum::<u64>()
    }

    fn note(&mut self, protocol: Protocol, outcome: Result<Answer, CallError>, taken: Duration) {
        let outcomes = self.by_protocol.entry(protocol).or_default();
        let error = match outcome {
            Err(error) => error,
            Ok(answer) => {
                outcomes.answered += 1;
                outcomes.latencies.note(taken);
                return count(&mut self.pods, answer.pod, PODS_MAX);
            }
        };
        outcomes.failed += 1;
        self.failed += 1;
        count(&mut self.reasons, format!("{}: {error}", protocol.as_str()), REASONS_MAX);
    }

    /// Adds what became of another run.
    pub(crate) fn merge(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.failed += other.failed;
        for (protocol, outcomes) in &other.by_protocol {
            let own = self.by_protocol.entry(*protocol).or_default();
            own.answered += outcomes.answered;
            own.failed += outcomes.failed;
            own.latencies.merge(&outcomes.latencies);
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        for (pod, count) in &other.pods {
            *self.pods.entry(pod.clone()).or_default() += count;
        }
    }

    /// The latencies of all protocols.
    pub(crate) fn latencies(&self) -> Latencies {
        let mut all = Latencies::default();
        self.by_protocol.values().for_each(|outcomes| all.merge(&outcomes.latencies));
        all
    }

    /// The most frequent failures, for a message.
    pub(crate) fn worst(&self) -> String {
        let mut reasons: Vec<(&String, &u64)> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let lines = reasons.iter().take(3).map(|(reason, count)| format!("{count} x {reason}"));
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// Counts one more of these, if they are not too many different ones.
fn count(counts: &mut BTreeMap<String, u64>, of: String, most: usize) {
    if counts.len() < most || counts.contains_key(&of) {
        *counts.entry(of).or_default() += 1;
    }
}

/// Different reasons that a run remembers.
const REASONS_MAX: usize = 64;
/// Pods that a run remembers.
const PODS_MAX: usize = 256;
/// Requests in flight beyond which the load does not add: this machine does not keep up.
const IN_FLIGHT_MAX: u64 = 4096;
/// How often the sender wakes: some milliseconds are finer than any latency that it could distort.
const TICK: Duration = Duration::from_millis(2);

impl Load {
    /// Begins to send `rate` requests per second to `address`, as the run `run`.
    pub(crate) fn start(address: impl ToString, authority: &str, rate: u32, seed: u64, run: &str) -> Load {
        let shared = Arc::new(Shared {
            client: Client::new(address, authority),
            rate: AtomicU32::new(rate),
            at_once: AtomicU64::new(u64::MAX),
            state: Mutex::new(State { run: run.to_owned(), runs: BTreeMap::new() }),
        });
        let task = tokio::spawn(send(shared.clone(), seed));
        Load { shared, task }
    }

    /// Requests sent from now on belong to `run`.
    pub(crate) fn begin(&self, run: &str) {
        lock(&self.shared).run = run.to_owned();
    }

    pub(crate) fn set_rate(&self, rate: u32) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// From now on a request waits while so many are outstanding: a machine that does not keep up gets fewer.
    pub(crate) fn set_at_once(&self, requests: u64) {
        self.shared.at_once.store(requests, Ordering::Relaxed);
    }

    pub(crate) fn rate(&self) -> u32 {
        self.shared.rate.load(Ordering::Relaxed)
    }

    /// What became of the requests of `run` so far.
    pub(crate) fn tally(&self, run: &str) -> Tally {
        lock(&self.shared).runs.get(run).cloned().unwrap_or_default()
    }

    /// What became of all requests so far.
    pub(crate) fn tallies(&self) -> BTreeMap<String, Tally> {
        lock(&self.shared).runs.clone()
    }
}

/// A request that counts as sent.
struct Begun {
    run: String,
    /// Too many wait for an answer: it is not really sent.
    overrun: bool,
}

impl Shared {
    fn begin(&self) -> Begun {
        let mut state = lock(self);
        let run = state.run.clone();
        let tally = state.runs.entry(run.clone()).or_default();
        tally.sent += 1;
        Begun { run, overrun: tally.in_flight() > IN_FLIGHT_MAX }
    }

    fn is_full(&self) -> bool {
        let at_once = self.at_once.load(Ordering::Relaxed);
        at_once < u64::MAX && lock(self).runs.values().map(Tally::in_flight).sum::<u64>() >= at_once
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send(shared: Arc<Shared>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ticks = tokio::time::interval(TICK);
    let mut due = Instant::now();
    let mut number = 0_u64;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let rate = shared.rate.load(Ordering::Relaxed);
        if rate == 0 {
            due = now;
            continue;
        }
        while due <= now {
            if shared.is_full() {
                due = now; // what waited is not caught up with
                break;
            }
            number += 1;
            let id = format!("{seed:x}-{number}");
            let begun = shared.begin();
            tokio::spawn(send_one(shared.clone(), draw_protocol(&mut random), id, due, begun));
            due += Duration::from_secs(1) / rate;
        }
    }
}

/// Half HTTP/1.1, a quarter each HTTP/2 and gRPC.
fn draw_protocol(random: &mut fastrand::Rng) -> Protocol {
    match random.u8(0..4) {
        0 => Protocol::Http2,
        1 => Protocol::Grpc,
        _ => Protocol::Http1,
    }
}

async fn send_one(shared: Arc<Shared>, protocol: Protocol, id: String, due: Instant, begun: Begun) {
    let Begun { run, overrun } = begun;
    let outcome = if overrun {
        Err(CallError(format!("not sent: {IN_FLIGHT_MAX} wait for an answer, this machine does not keep up")))
    } else {
        let call = Call { protocol, caller: CALLER.to_owned(), run: run.clone(), id };
        shared.client.call(&call).await
    };
    let taken = due.elapsed();
    lock(&shared).runs.entry(run).or_default().note(protocol, outcome, taken);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_knows_what_failed_most() {
        let mut tally = Tally { sent: 4, ..Tally::default() };
        let taken = Duration::from_millis(1);
        tally.note(Protocol::Http1, Ok(Answer::default()), taken);
        tally.note(Protocol::Grpc, Err(CallError("reset".into())), taken);
        tally.note(Protocol::Grpc, Err(CallError("reset".into())), taken);
        assert_eq!((tally.failed, tally.in_flight()), (2, 1));
        assert_eq!(tally.pods, BTreeMap::from([(String::new(), 1)]), "the pod says no name here");
        assert_eq!(tally.worst(), "2 x grpc: reset");
    }

    #[tokio::test]
    async fn with_two_at_once_the_third_waits() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let load = Load::start(silent.local_addr().unwrap(), "web", 1000, 1, "run");
        load.set_at_once(2);
        while load.tally("run").sent < 2 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(TICK * 20).await;
        assert_eq!(load.tally("run").sent, 2);
    }

    #[test]
    fn one_seed_draws_one_mix() {
        let draw = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..1000).map(|_| draw_protocol(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let http1 = draw(7).iter().filter(|protocol| **protocol == Protocol::Http1).count();
        assert!((440..560).contains(&http1), "{http1}");
    }
}
