//! All metrics of the control plane. Each is listed, with its meaning, in docs/metrics.md.

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds; from an unloaded translation (microseconds) to a push to thousands of proxies.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// One field for each metric.
pub struct Metrics {
    registry: Registry,
    pub connected_proxies: IntGauge,
    pub streams: IntCounter,
    /// By gRPC code.
    pub streams_refused: IntCounterVec,
    pub responses: IntCounter,
    pub resources_sent: IntCounter,
    pub push_latency: Histogram,
    pub waiting_streams: IntGauge,
    /// By kind of resource.
    pub rejections: IntCounterVec,
    pub names: IntGauge,
    pub translate_duration: Histogram,
    pub world_updates: IntCounter,
    pub world_update_duration: Histogram,
    pub source_problems: IntGauge,
    pub certificates_issued: IntCounter,
    /// By problem code.
    pub certificates_refused: IntCounterVec,
    pub certificate_expiry: Gauge,
    pub handshakes_in_progress: IntGauge,
    /// By reason: `tls`, `time`, `full`.
    pub handshakes_failed: IntCounterVec,
    pub workload_tokens: IntGauge,
    /// By problem code.
    pub object_problems: IntGaugeVec,
    pub leader: IntGauge,
    pub replicas_unheard: Gauge,
    /// By what was done: `injected`, `left`, `refused`, `failed`.
    pub admissions: IntCounterVec,
    /// By what became of them: `converted`, `failed`.
    pub conversions: IntCounterVec,
    /// By kind of object.
    pub watched_objects: IntGaugeVec,
    /// By kind of object.
    pub watch_events: IntCounterVec,
    /// By kind of object.
    pub watch_failures: IntCounterVec,
    /// By kind of object.
    pub watch_restarts: IntCounterVec,
    pub watches_failing: IntGauge,
    /// By kind of object.
    pub status_writes: IntCounterVec,
    /// By kind of object.
    pub status_conflicts: IntCounterVec,
    /// By kind of object.
    pub status_write_failures: IntCounterVec,
    pub statuses_waiting: IntGauge,
    pub statuses_duration: Histogram,
    /// By result: `written`, `failed`.
    pub events: IntCounterVec,
    pub api_server_lag: Gauge,
    pub api_server_away: IntGauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new().expect("names are constants, and each is used once")
    }
}

impl Metrics {
    fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let r = &registry;
        Ok(Metrics {
            connected_proxies: gauge(r, "connected_proxies", "Proxies with an open ADS stream")?,
            streams: counter(r, "streams_total", "ADS streams that were opened")?,
            streams_refused: counters(r, "streams_refused_total", "ADS streams ended by us", "grpc_code")?,
            responses: counter(r, "responses_total", "ADS responses sent")?,
            resources_sent: counter(r, "resources_sent_total", "Resources and removals sent")?,
            push_latency: histogram(
                r,
                "push_latency_seconds",
                "From reading a change to handing it to a stream that holds what changed",
            )?,
            waiting_streams: gauge(r, "waiting_streams", "Streams that are owed a change")?,
            rejections: counters(r, "rejections_total", "Resources that a proxy refused", "kind")?,
            names: gauge(r, "names", "Names that some proxy is subscribed to")?,
            translate_duration: histogram(
                r,
                "translate_duration_seconds",
                "Time to translate and encode a name",
            )?,
            world_updates: counter(r, "world_updates_total", "Updates of the world, after debouncing")?,
            world_update_duration: histogram(
                r,
                "world_update_duration_seconds",
                "Time to apply an update and to translate all subscribed names that it touched",
            )?,
            source_problems: gauge(r, "source_problems", "Objects and files that the source cannot read")?,
            certificates_issued: counter(
                r,
                "certificates_issued_total",
                "Leaf certificates signed for proxies",
            )?,
            certificates_refused: counters(
                r,
                "certificates_refused_total",
                "Requests for a certificate that were refused",
                "code",
            )?,
            certificate_expiry: registered(
                r,
                Gauge::with_opts(opts(
                    "certificate_expiry_timestamp_seconds",
                    "Unix time at which the control plane's own leaf expires",
                ))?,
            )?,
            handshakes_in_progress: gauge(r, "handshakes_in_progress", "TLS handshakes going on")?,
            handshakes_failed: counters(
                r,
                "handshakes_failed_total",
                "TLS handshakes that failed",
                "reason",
            )?,
            workload_tokens: gauge(
                r,
                "workload_tokens",
                "Workload tokens kept for the pods of the directory",
            )?,
            admissions: counters(r, "admissions_total", "Pods reviewed by the injection webhook", "action")?,
            conversions: counters(
                r,
                "conversions_total",
                "TrafficSplits converted between versions for the API server",
                "outcome",
            )?,
            object_problems: gauges(
                r,
                "object_problems",
                "What is wrong with pods, Services, slices and namespaces",
                "code",
            )?,
            leader: gauge(r, "leader", "1 when this replica leads")?,
            replicas_unheard: registered(
                r,
                Gauge::with_opts(opts(
                    "replicas_unheard",
                    "Replicas that the leader could not ask for 10 s",
                ))?,
            )?,
            watched_objects: gauges(r, "watched_objects", "Objects known from the API server", "kind")?,
            watch_events: counters(r, "watch_events_total", "Objects received from the API server", "kind")?,
            watch_failures: counters(
                r,
                "watch_failures_total",
                "Times that a watch could not be opened or broke off with an error",
                "kind",
            )?,
            watch_restarts: counters(
                r,
                "watch_restarts_total",
                "Times that all objects of a kind were read anew, because a watch had expired",
                "kind",
            )?,
            status_writes: counters(r, "status_writes_total", "Statuses written into the cluster", "kind")?,
            status_conflicts: counters(
                r,
                "status_conflicts_total",
                "Statuses not written because somebody else had just written there",
                "kind",
            )?,
            status_write_failures: counters(
                r,
                "status_write_failures_total",
                "Statuses that the API server refused, or about which it did not answer",
                "kind",
            )?,
            statuses_waiting: gauge(r, "statuses_waiting", "Statuses that are not yet as they should be")?,
            statuses_duration: histogram(r, "statuses_duration_seconds", "Time to compute all statuses")?,
            events: counters(r, "events_total", "Events for users", "result")?,
            api_server_lag: registered(
                r,
                Gauge::with_opts(opts(
                    "api_server_lag_seconds",
                    "Age of the youngest renewal of this replica's Lease that came back by watch",
                ))?,
            )?,
            api_server_away: gauge(r, "api_server_away", "1 when no replica sees the API server")?,
            watches_failing: gauge(r, "watches_failing", "Kinds of object that cannot be watched now")?,
            registry,
        })
    }

    /// All metrics in the Prometheus text format.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // It fails only when a family has no metric, which `gather` leaves out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("gauze_control_plane_{name}"), help)
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    registered(registry, IntCounter::with_opts(opts(name, help))?)
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(opts(name, help), &[label])?)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(opts(name, help), &[label])?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::with_opts(opts(name, help))?)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let name = format!("gauze_control_plane_{name}");
    registered(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_encoded() {
        let metrics = Metrics::default();
        metrics.certificates_refused.with_label_values(&["M1102"]).inc();
        let text = String::from_utf8(metrics.encode()).unwrap();
        assert!(
            text.contains("gauze_control_plane_certificates_refused_total{code=\"M1102\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn every_metric_is_documented() {
        let documented = include_str!("../../docs/metrics.md");
        let metrics = Metrics::default();
        for label in [
            &metrics.streams_refused,
            &metrics.rejections,
            &metrics.certificates_refused,
            &metrics.handshakes_failed,
            &metrics.watch_events,
            &metrics.watch_failures,
            &metrics.watch_restarts,
            &metrics.status_writes,
            &metrics.status_conflicts,
            &metrics.status_write_failures,
            &metrics.events,
        ] {
            label.with_label_values(&["x"]).inc();
        }
        metrics.watched_objects.with_label_values(&["x"]).inc();
        metrics.object_problems.with_label_values(&["x"]).inc();
        for family in metrics.registry.gather() {
            assert!(documented.contains(family.name()), "{} is not in docs/metrics.md", family.name());
        }
    }
}
