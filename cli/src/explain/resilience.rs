//! What is done when an endpoint fails: retries, timeouts and their budget, limits, ejection.

use std::time::Duration;

use gauze_model::cluster::Cluster;
use gauze_model::outlier::OutlierDetection;
use gauze_model::retry::{RetryPolicy, Unanswered};
use gauze_model::timeouts::Timeouts;
use gauze_model::why::Reason;
use gauze_model::{Name, Origin};

use super::backend::short;
use super::walk::Walk;

/// What holds where nobody says otherwise.
const DEFAULT: &str = "the default";

impl Walk<'_> {
    /// How often, and how long, a request is tried.
    pub(super) fn note_patience(&mut self, retry: &RetryPolicy, timeouts: &Timeouts) {
        self.steps.push(said_by("retry", retries(retry), retry.origin.as_ref()));
        self.steps.push(said_by("timeouts", limits_of_time(timeouts), timeouts.origin.as_ref()));
    }

    /// What a caller's sidecar does for a backend.
    pub(super) fn note_resilience(&mut self, name: &Name, cluster: &Cluster) {
        self.note_limits(name, cluster);
        if self.arriving.http.is_some() {
            self.note_budget(name, cluster);
        }
        self.note_ejection(name, cluster);
    }

    fn note_limits(&mut self, name: &Name, cluster: &Cluster) {
        let limits = cluster.limits;
        let decided = format!(
            "{}: {} requests, {} connections, {} waiting; {} to connect",
            short(name),
            limits.requests,
            limits.connections,
            limits.pending,
            span(cluster.connect_timeout),
        );
        let fresh = Cluster::default();
        let is_default = limits == fresh.limits && cluster.connect_timeout == fresh.connect_timeout;
        self.note_setting("limits", decided, is_default, cluster, "spec.limits");
    }

    fn note_budget(&mut self, name: &Name, cluster: &Cluster) {
        let budget = cluster.retry_budget;
        let decided = format!(
            "{}: retries up to {} % of the requests of {}, and {} a second",
            short(name),
            budget.percent,
            span(budget.interval),
            budget.min_per_second
        );
        self.note_setting("budget", decided, budget == Default::default(), cluster, "spec.retryBudget");
    }

    fn note_ejection(&mut self, name: &Name, cluster: &Cluster) {
        let decided = cluster.outlier.as_ref().map_or("never".to_owned(), ejection);
        let is_default = cluster.outlier == Some(OutlierDetection::default());
        let decided = format!("{}: {decided}", short(name));
        self.note_setting("ejection", decided, is_default, cluster, "spec.outlierDetection");
    }

    /// A setting of a cluster that is not the default's is its TrafficPolicy's.
    fn note_setting(&mut self, step: &str, decided: String, is_default: bool, cluster: &Cluster, path: &str) {
        let policy = cluster.policy.as_ref().filter(|_| !is_default).map(|policy| policy.at(path));
        self.steps.push(said_by(step, decided, policy.as_ref()));
    }
}

fn said_by(step: &str, decided: String, origin: Option<&Origin>) -> Reason {
    match origin {
        Some(origin) => Reason::new(step, decided, "").by(origin),
        None => Reason::new(step, decided, DEFAULT),
    }
}

/// `up to 2 times: what did not reach the app; idempotent requests without a response; status 503`
fn retries(retry: &RetryPolicy) -> String {
    let on = &retry.on;
    let mut conditions = vec!["what did not reach the app".to_owned()];
    match on.unanswered {
        Unanswered::Never => {}
        Unanswered::Idempotent => conditions.push("idempotent requests without a response".to_owned()),
        Unanswered::Always => conditions.push("requests without a response".to_owned()),
    }
    if !on.statuses.is_empty() {
        conditions.push(format!("status {}", on.statuses));
    }
    if !on.grpc.is_empty() {
        conditions.push(format!("gRPC {}", on.grpc.words().collect::<Vec<_>>().join(", ")));
    }
    match retry.retries {
        0 => "never".to_owned(),
        1 => format!("once: {}", conditions.join("; ")),
        times => format!("up to {times} times: {}", conditions.join("; ")),
    }
}

fn limits_of_time(timeouts: &Timeouts) -> String {
    match (timeouts.request, timeouts.per_try) {
        (None, None) => "none, unless the call says grpc-timeout".to_owned(),
        (Some(request), None) => format!("{} in all", span(request)),
        (None, Some(per_try)) => format!("{} each try", span(per_try)),
        (Some(request), Some(per_try)) => format!("{} in all, {} each try", span(request), span(per_try)),
    }
}

/// `after 5 gateway failures in a row, for 30s, longer each time up to 300s; at most 50 % of the endpoints`
fn ejection(outlier: &OutlierDetection) -> String {
    let apart = outlier.split_external_local_origin_errors;
    let counts = [
        (outlier.consecutive_5xx, "5xx"),
        (outlier.consecutive_gateway_failure, "gateway failures"),
        (outlier.consecutive_local_origin_failure.filter(|_| apart), "failures to connect"),
    ];
    let counts = counts.into_iter().filter_map(|(count, what)| Some(format!("{} {what}", count?)));
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() {
        return "never".to_owned();
    }
    format!(
        "after {} in a row, for {}, longer each time up to {}; at most {} % of the endpoints",
        counts.join(" or "),
        span(outlier.base_ejection_time),
        span(outlier.max_ejection_time),
        outlier.max_ejection_percent
    )
}

/// `30s`, `250ms`.
fn span(duration: Duration) -> String {
    format!("{duration:?}")
}
