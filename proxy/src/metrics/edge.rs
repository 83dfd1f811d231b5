//! Numbers about one edge: a direction, a backend or peer, and how it is secured. A handle is resolved
//! once and then counts without a lock or a lookup by label.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gauze_model::Code;
use gauze_model::outlier::Reason;
use gauze_model::retry::Stop;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Registrar;
use super::labels::{
    EDGE_LABELS, EdgeLabels, Outcome, PROTOCOLS, Protocol, RETRY_REASONS, RetryReason, STOPS, stop_label,
};

/// The handles of one edge.
pub struct EdgeMetrics {
    labels: EdgeLabels,
    families: Arc<Families>,
    upstream: OnceLock<Upstream>,
    protocols: [OnceLock<ProtocolMetrics>; PROTOCOLS.len()],
}

impl fmt::Debug for EdgeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.labels.fmt(f)
    }
}

/// Counts a connection as open until it drops.
pub struct OpenConnection(IntGauge);

struct Families {
    requests: IntCounterVec,
    duration: HistogramVec,
    streams: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    retries: IntCounterVec,
    retries_stopped: IntCounterVec,
    dialled: IntCounterVec,
    dial_failures: IntCounterVec,
    open: IntGaugeVec,
    ejections: IntCounterVec,
    ejected: IntGaugeVec,
}

struct Upstream {
    dialled: IntCounter,
    failures: IntCounter,
    open: IntGauge,
}

struct ProtocolMetrics {
    duration: Histogram,
    received: IntCounter,
    sent: IntCounter,
    /// The outcomes seen first, each in a slot of its own; filled once, then read without a lock.
    outcomes: [OnceLock<(Outcome, IntCounter)>; OUTCOMES],
    /// All further outcomes.
    rare: Mutex<Vec<(Outcome, IntCounter)>>,
}

/// All edges that are in use or were until lately.
pub(super) struct Edges {
    families: Arc<Families>,
    known: Mutex<HashMap<EdgeLabels, Known>>,
}

struct Known {
    edge: Arc<EdgeMetrics>,
    last_held: Instant,
}

/// The common outcomes of an edge; a rarer one costs a lock.
const OUTCOMES: usize = 8;

/// Edges at most; further peers are counted together. What a scanning peer may cost.
const EDGES_MAX: usize = 4096;

/// Series of an edge that nothing holds any more are shown this long.
const EDGE_IDLE: Duration = Duration::from_secs(15 * 60);

/// Seconds; fine around a millisecond, where a mesh lives.
const DURATION_BUCKETS: [f64; 20] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

impl EdgeMetrics {
    pub fn labels(&self) -> &EdgeLabels {
        &self.labels
    }

    /// Counts a request that ended.
    pub fn request(&self, protocol: Protocol, outcome: Outcome, duration: Duration) {
        let metrics = self.protocol(protocol);
        metrics.duration.observe(duration.as_secs_f64());
        metrics.count(outcome, || self.request_counter(protocol, outcome));
    }

    /// Counts an opaque connection that ended.
    pub fn stream(&self, protocol: Protocol, error: Option<Code>) {
        let outcome = Outcome { status: None, grpc_status: None, error };
        self.protocol(protocol).count(outcome, || self.stream_counter(protocol, error));
    }

    /// Counts payload bytes: `received` from the side that asked, `sent` to it.
    pub fn bytes(&self, protocol: Protocol, received: u64, sent: u64) {
        let metrics = self.protocol(protocol);
        metrics.received.inc_by(received);
        metrics.sent.inc_by(sent);
    }

    /// Counts a request that is tried again, after what came of a try here. Looked up each time: it waits anyway.
    pub fn retried(&self, reason: RetryReason) {
        self.families.retries.with_label_values(&self.labels.with(&[reason.label()])).inc();
    }

    /// Counts a request that could have been tried again, after what came of its last try here.
    pub fn not_retried(&self, stop: Stop) {
        self.families.retries_stopped.with_label_values(&self.labels.with(&[stop_label(stop)])).inc();
    }

    /// Counts a connection that was opened to the other side, open until the guard drops.
    pub fn dialled(&self) -> OpenConnection {
        let upstream = self.upstream();
        upstream.dialled.inc();
        OpenConnection::new(upstream.open.clone())
    }

    /// Counts a connection that could not be opened, or whose handshake failed.
    pub fn dial_failed(&self) {
        self.upstream().failures.inc();
    }

    /// Counts an ejection of an endpoint. Too rare to keep the handle.
    pub fn ejection(&self, reason: Reason) {
        self.families.ejections.with_label_values(&self.labels.with(&[reason.label()])).inc();
    }

    /// How many endpoints are ejected now.
    pub fn endpoints_ejected(&self) -> IntGauge {
        self.families.ejected.with_label_values(&self.labels.values())
    }

    fn upstream(&self) -> &Upstream {
        let (families, values) = (&self.families, self.labels.values());
        self.upstream.get_or_init(|| Upstream {
            dialled: families.dialled.with_label_values(&values),
            failures: families.dial_failures.with_label_values(&values),
            open: families.open.with_label_values(&values),
        })
    }

    fn protocol(&self, protocol: Protocol) -> &ProtocolMetrics {
        self.protocols[protocol as usize].get_or_init(|| {
            let values = self.labels.with(&[protocol.label()]);
            ProtocolMetrics {
                duration: self.families.duration.with_label_values(&values),
                received: self.families.received.with_label_values(&values),
                sent: self.families.sent.with_label_values(&values),
                outcomes: [const { OnceLock::new() }; OUTCOMES],
                rare: Mutex::default(),
            }
        })
    }

    fn request_counter(&self, protocol: Protocol, outcome: Outcome) -> IntCounter {
        let [code, grpc_status, error] = outcome.labels();
        let values = self.labels.with(&[protocol.label(), &code, &grpc_status, &error]);
        self.families.requests.with_label_values(&values)
    }

    fn stream_counter(&self, protocol: Protocol, error: Option<Code>) -> IntCounter {
        let error = error.map_or_else(String::new, |code| code.to_string());
        self.families.streams.with_label_values(&self.labels.with(&[protocol.label(), &error]))
    }

    /// Takes all series of this edge out of the registry. One that never was is no error.
    fn remove(&self) {
        let (families, values) = (&self.families, self.labels.values());
        let _ = families.dialled.remove_label_values(&values);
        let _ = families.dial_failures.remove_label_values(&values);
        let _ = families.open.remove_label_values(&values);
        let _ = families.ejected.remove_label_values(&values);
        for reason in Reason::ALL {
            let _ = families.ejections.remove_label_values(&self.labels.with(&[reason.label()]));
        }
        for reason in RETRY_REASONS {
            let _ = families.retries.remove_label_values(&self.labels.with(&[reason.label()]));
        }
        for stop in STOPS {
            let _ = families.retries_stopped.remove_label_values(&self.labels.with(&[stop_label(stop)]));
        }
        for protocol in PROTOCOLS {
            let Some(metrics) = self.protocols[protocol as usize].get() else { continue };
            let values = self.labels.with(&[protocol.label()]);
            let _ = families.duration.remove_label_values(&values);
            let _ = families.received.remove_label_values(&values);
            let _ = families.sent.remove_label_values(&values);
            for outcome in metrics.outcomes() {
                let [code, grpc_status, error] = outcome.labels();
                let _ = families.streams.remove_label_values(&[&values[..], &[&error]].concat());
                let _ = families
                    .requests
                    .remove_label_values(&[&values[..], &[&code, &grpc_status, &error]].concat());
            }
        }
    }
}

impl ProtocolMetrics {
    /// Counts with the handle of this outcome's slot, or, when all slots are taken by others, a rare one.
    fn count(&self, outcome: Outcome, resolve: impl Fn() -> IntCounter) {
        for slot in &self.outcomes {
            let (taken_by, counter) = slot.get_or_init(|| (outcome, resolve()));
            if *taken_by == outcome {
                return counter.inc();
            }
        }
        let mut rare = lock(&self.rare);
        match rare.iter().find(|(known, _)| *known == outcome) {
            Some((_, counter)) => counter.inc(),
            None => {
                let counter = resolve();
                counter.inc();
                rare.push((outcome, counter));
            }
        }
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let rare = lock(&self.rare);
        self.outcomes
            .iter()
            .filter_map(OnceLock::get)
            .chain(rare.iter())
            .map(|(outcome, _)| *outcome)
            .collect()
    }
}

impl Edges {
    pub(super) fn new(families: &mut Registrar) -> Edges {
        let labels = |more: &[&'static str]| [&EDGE_LABELS[..], more].concat();
        let families = Families {
            requests: families.counter(
                "gauze_requests_total",
                "Requests that ended; code 499 where the client went away first",
                &labels(&["protocol", "code", "grpc_status", "error"]),
            ),
            duration: families.histogram(
                "gauze_request_duration_seconds",
                "From the head of a request to the end of its response",
                &labels(&["protocol"]),
                &DURATION_BUCKETS,
            ),
            streams: families.counter(
                "gauze_streams_total",
                "Opaque connections that ended",
                &labels(&["protocol", "error"]),
            ),
            received: families.counter(
                "gauze_bytes_received_total",
                "Payload bytes from the side that asked",
                &labels(&["protocol"]),
            ),
            sent: families.counter(
                "gauze_bytes_sent_total",
                "Payload bytes to the side that asked",
                &labels(&["protocol"]),
            ),
            retries: families.counter(
                "gauze_retries_total",
                "Retries, under the endpoint whose try was the reason",
                &labels(&["reason"]),
            ),
            retries_stopped: families.counter(
                "gauze_retries_stopped_total",
                "Requests that could have been tried again and were not: `retries` used up (`URX`), `budget` spent (`UO`, M3206), `body` longer than what is kept, no `time` left",
                &labels(&["why"]),
            ),
            dialled: families.counter("gauze_dials_total", "Connections opened", &EDGE_LABELS),
            dial_failures: families.counter(
                "gauze_dial_failures_total",
                "Connections that could not be opened, or whose handshake failed",
                &EDGE_LABELS,
            ),
            open: families.gauge(
                "gauze_dialled_connections_open",
                "Opened connections open now",
                &EDGE_LABELS,
            ),
            ejections: families.counter(
                "gauze_ejections_total",
                "Ejections of an endpoint by outlier detection, by what it was ejected for",
                &labels(&["reason"]),
            ),
            ejected: families.gauge("gauze_endpoints_ejected", "Endpoints ejected now", &EDGE_LABELS),
        };
        Edges { families: Arc::new(families), known: Mutex::new(HashMap::new()) }
    }

    pub(super) fn resolve(&self, labels: EdgeLabels) -> Arc<EdgeMetrics> {
        let mut known = lock(&self.known);
        let labels = match known.len() >= EDGES_MAX && !known.contains_key(&labels) {
            true => EdgeLabels { cluster: "other".to_owned(), ..EdgeLabels::nowhere(labels.direction) },
            false => labels,
        };
        let entry = known.entry(labels.clone()).or_insert_with(|| Known {
            edge: Arc::new(EdgeMetrics {
                labels,
                families: self.families.clone(),
                upstream: OnceLock::new(),
                protocols: [const { OnceLock::new() }; PROTOCOLS.len()],
            }),
            last_held: Instant::now(),
        });
        entry.edge.clone()
    }

    pub(super) fn expire(&self, now: Instant) {
        lock(&self.known).retain(|_, known| {
            if Arc::strong_count(&known.edge) > 1 {
                known.last_held = now;
            }
            let keep = now.saturating_duration_since(known.last_held) < EDGE_IDLE;
            if !keep {
                known.edge.remove();
            }
            keep
        });
    }
}

/// What we lock is whole between any two operations: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenConnection {
    pub(super) fn new(open: IntGauge) -> OpenConnection {
        open.inc();
        OpenConnection(open)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::metrics::{Direction, Metrics};

    fn cart() -> EdgeLabels {
        EdgeLabels {
            cluster: "cluster/shop/cart/80".to_owned(),
            peer_app: "cart".to_owned(),
            ..EdgeLabels::nowhere(Direction::Outbound)
        }
    }

    fn requests(metrics: &Metrics) -> Vec<String> {
        let text = String::from_utf8(metrics.text()).expect("metrics are UTF-8");
        text.lines().filter(|line| line.starts_with("gauze_requests_total{")).map(str::to_owned).collect()
    }

    fn answered(status: u16) -> Outcome {
        Outcome { status: StatusCode::from_u16(status).ok(), grpc_status: None, error: None }
    }

    #[test]
    fn a_request_counts_under_its_peer_protocol_and_outcome() {
        let metrics = Metrics::new();
        let refused = Outcome { error: Some(Code(3003)), ..answered(503) };
        let edge = metrics.edge(cart());
        edge.request(Protocol::Http1, refused, Duration::from_millis(2));
        edge.request(Protocol::Http1, refused, Duration::from_millis(2));
        assert_eq!(
            requests(&metrics),
            [
                r#"gauze_requests_total{cluster="cluster/shop/cart/80",code="503",direction="outbound",error="M3003",grpc_status="",peer_app="cart",peer_identity="",peer_namespace="",peer_version="",protocol="http/1.1",tls="none"} 2"#
            ]
        );
    }

    #[test]
    fn more_outcomes_than_slots_all_count() {
        let metrics = Metrics::new();
        let edge = metrics.edge(cart());
        for status in 200..230 {
            edge.request(Protocol::Http2, answered(status), Duration::ZERO);
            edge.request(Protocol::Http2, answered(status), Duration::ZERO);
        }
        let lines = requests(&metrics);
        assert_eq!(lines.len(), 30);
        assert!(lines.iter().all(|line| line.ends_with(" 2")), "{lines:#?}");
    }

    #[test]
    fn the_series_of_a_peer_end_some_time_after_it_is_gone() {
        let metrics = Metrics::new();
        let (now, edge) = (Instant::now(), metrics.edge(cart()));
        edge.request(Protocol::Grpc, answered(200), Duration::ZERO);
        drop(edge.dialled());
        let hour = Duration::from_secs(3600);
        metrics.expire(now + hour);
        assert_eq!(requests(&metrics).len(), 1, "still held");
        drop(edge);
        metrics.expire(now + hour + EDGE_IDLE / 2);
        assert_eq!(requests(&metrics).len(), 1, "not idle for long enough");
        metrics.expire(now + hour + EDGE_IDLE);
        assert!(!String::from_utf8_lossy(&metrics.text()).contains("cart"));
    }

    #[test]
    fn peers_beyond_the_limit_are_counted_together() {
        let metrics = Metrics::new();
        for index in 0..EDGES_MAX {
            metrics.edge(EdgeLabels { peer_app: index.to_string(), ..cart() });
        }
        let one = metrics.edge(EdgeLabels { peer_app: "late".to_owned(), ..cart() });
        let other = metrics.edge(EdgeLabels { peer_app: "later".to_owned(), ..cart() });
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.labels().cluster, "other");
        assert_eq!(metrics.edge(EdgeLabels { peer_app: "7".to_owned(), ..cart() }).labels().peer_app, "7");
    }
}
