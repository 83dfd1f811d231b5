//! What one app received, counted by itself: the only witness that the demo's story believes.

use std::collections::{BTreeMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::call::Protocol;

/// How many requests were received, by run, caller and protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) pod: String,
    pub(crate) received: Vec<Received>,
    /// Requests that came more than once (among the last 65,536).
    pub(crate) duplicates: u64,
    /// Requests that were refused before any work was done, by run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) refused: BTreeMap<String, u64>,
}

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) run: String,
    pub(crate) from: String,
    pub(crate) protocol: Protocol,
    pub(crate) requests: u64,
}

impl Ledger {
    /// How many requests of `run` were received, from anybody.
    pub(crate) fn requests(&self, run: &str) -> u64 {
        self.received.iter().filter(|line| line.run == run).map(|line| line.requests).sum()
    }

    /// How many requests of `run` were refused before any work was done.
    pub(crate) fn refused(&self, run: &str) -> u64 {
        self.refused.get(run).copied().unwrap_or_default()
    }
}

/// The ledger while it is being written.
#[derive(Debug, Default)]
pub(crate) struct Book {
    counts: BTreeMap<(String, String, Protocol), u64>,
    seen: HashSet<String>,
    order: VecDeque<String>,
    duplicates: u64,
    refused: BTreeMap<String, u64>,
}

impl Book {
    /// Notes that a request was refused before any work was done.
    pub(crate) fn refuse(&mut self, run: &str) {
        if self.refused.len() < LINES_MAX || self.refused.contains_key(run) {
            *self.refused.entry(run.to_owned()).or_default() += 1;
        }
    }

    /// Notes one request; `id` may be empty.
    pub(crate) fn note(&mut self, run: &str, from: &str, protocol: Protocol, id: &str) {
        let line = (run.to_owned(), from.to_owned(), protocol);
        if self.counts.len() < LINES_MAX || self.counts.contains_key(&line) {
            *self.counts.entry(line).or_default() += 1;
        }
        if !id.is_empty() {
            self.note_id(id);
        }
    }

    fn note_id(&mut self, id: &str) {
        if !self.seen.insert(id.to_owned()) {
            self.duplicates += 1;
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    /// What was noted so far.
    pub(crate) fn read(&self, service: &str, version: &str, pod: &str) -> Ledger {
        let line = |((run, from, protocol), requests): (&(String, String, Protocol), &u64)| Received {
            run: run.clone(),
            from: from.clone(),
            protocol: *protocol,
            requests: *requests,
        };
        Ledger {
            service: service.to_owned(),
            version: version.to_owned(),
            pod: pod.to_owned(),
            received: self.counts.iter().map(line).collect(),
            duplicates: self.duplicates,
            refused: self.refused.clone(),
        }
    }
}

/// Lines of one ledger: anybody may send any run and caller.
const LINES_MAX: usize = 4096;
/// Request ids that are remembered.
const IDS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_run_and_duplicates_are_seen() {
        let mut book = Book::default();
        book.note("a", "web", Protocol::Http1, "1");
        book.note("a", "web", Protocol::Grpc, "2");
        book.note("b", "web", Protocol::Http1, "2");
        let ledger = book.read("cart", "v1", "cart-v1-0");
        assert_eq!((ledger.requests("a"), ledger.requests("b"), ledger.requests("c")), (2, 1, 0));
        assert_eq!(ledger.duplicates, 1);
    }

    #[test]
    fn what_was_refused_was_not_received() {
        let mut book = Book::default();
        book.refuse("a");
        book.refuse("a");
        let ledger = book.read("cart", "v2", "cart-v2-1");
        assert_eq!((ledger.refused("a"), ledger.refused("b"), ledger.requests("a")), (2, 0, 0));
    }

    #[test]
    fn what_a_ledger_keeps_has_an_end() {
        let mut book = Book::default();
        for number in 0..IDS_MAX + 10 {
            book.note(&format!("run {number}"), "", Protocol::Http1, &number.to_string());
        }
        assert_eq!(book.seen.len(), IDS_MAX);
        assert_eq!(book.counts.len(), LINES_MAX);
    }
}
