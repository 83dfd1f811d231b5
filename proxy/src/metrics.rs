//! Every number that the proxy shows, in one struct; `/metrics` is its text. Series about a peer are in
//! [`edge`]: their handles are resolved when a target is built or a peer is known, never per request.
//! The page `docs/metrics.md` lists what stands here, and a test compares the two.

use std::sync::Arc;
use std::time::Instant;

use gauze_model::{Code, Kind};
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

mod edge; // the numbers of one edge
mod labels; // how edges are told apart

pub use edge::{EdgeMetrics, OpenConnection};
pub use labels::{CLIENT_GONE, Direction, EdgeLabels, Outcome, Protocol, RetryReason, Security, stop_label};

/// The registry and the handles that are not about one peer.
pub struct Metrics {
    registry: Registry,
    descriptions: Vec<Description>,
    edges: edge::Edges,

    /// 1 when the proxy has a certificate and its own `inbound/` resource.
    pub ready: IntGauge,
    /// 1 from the order to drain on.
    pub draining: IntGauge,
    /// When the leaf certificate expires, in seconds since 1970; 0 without one.
    pub certificate_expiry: IntGauge,
    pub certificate_renewals: IntCounter,
    pub certificate_failures: IntCounter,
    /// 1 while the ADS stream is open.
    pub control_plane_connected: IntGauge,
    pub control_plane_failures: IntCounter,
    /// Resources that were refused and whose last good version serves, or nothing.
    pub resources_refused: IntGauge,
    pub names: IntGauge,
    pub names_kept: IntGauge,
    pub names_evicted: IntCounter,
    /// Connections whose destination got no answer in time.
    pub answers_missing: IntCounter,
    /// Connections passed through, since their destination is outside the mesh or unknown to it.
    pub connections_outside: IntCounter,
    /// Connections on undeclared ports that were silent until the detection time-out.
    pub detect_silent: IntCounter,
    pub access_log_dropped: IntCounter,
    resources: IntGaugeVec,
    connections_opened: IntCounterVec,
    connections_open: IntGaugeVec,
    connections_refused: IntCounterVec,
    limits_reached: IntCounterVec,
    probes: IntCounterVec,
    verdicts: IntCounterVec,
}

/// What `docs/metrics.md` says of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    #[must_use]
    pub fn new() -> Metrics {
        let mut families = Registrar { registry: Registry::new(), descriptions: Vec::new() };
        let f = &mut families;
        let version = f.gauge("gauze_build_info", "Always 1; the version of the proxy", &["version"]);
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Metrics {
            edges: edge::Edges::new(f),
            ready: f.one_gauge("gauze_ready", "1 when the proxy has a certificate and its inbound resource"),
            draining: f.one_gauge("gauze_draining", "1 when clients are told to go elsewhere: the pod, or the proxy, ends"),
            certificate_expiry: f.one_gauge(
                "gauze_certificate_expiry_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970; 0 without one",
            ),
            certificate_renewals: f.one_counter("gauze_certificate_renewals_total", "Certificates received"),
            certificate_failures: f.one_counter(
                "gauze_certificate_failures_total",
                "Certificate requests that failed and are repeated",
            ),
            control_plane_connected: f
                .one_gauge("gauze_control_plane_connected", "1 while the configuration stream is open"),
            control_plane_failures: f.one_counter(
                "gauze_control_plane_failures_total",
                "Configuration streams that could not be opened, or ended",
            ),
            resources: f.gauge("gauze_resources", "Resources held, by kind", &["kind"]),
            resources_refused: f.one_gauge(
                "gauze_resources_refused",
                "Resources that this proxy refuses; the last good version of each serves",
            ),
            names: f.one_gauge("gauze_names", "Destinations that this proxy is subscribed to"),
            names_kept: f.one_gauge(
                "gauze_names_kept",
                "Last answers kept of destinations that are no longer subscribed to",
            ),
            names_evicted: f.one_counter(
                "gauze_names_evicted_total",
                "Destinations unsubscribed to make room for others (`--names-max`)",
            ),
            answers_missing: f.one_counter(
                "gauze_answers_missing_total",
                "Connections whose destination the control plane did not decide in time (`--answer-timeout`)",
            ),
            connections_opened: f.counter(
                "gauze_connections_opened_total",
                "Connections accepted",
                &DOWNSTREAM,
            ),
            connections_open: f.gauge("gauze_connections_open", "Accepted connections open now", &DOWNSTREAM),
            connections_refused: f.counter(
                "gauze_connections_refused_total",
                "Connections closed by the proxy before a request, by problem code",
                &["direction", "error"],
            ),
            connections_outside: f.one_counter(
                "gauze_connections_outside_total",
                "Connections passed through to a destination that is outside the mesh or unknown to it",
            ),
            detect_silent: f.one_counter(
                "gauze_detect_silent_total",
                "Connections on undeclared ports that were silent until the detection time-out",
            ),
            limits_reached: f.counter(
                "gauze_limits_reached_total",
                "How often a limit of the proxy was reached, by its flag",
                &["limit"],
            ),
            probes: f.counter(
                "gauze_probes_total",
                "Probes that the app was asked, by how kubelet takes the answer",
                &["container", "probe", "result"],
            ),
            verdicts: f.counter(
                "gauze_authorization_verdicts_total",
                "Requests and opaque connections that an AuthorizationPolicy allowed, denied or audited; not_allowed counts at the first ALLOW policy of the port",
                &["decision", "policy"],
            ),
            access_log_dropped: f.one_counter(
                "gauze_access_log_dropped_total",
                "Access log lines dropped because the reader of stdout was slower than the traffic",
            ),
            registry: families.registry,
            descriptions: families.descriptions,
        }
    }

    /// The series of one peer, or of one version of a backend; the same handle for the same labels.
    pub fn edge(&self, labels: EdgeLabels) -> Arc<EdgeMetrics> {
        self.edges.resolve(labels)
    }

    /// Where requests and connections count that are refused before a peer or backend is known.
    pub fn nowhere(&self, direction: Direction) -> Arc<EdgeMetrics> {
        self.edge(EdgeLabels::nowhere(direction))
    }

    /// Counts an accepted connection, open until the guard drops.
    pub fn accepted(&self, direction: Direction, security: Security) -> OpenConnection {
        let labels = [direction.label(), security.label()];
        self.connections_opened.with_label_values(&labels).inc();
        OpenConnection::new(self.connections_open.with_label_values(&labels))
    }

    /// Counts a connection that the proxy closed before it carried a request.
    pub fn refused(&self, direction: Direction, code: Code) {
        self.connections_refused.with_label_values(&[direction.label(), &code.to_string()]).inc();
    }

    /// Counts that a limit was reached; `limit` is the name of its flag, without dashes.
    pub fn limit_reached(&self, limit: &'static str) {
        self.limits_reached.with_label_values(&[limit]).inc();
    }

    /// Counts the answer to a probe that is declared; `probe` is live, ready or startup.
    pub fn probed(&self, container: &str, probe: &str, is_success: bool) {
        let result = if is_success { "success" } else { "failure" };
        self.probes.with_label_values(&[container, probe, result]).inc();
    }

    /// Calls of which a policy said something; for whoever keeps the handle. `policy` is NAMESPACE/NAME.
    pub fn verdicts(&self, decision: &str, policy: &str) -> IntCounter {
        self.verdicts.with_label_values(&[decision, policy])
    }

    /// How many resources of a kind the snapshot holds.
    pub fn hold(&self, kind: Kind, count: usize) {
        let label = match kind {
            Kind::Listener => "listener",
            Kind::Routes => "routes",
            Kind::Cluster => "cluster",
            Kind::Endpoints => "endpoints",
        };
        self.resources.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Removes the series of peers that are gone and were not counted for a while; for the control thread.
    pub fn expire(&self, now: Instant) {
        self.edges.expire(now);
    }

    /// The Prometheus text format.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        text
    }

    /// All metrics, in the order of registration.
    #[must_use]
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Registers families and remembers how they describe themselves.
pub(crate) struct Registrar {
    registry: Registry,
    descriptions: Vec<Description>,
}

/// The labels of accepted connections.
const DOWNSTREAM: [&str; 2] = ["direction", "tls"];

impl Registrar {
    /// A family without labels, and so its only series.
    fn one_counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.counter(name, help, &[]).with_label_values::<&str>(&[])
    }

    fn one_gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.gauge(name, help, &[]).with_label_values::<&str>(&[])
    }

    fn counter(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register("counter", name, help, labels, IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register("gauge", name, help, labels, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&mut self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register("histogram", name, help, labels, HistogramVec::new(options, labels))
    }

    fn register<F: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[&str],
        family: prometheus::Result<F>,
    ) -> F {
        let family = family.expect("names and labels are constants of this module, valid in any test");
        self.registry.register(Box::new(family.clone())).expect("each name stands once in this module");
        self.descriptions.push(Description {
            name: name.to_owned(),
            kind,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            help: help.to_owned(),
        });
        family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/metrics.md`, one row a metric.
    fn table(metrics: &Metrics) -> String {
        metrics
            .descriptions()
            .iter()
            .map(|d| format!("| `{}` | {} | {} | {} |\n", d.name, d.kind, d.labels.join(", "), d.help))
            .collect()
    }

    #[test]
    fn the_page_lists_every_metric_as_the_registry_has_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let page = std::fs::read_to_string(path).expect(path);
        let rows: String = page
            .lines()
            .take_while(|line| *line != "# Metrics of the control plane")
            .filter(|line| line.starts_with("| `gauze_"))
            .map(|line| format!("{line}\n"))
            .collect();
        let wanted = table(&Metrics::new());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, page.replace(rows.trim_end(), wanted.trim_end())).expect(path);
            return;
        }
        assert_eq!(rows, wanted, "docs/metrics.md is stale: run this test with UPDATE=1");
    }

    #[test]
    fn an_accepted_connection_is_open_until_its_guard_drops() {
        let metrics = Metrics::new();
        let series = r#"gauze_connections_open{direction="inbound",tls="mutual"}"#;
        let connection = metrics.accepted(Direction::Inbound, Security::Mutual);
        assert_eq!(value(&metrics, series), Some(1.0));
        drop(connection);
        assert_eq!(value(&metrics, series), Some(0.0));
    }

    pub(super) fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = String::from_utf8(metrics.text()).expect("metrics are UTF-8");
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}
