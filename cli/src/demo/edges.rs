//! Who calls whom: what the sidecars' metrics and the apps' ledgers say together, as one list.
//! Requests are counted by who received them; failures, latencies and identities by the sidecars.

use std::collections::BTreeMap;

use serde::Serialize;

use super::call::Protocol;
use super::ledger::Ledger;
use super::load::{self, Tally};
use super::pods::Pod;
use crate::metrics::{Counters, Histogram, Sample};

/// One edge of the mesh in one protocol, since the beginning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) key: EdgeKey,
    /// Both sidecars say that every request of this edge travelled by mesh TLS.
    pub(crate) mtls: bool,
    /// Whom the server's sidecar saw.
    pub(crate) from_identity: Option<String>,
    /// Whom the client's sidecar saw.
    pub(crate) to_identity: Option<String>,
    /// Received by the app.
    pub(crate) requests: u64,
    /// Arrived by mesh TLS, as the server's sidecar counted them.
    pub(crate) encrypted: u64,
    /// Failed, as the client's side saw it.
    pub(crate) failed: u64,
    /// Refused by a policy, as the server's sidecar counted them.
    pub(crate) denied: u64,
    pub(crate) latencies: Histogram,
}

/// Which edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EdgeKey {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) version: String,
    pub(crate) protocol: Protocol,
}

/// An edge as the JSON summary shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EdgeSummary {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) version: String,
    pub(crate) protocol: Protocol,
    pub(crate) mtls: bool,
    pub(crate) from_identity: Option<String>,
    pub(crate) to_identity: Option<String>,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// Refused by a policy of the server's side: the app has never seen them.
    pub(crate) denied: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What was read from one pod.
#[derive(Debug)]
pub(crate) struct PodReading {
    pub(crate) pod: Pod,
    pub(crate) ledger: Ledger,
    pub(crate) counters: Counters,
}

/// All edges between pods of the mesh, by what was read from each.
pub(crate) fn edges(readings: &[&PodReading]) -> Vec<Edge> {
    let mut edges = BTreeMap::new();
    for server in readings {
        for line in server.ledger.received.iter().filter(|line| is_app(readings, &line.from)) {
            let key = EdgeKey {
                from: line.from.clone(),
                to: server.pod.app.clone(),
                version: server.pod.version.clone(),
                protocol: line.protocol,
            };
            let edge = edges.entry(key.clone()).or_insert_with(|| observe(key, server, readings));
            edge.requests += line.requests;
        }
    }
    edges.into_values().collect()
}

fn is_app(readings: &[&PodReading], name: &str) -> bool {
    readings.iter().any(|reading| reading.pod.app == name)
}

/// What the sidecars of both sides say about an edge; requests are still to be counted.
fn observe(key: EdgeKey, server: &PodReading, readings: &[&PodReading]) -> Edge {
    let arrived = Observed::of(server.counters.totals("gauze_requests_total").filter(|sample| {
        sample.label("direction") == "inbound"
            && sample.label("protocol") == key.protocol.as_str()
            // Plaintext has no peer: it may be anybody, and then this edge is not proved, unless it was denied.
            && (sample.label("peer_app") == key.from || sample.label("tls") != MUTUAL && !is_denied(sample))
    }));
    let clients = || readings.iter().filter(|reading| reading.pod.app == key.from);
    let is_of = |sample: &Sample| {
        sample.label("direction") == "outbound"
            && sample.label("protocol") == key.protocol.as_str()
            && sample.label("peer_app") == key.to
            && sample.label("peer_version") == key.version
    };
    let left = Observed::of(
        clients().flat_map(|client| client.counters.totals("gauze_requests_total")).filter(|s| is_of(s)),
    );
    let mut latencies = Histogram::default();
    for client in clients() {
        let buckets = client.counters.totals("gauze_request_duration_seconds_bucket");
        buckets.filter(|sample| is_of(sample)).for_each(|bucket| latencies.add(&bucket));
    }
    Edge {
        mtls: arrived.is_mutual() && left.is_mutual(),
        from_identity: arrived.identity,
        to_identity: left.identity,
        requests: 0,
        encrypted: arrived.mutual as u64,
        failed: left.failed as u64,
        denied: arrived.denied as u64,
        latencies,
        key,
    }
}

/// The value of the label `tls` for mesh TLS.
const MUTUAL: &str = "mutual";

/// What one side's counters say about an edge.
#[derive(Default)]
struct Observed {
    mutual: f64,
    plain: f64,
    failed: f64,
    denied: f64,
    identity: Option<String>,
}

impl Observed {
    fn of(samples: impl Iterator<Item = Sample>) -> Observed {
        let mut observed = Observed::default();
        for sample in samples.filter(|sample| sample.value > 0.0) {
            if is_denied(&sample) {
                // It never reached the app: how it came proves nothing of what did.
                observed.denied += sample.value;
                continue;
            }
            if sample.label("tls") == MUTUAL {
                observed.mutual += sample.value;
                observed.identity =
                    Some(sample.label("peer_identity").to_owned()).filter(|id| !id.is_empty());
            } else {
                observed.plain += sample.value;
            }
            if is_failure(&sample) {
                observed.failed += sample.value;
            }
        }
        observed
    }

    fn is_mutual(&self) -> bool {
        self.mutual > 0.0 && self.plain == 0.0
    }
}

/// Refused for who called, or how (the codes of identity and policy).
fn is_denied(sample: &Sample) -> bool {
    sample.label("direction") == "inbound" && sample.label("error").starts_with("M40")
}

/// The server or the mesh failed; what the client did wrong is no failure of the edge.
fn is_failure(sample: &Sample) -> bool {
    let grpc = sample.label("grpc_status");
    sample.label("code").starts_with('5') || !sample.label("error").is_empty() || !matches!(grpc, "" | "0")
}

/// The client outside the mesh, by what it saw itself and what the sidecars of its servers say: whom it calls,
/// and who refused it.
pub(crate) fn outside(readings: &[&PodReading], tallies: &BTreeMap<String, Tally>) -> Vec<EdgeSummary> {
    let server = readings.iter().find(|reading| reading.ledger.received.iter().any(is_outside));
    let called = server
        .into_iter()
        .flat_map(|server| Protocol::ALL.into_iter().map(|protocol| outside_edge(server, protocol, tallies)));
    let called: Vec<EdgeSummary> = called.collect();
    let refused = readings.iter().filter(|reading| server.is_none_or(|server| server.pod != reading.pod));
    let refused = refused.flat_map(|reading| {
        let edges =
            Protocol::ALL.into_iter().map(|protocol| outside_edge(reading, protocol, &BTreeMap::new()));
        edges.filter(|edge| edge.denied > 0)
    });
    called.into_iter().chain(refused).collect()
}

fn is_outside(line: &super::ledger::Received) -> bool {
    line.from == load::CALLER
}

fn outside_edge(server: &PodReading, protocol: Protocol, tallies: &BTreeMap<String, Tally>) -> EdgeSummary {
    let received = server.ledger.received.iter().filter(|line| is_outside(line) && line.protocol == protocol);
    let mut failed = 0;
    let mut latencies = super::latency::Latencies::default();
    for outcomes in tallies.values().filter_map(|tally| tally.by_protocol.get(&protocol)) {
        failed += outcomes.failed;
        latencies.merge(&outcomes.latencies);
    }
    let inbound = Observed::of(server.counters.totals("gauze_requests_total").filter(|sample| {
        sample.label("direction") == "inbound"
            && sample.label("protocol") == protocol.as_str()
            && sample.label("tls") != MUTUAL
    }));
    EdgeSummary {
        from: load::CALLER.to_owned(),
        to: server.pod.app.clone(),
        version: server.pod.version.clone(),
        protocol,
        mtls: inbound.is_mutual(),
        from_identity: inbound.identity,
        to_identity: None,
        requests: received.map(|line| line.requests).sum(),
        failed,
        denied: inbound.denied as u64,
        p50_ms: rounded(latencies.quantile_ms(0.5)),
        p99_ms: rounded(latencies.quantile_ms(0.99)),
    }
}

impl Edge {
    /// What happened on this edge since `older`, an earlier look at it.
    pub(crate) fn since(&self, older: Option<&Edge>) -> Edge {
        let Some(older) = older else { return self.clone() };
        Edge {
            requests: self.requests.saturating_sub(older.requests),
            encrypted: self.encrypted.saturating_sub(older.encrypted),
            failed: self.failed.saturating_sub(older.failed),
            denied: self.denied.saturating_sub(older.denied),
            latencies: self.latencies.since(&older.latencies),
            ..self.clone()
        }
    }

    /// Adds another protocol of the same edge.
    pub(crate) fn merge(&mut self, other: &Edge) {
        self.mtls &= other.mtls;
        self.requests += other.requests;
        self.encrypted += other.encrypted;
        self.failed += other.failed;
        self.denied += other.denied;
        self.latencies.merge(&other.latencies);
    }

    pub(crate) fn summary(&self) -> EdgeSummary {
        EdgeSummary {
            from: self.key.from.clone(),
            to: self.key.to.clone(),
            version: self.key.version.clone(),
            protocol: self.key.protocol,
            mtls: self.mtls,
            from_identity: self.from_identity.clone(),
            to_identity: self.to_identity.clone(),
            requests: self.requests,
            failed: self.failed,
            denied: self.denied,
            p50_ms: rounded(self.latencies.quantile_ms(0.5)),
            p99_ms: rounded(self.latencies.quantile_ms(0.99)),
        }
    }
}

/// Two decimals: more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::Received;
    use crate::metrics::parse;

    fn reading(app: &str, version: &str, received: Vec<Received>, metrics: &str) -> PodReading {
        let pod = Pod {
            namespace: "shop".into(),
            name: format!("{app}-0"),
            app: app.into(),
            version: version.into(),
            service_account: app.into(),
            address: "127.1.1.1:8080".parse().unwrap(),
            upstreams: vec![],
        };
        let mut counters = Counters::default();
        counters.update(parse(metrics));
        PodReading { pod, ledger: Ledger { received, ..Ledger::default() }, counters }
    }

    fn received(from: &str, requests: u64) -> Received {
        Received { run: "r".into(), from: from.into(), protocol: Protocol::Http1, requests }
    }

    const OUTBOUND: &str = "gauze_requests_total{direction=\"outbound\",peer_app=\"cart\",peer_version=\"v1\",peer_identity=\"spiffe://c\",tls=\"mutual\",protocol=\"http/1.1\",code=\"200\",error=\"\"} 7\n\
        gauze_requests_total{direction=\"outbound\",peer_app=\"cart\",peer_version=\"v1\",peer_identity=\"spiffe://c\",tls=\"mutual\",protocol=\"http/1.1\",code=\"503\",error=\"M3003\"} 1\n";
    const INBOUND: &str = "gauze_requests_total{direction=\"inbound\",peer_app=\"web\",peer_identity=\"spiffe://w\",tls=\"mutual\",protocol=\"http/1.1\",code=\"200\",error=\"\"} 7\n";
    const INBOUND_PLAIN: &str = "gauze_requests_total{direction=\"inbound\",peer_app=\"\",tls=\"none\",protocol=\"http/1.1\",code=\"200\",error=\"\"} 1\n";

    #[test]
    fn an_edge_is_what_both_sidecars_and_the_ledger_say() {
        let readings = [
            reading("web", "v1", vec![], OUTBOUND),
            reading("cart", "v1", vec![received("web", 7)], INBOUND),
        ];
        let summary = edges(&readings.each_ref())[0].summary();
        let expected = EdgeSummary {
            from: "web".into(),
            to: "cart".into(),
            version: "v1".into(),
            protocol: Protocol::Http1,
            mtls: true,
            from_identity: Some("spiffe://w".into()),
            to_identity: Some("spiffe://c".into()),
            requests: 7,
            failed: 1,
            denied: 0,
            p50_ms: 0.0,
            p99_ms: 0.0,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn one_request_in_plaintext_and_the_edge_is_not_encrypted() {
        let inbound = format!("{INBOUND}{INBOUND_PLAIN}");
        let readings = [
            reading("web", "v1", vec![], OUTBOUND),
            reading("cart", "v1", vec![received("web", 7)], &inbound),
        ];
        assert!(!edges(&readings.each_ref())[0].mtls);
    }

    #[test]
    fn whom_a_policy_refused_stands_outside_and_takes_nothing_from_the_edges_proof() {
        let refused = INBOUND_PLAIN.replace("200", "403").replace("error=\"\"", "error=\"M4002\"");
        let readings = [
            reading("web", "v1", vec![received(load::CALLER, 3)], OUTBOUND),
            reading("cart", "v1", vec![received("web", 7)], &format!("{INBOUND}{refused}")),
        ];
        let edge = &edges(&readings.each_ref())[0];
        assert_eq!((edge.mtls, edge.denied), (true, 0));
        let outside = outside(&readings.each_ref(), &BTreeMap::new());
        let cart: Vec<_> = outside.iter().filter(|edge| edge.to == "cart").collect();
        assert_eq!(
            cart.iter().map(|edge| (edge.requests, edge.denied, edge.mtls)).collect::<Vec<_>>(),
            [(0, 1, false)]
        );
    }

    #[test]
    fn the_client_outside_is_no_edge_of_the_mesh() {
        let readings = [reading("web", "v1", vec![received(load::CALLER, 3)], INBOUND_PLAIN)];
        assert_eq!(edges(&readings.each_ref()), []);
        let outside = outside(&readings.each_ref(), &BTreeMap::new());
        let http1 = outside.iter().find(|edge| edge.protocol == Protocol::Http1).unwrap();
        assert_eq!((http1.requests, http1.mtls, &http1.from_identity), (3, false, &None));
    }
}
