//! A steady mixed load with a ledger: every request has an id, so that what was lost, duplicated or truncated
//! between caller and apps is found by name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;

use super::App;
use super::client::{Answer, Client, Protocol, request, with_body};

/// What became of one request, at the caller.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub id: String,
    pub protocol: Protocol,
    /// When it was sent, since the load began.
    pub sent: Duration,
    pub answer: Result<Answer, Failure>,
    pub body: String,
}

/// Why a caller has no answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// It was told nothing at all, for as long as it waits.
    pub is_silence: bool,
    pub what: String,
}

/// What a caller was told of its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The app's whole, right answer.
    Answer,
    /// Another answer, with the code of a proxy or its status.
    Refused(String),
    /// The connection or the answer came to an end before its end.
    BrokenOff,
    /// Neither answer nor error.
    Nothing,
}

/// A load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    callers: JoinSet<()>,
    began: Instant,
}

/// All that came of a load.
pub struct Report {
    pub outcomes: Vec<Outcome>,
}

/// How one caller of a load sends its requests: one after another.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub protocol: Protocol,
    /// POST with a body of some bytes to some kilobytes; else GET.
    pub has_body: bool,
    /// Each request over a connection of its own; else all over one.
    pub is_fresh: bool,
}

const fn manner(protocol: Protocol, has_body: bool, is_fresh: bool) -> Manner {
    Manner { protocol, has_body, is_fresh }
}

/// Two callers in each protocol, over a connection each.
const STEADY: [Manner; 6] = [
    manner(Protocol::Http1, true, false),
    manner(Protocol::Http2, true, false),
    manner(Protocol::Grpc, true, false),
    manner(Protocol::Http1, true, false),
    manner(Protocol::Http2, true, false),
    manner(Protocol::Grpc, true, false),
];

/// Every method, protocol and use of connections that a proxy treats differently.
pub const MIXED: [Manner; 12] = [
    manner(Protocol::Http1, false, false),
    manner(Protocol::Http1, true, false),
    manner(Protocol::Http1, false, true),
    manner(Protocol::Http1, true, true),
    manner(Protocol::Http2, false, false),
    manner(Protocol::Http2, true, false),
    manner(Protocol::Http2, false, true),
    manner(Protocol::Http2, true, true),
    manner(Protocol::Grpc, true, false),
    manner(Protocol::Grpc, true, true),
    manner(Protocol::Opaque, true, false),
    manner(Protocol::Opaque, true, true),
];

/// Whom a load calls.
#[derive(Clone, Debug)]
pub struct Callee {
    /// Where it takes requests.
    pub requests: SocketAddr,
    /// Where it takes lines.
    pub lines: SocketAddr,
    /// Its name in a request.
    pub host: String,
}

impl Load {
    /// Starts `rate` requests a second against `address`, HTTP/1.1, HTTP/2 and gRPC in turn.
    pub fn start(name: &str, address: SocketAddr, host: &str, rate: u32) -> Load {
        let callee = Callee { requests: address, lines: address, host: host.to_owned() };
        Load::start_as(&STEADY, name, &callee, rate)
    }

    /// The same by callers of these manners.
    pub fn start_as(manners: &[Manner], name: &str, callee: &Callee, rate: u32) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            sent: Arc::default(),
            outcomes: Arc::default(),
            callers: JoinSet::new(),
            began: Instant::now(),
        };
        let pause = Duration::from_secs(1) * manners.len() as u32 / rate;
        for (number, manner) in manners.iter().enumerate() {
            let caller = Caller {
                manner: *manner,
                callee: callee.clone(),
                name: format!("{name}-{number}"),
                pause,
                began: load.began,
                stop: load.stop.clone(),
                sent: load.sent.clone(),
                outcomes: load.outcomes.clone(),
            };
            load.callers.spawn(caller.run());
        }
        load
    }

    /// Since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were sent.
    pub async fn send_more(&self, count: usize) {
        let goal = self.sent() + count;
        while self.sent() < goal {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What has come of requests since it was asked last.
    pub fn take(&self) -> Vec<Outcome> {
        std::mem::take(&mut *self.outcomes.lock().expect("no caller panics"))
    }

    /// Ends it; every request under way is answered first.
    pub async fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
        Report { outcomes: self.take() }
    }
}

struct Caller {
    manner: Manner,
    callee: Callee,
    name: String,
    pause: Duration,
    began: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Caller {
    async fn run(self) {
        let mut connection = None;
        let mut ticks = tokio::time::interval(self.pause);
        for number in 0.. {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let outcome = self.one(&mut connection, number).await;
            self.outcomes.lock().expect("no caller panics").push(outcome);
        }
    }

    async fn one(&self, connection: &mut Option<Client>, number: usize) -> Outcome {
        let id = format!("{}-{number}", self.name);
        let body = match self.manner.has_body {
            true => format!("{id}:{}", "b".repeat(number % 2000)),
            false => String::new(),
        };
        let sent = self.began.elapsed();
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = self.exchange(connection, &id, &body).await;
        let answer =
            answer.map_err(|error| Failure { is_silence: error.is::<Elapsed>(), what: format!("{error:#}") });
        if answer.is_err() || self.manner.is_fresh {
            *connection = None;
        }
        Outcome { id, protocol: self.manner.protocol, sent, answer, body }
    }

    async fn exchange(
        &self,
        connection: &mut Option<Client>,
        id: &str,
        body: &str,
    ) -> anyhow::Result<Answer> {
        // As any client does: a connection that the peer has closed between requests is replaced.
        if connection.as_ref().is_none_or(Client::is_closed) {
            *connection = Some(Client::connect(self.manner.protocol, self.address()).await?);
        }
        let connection = connection.as_mut().expect("just made");
        let request = request(self.manner.protocol, &self.callee.host, "/echo", id);
        connection.send(if body.is_empty() { request } else { with_body(request, body.to_owned()) }).await
    }

    fn address(&self) -> SocketAddr {
        match self.manner.protocol {
            Protocol::Opaque => self.callee.lines,
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => self.callee.requests,
        }
    }
}

impl Outcome {
    /// What its caller was told.
    pub fn told(&self) -> Told {
        let answer = match &self.answer {
            Ok(answer) => answer,
            Err(failure) if failure.is_silence => return Told::Nothing,
            Err(_) => return Told::BrokenOff,
        };
        let status = answer.headers.get("grpc-status");
        let status = status.or_else(|| answer.trailers.as_ref()?.get("grpc-status"));
        // gRPC says there that all is well; nobody else has any.
        let is_fine = status.is_none_or(|status| status == "0");
        if answer.status == 200 && is_fine && answer.text() == self.body {
            return Told::Answer;
        }
        Told::Refused(match answer.code() {
            "" => answer.status.to_string(),
            code => code.to_owned(),
        })
    }

    /// The answer in a line.
    pub fn text(&self) -> String {
        match &self.answer {
            Ok(answer) => format!("{} {} {}", answer.status, answer.code(), short(&answer.text())),
            Err(failure) => failure.what.clone(),
        }
    }
}

impl Report {
    /// Requests without a whole, right answer.
    pub fn failed(&self) -> Vec<String> {
        let wrong = self.outcomes.iter().filter_map(|outcome| match &outcome.answer {
            Ok(answer) if answer.status == 200 && answer.text() == outcome.body => None,
            Ok(answer) => Some(format!("{}: {} {}", outcome.id, answer.status, short(&answer.text()))),
            Err(failure) => Some(format!("{}: {}", outcome.id, failure.what)),
        });
        wrong.collect()
    }

    /// Answered requests by app, among those sent since `from`.
    pub fn by_app(&self, from: Duration) -> BTreeMap<String, usize> {
        let mut apps = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.sent >= from) {
            if let Ok(answer) = &outcome.answer {
                *apps.entry(answer.app().to_owned()).or_default() += 1;
            }
        }
        apps
    }

    /// The share of one app, in percent, among those sent since `from`, and of how many.
    pub fn share(&self, app: &str, from: Duration) -> (f64, usize) {
        let apps = self.by_app(from);
        let all: usize = apps.values().sum();
        let its = apps.get(app).copied().unwrap_or(0);
        (100.0 * its as f64 / all.max(1) as f64, all)
    }

    /// # Panics
    /// A request failed, never came to an app although it was answered, or came twice.
    pub fn assert_nothing_lost(&self, apps: &[&App]) {
        let failed = self.failed();
        let sample: Vec<_> = failed.iter().take(10).collect();
        assert!(failed.is_empty(), "{} of {} failed: {sample:#?}", failed.len(), self.outcomes.len());
        let mut came: BTreeMap<String, usize> = BTreeMap::new();
        for (id, times) in apps.iter().flat_map(|app| app.ids()) {
            *came.entry(id).or_default() += times;
        }
        let wrong: Vec<_> = self
            .outcomes
            .iter()
            .map(|outcome| (&outcome.id, came.get(&outcome.id).copied().unwrap_or(0)))
            .filter(|(_, times)| *times != 1)
            .take(10)
            .collect();
        assert!(wrong.is_empty(), "not exactly once at the apps: {wrong:?}");
    }
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}
