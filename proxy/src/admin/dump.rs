//! What a proxy holds, as JSON for people and for `gauze proxy`. Keys are the names on the wire;
//! wherever a user's object stands behind something, its origin says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gauze_model::access_log::timestamp;
use gauze_model::outlier::Standing;
use gauze_model::route::{
    Action, Backend, HeaderChange, HostPattern, PathChange, PathMatch, RouteMatch, RouteRule, ValueMatch,
    VirtualHost,
};
use gauze_model::{Name, RouteTable};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::Proxy;
use crate::target::{ClusterLive, ClusterTarget, EndpointTarget, HttpRoute, Shown, View};
use crate::tls::Credentials;

/// `/config_dump`: the whole snapshot, what was refused, and what was asked for.
pub(super) fn config(proxy: &Proxy) -> Value {
    let known = proxy.config.known();
    let snapshot = &known.snapshot;
    let refused = known.rejections.iter().map(|refused| {
        json!({ "name": refused.name, "path": refused.path, "problem": refused.problem, "origin": refused.origin })
    });
    json!({
        "connected": known.connected,
        "mesh_networks": &known.mesh_networks[..],
        "listeners": by_name(&snapshot.listeners),
        "routes": snapshot.routes.iter().map(|(name, table)| (name.to_string(), routes(table))).collect::<Map<_, _>>(),
        "clusters": by_name(&snapshot.clusters),
        "endpoints": by_name(&snapshot.endpoints),
        "absent": snapshot.absent.iter().map(|(_, name)| name).collect::<BTreeSet<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "kept": known.kept.keys().collect::<BTreeSet<_>>(),
    })
}

fn by_name<T: Serialize>(resources: &BTreeMap<Name, Arc<T>>) -> Value {
    let value =
        |resource: &Arc<T>| serde_json::to_value(resource).unwrap_or_else(|error| json!(error.to_string()));
    resources.iter().map(|(name, resource)| (name.to_string(), value(resource))).collect::<Map<_, _>>().into()
}

fn routes(table: &RouteTable) -> Value {
    let host = |host: &VirtualHost| {
        json!({
            "domains": host.domains.iter().map(domain).collect::<Vec<_>>(),
            "rules": host.rules.iter().map(rule).collect::<Vec<_>>(),
        })
    };
    json!({ "origin": table.origin, "hosts": table.hosts().iter().map(host).collect::<Vec<_>>() })
}

fn domain(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn rule(rule: &RouteRule) -> Value {
    let filters = &rule.filters;
    let unchanged = HeaderChange::default();
    json!({
        "origin": rule.origin,
        "match": matches(&rule.matches),
        "rewrite_host": filters.rewrite.host,
        "rewrite_path": filters.rewrite.path.as_ref().map(path_change),
        "changes_request_headers": filters.request_headers != unchanged,
        "changes_response_headers": filters.response_headers != unchanged,
        "action": action(&rule.action),
    })
}

/// As one would say it: `GET /cart/* x-user=anna ?debug=1`.
fn matches(matches: &RouteMatch) -> String {
    let path = match &matches.path {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(path) => format!("{}/*", path.trim_end_matches('/')),
        PathMatch::Regex(pattern) => format!("~{}", pattern.text()),
    };
    let value = |value: &ValueMatch| match value {
        ValueMatch::Exact(text) => format!("={text}"),
        ValueMatch::Regex(pattern) => format!("~{}", pattern.text()),
    };
    let method = matches.method.as_ref().map(ToString::to_string);
    let headers = matches.headers.iter().map(|header| format!("{}{}", header.name, value(&header.value)));
    let query = matches.query.iter().map(|query| format!("?{}{}", query.name, value(&query.value)));
    method.into_iter().chain([path]).chain(headers).chain(query).collect::<Vec<_>>().join(" ")
}

fn path_change(change: &PathChange) -> String {
    match change {
        PathChange::ReplaceFull(path) => path.clone(),
        PathChange::ReplacePrefix(prefix) => format!("{prefix}/*"),
    }
}

fn action(action: &Action) -> Value {
    match action {
        Action::Forward(backends) => {
            let backend = |backend: &Backend| json!({ "cluster": backend.cluster, "weight": backend.weight });
            json!({ "forward": backends.iter().map(backend).collect::<Vec<_>>() })
        }
        Action::Redirect(redirect) => json!({ "redirect": {
            "scheme": redirect.scheme,
            "host": redirect.host,
            "port": redirect.port,
            "path": redirect.path.as_ref().map(path_change),
            "status": redirect.status.as_u16(),
        } }),
        Action::Respond(status) => json!({ "respond": status.as_u16() }),
    }
}

/// `/clusters`: each backend in use, with its live state.
pub(super) fn clusters(proxy: &Proxy) -> Value {
    let view = proxy.config.view();
    let clusters: BTreeMap<String, Value> =
        targets(&view).map(|target| (target.name.to_string(), cluster(target))).collect();
    json!(clusters)
}

fn targets(view: &View) -> impl Iterator<Item = &ClusterTarget> {
    view.outbound.values().flat_map(|target| {
        let http: Vec<&Arc<ClusterTarget>> = match &target.http {
            HttpRoute::Table(table) => table
                .hosts()
                .iter()
                .flat_map(|host| &host.rules)
                .flat_map(|rule| rule.action.backends())
                .map(|backend| &backend.cluster)
                .collect(),
            HttpRoute::Pod(rule) => rule.action.backends().iter().map(|backend| &backend.cluster).collect(),
            HttpRoute::Absent => Vec::new(),
        };
        http.into_iter().chain(target.opaque_shares().map(|share| &share.cluster)).map(|cluster| &**cluster)
    })
}

fn cluster(target: &ClusterTarget) -> Value {
    let live = &target.terms.live;
    json!({
        "known": target.known,
        "balance": target.balance,
        "limits": target.terms.limits,
        "outlier_detection": target.outlier,
        "connections": live.connections.load(Relaxed),
        "pending": live.pending.load(Relaxed),
        "requests": live.requests.load(Relaxed),
        "endpoints": target.endpoints.iter().map(|to| endpoint(to, live)).collect::<Vec<_>>(),
    })
}

fn endpoint(target: &EndpointTarget, cluster: &ClusterLive) -> Value {
    let shown = cluster.outliers.shown(&target.live);
    json!({
        "address": target.peer.address,
        "transport": target.peer.transport,
        "weight": target.weight,
        "workload": target.workload,
        "requests": target.live.in_flight.load(Relaxed),
        "latency_ms": f64::from_bits(target.live.seconds.load(Relaxed)) * 1e3,
        "failures_in_a_row": shown.counts.most(),
        "ejection": ejection(shown),
    })
}

/// `null` for an endpoint that gets traffic. `until`: from then on the next request probes it.
fn ejection(shown: Shown) -> Value {
    let (state, reason, at, time) = match shown.standing {
        Standing::In => return Value::Null,
        Standing::Out { reason, until } => ("ejected", reason, "until", wall_clock(until)),
        Standing::Probing { reason, since } => ("probing", reason, "since", wall_clock(since)),
    };
    json!({ "state": state, "reason": reason.label(), at: timestamp(time), "times": shown.times })
}

fn wall_clock(at: Instant) -> SystemTime {
    let now = Instant::now();
    SystemTime::now() + at.saturating_duration_since(now) - now.saturating_duration_since(at)
}

/// `/certs`: who we are, until when, and how many roots we believe. Never a key.
pub(super) fn certificates(proxy: &Proxy, credentials: Option<&Credentials>) -> Value {
    let Some(credentials) = credentials else { return json!({ "certificate": null }) };
    let workload = &proxy.settings.workload;
    let expiry = proxy.tls.expiry().unwrap_or(UNIX_EPOCH);
    let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    let leaf = credentials.chain.first().map(|leaf| fingerprint(leaf));
    json!({
        "certificate": {
            "identity": gauze_model::SpiffeId::new(
                &proxy.settings.control_plane.trust_domain, &workload.namespace, &workload.service_account),
            "expires": timestamp(expiry),
            "seconds_left": left.as_secs(),
            "sha256": leaf,
            "chain": credentials.chain.len(),
        },
        "roots": credentials.roots.iter().map(|root| fingerprint(root)).collect::<Vec<_>>(),
    })
}

/// As `openssl x509 -fingerprint -sha256` shows it.
fn fingerprint(certificate: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauze_model::route::{HeaderMatch, QueryMatch};
    use http::{HeaderName, Method};

    #[test]
    fn a_match_reads_as_one_would_say_it() {
        let exact = |text: &str| ValueMatch::Exact(text.to_owned());
        let all = RouteMatch {
            path: PathMatch::Prefix("/cart".to_owned()),
            method: Some(Method::GET),
            headers: vec![HeaderMatch { name: HeaderName::from_static("x-user"), value: exact("anna") }],
            query: vec![QueryMatch { name: "debug".to_owned(), value: exact("1") }],
        };
        assert_eq!(matches(&all), "GET /cart/* x-user=anna ?debug=1");
        assert_eq!(matches(&RouteMatch::default()), "/*");
    }

    #[test]
    fn a_fingerprint_is_in_the_form_of_openssl() {
        assert!(fingerprint(b"abc").starts_with("BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23"));
    }
}
