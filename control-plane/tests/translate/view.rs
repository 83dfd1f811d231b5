//! Resources, problems and conditions as short YAML, for people to review.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use gauze_control_plane::status::ObjectStatus;
use gauze_control_plane::translate::Answer;
use gauze_model::authorization::{Operation, Policy, Rule, Source, StringMatch};
use gauze_model::budget::RetryBudget;
use gauze_model::cluster::{Balance, Cluster, Endpoint, EndpointSet, Limits, Transport};
use gauze_model::listener::{HttpTarget, Inbound, Listener, Mtls, Outbound, PortProtocol, WeightedCluster};
use gauze_model::outlier::OutlierDetection;
use gauze_model::retry::{BackOff, Conditions, RetryPolicy};
use gauze_model::route::{
    Action, Backend, Filters, HeaderChange, HostPattern, PathChange, PathMatch, RouteMatch, RouteRule,
    RouteTable, ValueMatch,
};
use gauze_model::snapshot::Resource;
use gauze_model::timeouts::Timeouts;

/// What a case comes out as.
#[derive(Default)]
pub(crate) struct Golden {
    pub resources: Vec<(String, Vec<String>)>,
    pub problems: Vec<String>,
    pub conditions: Vec<String>,
}

/// YAML in lines.
pub(crate) struct Lines(String);

impl Lines {
    pub(crate) fn of(golden: &Golden) -> String {
        let mut lines = Lines(String::new());
        lines.line(0, "resources:");
        for (name, resource) in &golden.resources {
            match resource.as_slice() {
                [one] if !one.contains(": ") && !one.starts_with("- ") => {
                    lines.line(1, &format!("{name}: {one}"))
                }
                many => {
                    lines.line(1, &format!("{name}:"));
                    many.iter().for_each(|line| lines.line(2, line));
                }
            }
        }
        lines.list("problems", golden.problems.iter().map(|problem| quoted(problem)));
        lines.list("conditions", golden.conditions.iter().cloned());
        lines.0
    }

    fn list(&mut self, name: &str, items: impl ExactSizeIterator<Item = String>) {
        if items.len() == 0 {
            return self.line(0, &format!("{name}: []"));
        }
        self.line(0, &format!("{name}:"));
        items.for_each(|item| self.line(0, &format!("- {item}")));
    }

    fn line(&mut self, depth: usize, text: &str) {
        self.0 += &"  ".repeat(depth);
        self.0 += text;
        self.0 += "\n";
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(crate) fn answer(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Absent => vec!["absent".to_owned()],
        Answer::Undecided => vec!["undecided".to_owned()],
        Answer::Known(resources) => resources.iter().flat_map(resource).collect(),
    }
}

fn resource(resource: &Resource) -> Vec<String> {
    match resource {
        Resource::Listener(listener) => match &**listener {
            Listener::Inbound(inbound) => self::inbound(inbound),
            Listener::Outbound(outbound) => self::outbound(outbound),
        },
        Resource::Routes(table) => routes(table),
        Resource::Cluster(cluster) => self::cluster(cluster),
        Resource::Endpoints(endpoints) => self::endpoints(endpoints),
    }
}

/// `Deny AuthorizationPolicy/shop/admin ports [8080]`, then a line for each rule.
fn policy(policy: &Policy) -> Vec<String> {
    let Policy { origin, action, ports, rules, broken } = policy;
    let ports = ports.as_ref().map_or_else(String::new, |ports| format!(" ports {ports:?}"));
    let broken = if *broken { " closed" } else { "" };
    let mut lines = vec![format!("  {action:?} {origin}{ports}{broken}")];
    let fact = |name: &str, list: &[StringMatch]| {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        if list.is_empty() { String::new() } else { format!(" {name} [{}]", list.join(", ")) }
    };
    let numbers = |name: &str, list: &BTreeSet<u16>| {
        if list.is_empty() { String::new() } else { format!(" {name} {list:?}") }
    };
    for Rule { from, to } in rules {
        lines.push("  - rule".to_owned());
        for Source { identities, not_identities, namespaces, not_namespaces } in from {
            let facts = [
                fact("identities", identities),
                fact("not identities", not_identities),
                fact("namespaces", namespaces),
                fact("not namespaces", not_namespaces),
            ];
            lines.push(format!("    from{}", facts.concat()));
        }
        for Operation { methods, not_methods, paths, not_paths, ports, not_ports } in to {
            let facts = [
                fact("methods", methods),
                fact("not methods", not_methods),
                fact("paths", paths),
                fact("not paths", not_paths),
                numbers("ports", ports),
                numbers("not ports", not_ports),
            ];
            lines.push(format!("    to{}", facts.concat()));
        }
    }
    lines
}

fn inbound(inbound: &Inbound) -> Vec<String> {
    let Inbound { origin, identity, addresses, mtls, ports, mesh_networks: _, policies } = inbound;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("origin: {origin}"),
        format!("identity: {identity}"),
        format!("addresses: [{}]", addresses.join(", ")),
        format!("mtls: {}", self::mtls(*mtls)),
    ];
    if !ports.is_empty() {
        lines.push("ports:".to_owned());
    }
    for (number, port) in ports {
        lines.push(format!("  {number}: {} {}", protocol(port.protocol), self::mtls(port.mtls)));
    }
    if !policies.is_empty() {
        lines.push("policies:".to_owned());
    }
    lines.extend(policies.iter().flat_map(policy));
    lines
}

fn mtls(mtls: Mtls) -> &'static str {
    match mtls {
        Mtls::Permissive => "permissive",
        Mtls::Strict => "strict",
    }
}

fn protocol(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Detect => "detect",
        PortProtocol::Http => "http",
        PortProtocol::Http2 => "http2",
        PortProtocol::Grpc => "grpc",
        PortProtocol::Tls => "tls",
        PortProtocol::Opaque => "opaque",
    }
}

fn outbound(outbound: &Outbound) -> Vec<String> {
    let Outbound { origin, protocol, http, tls, tcp } = outbound;
    let http = match http {
        HttpTarget::Routes(name) | HttpTarget::Cluster(name) => name,
    };
    let mut lines = vec![
        format!("origin: {origin}"),
        format!("protocol: {}", self::protocol(*protocol)),
        format!("http: {http}"),
    ];
    lines.extend(tls.iter().map(|rule| {
        let names: Vec<String> = rule.server_names.iter().map(HostPattern::to_string).collect();
        format!("tls {}: [{}] by {}", names.join(", "), shares(&rule.shares), rule.origin)
    }));
    lines.push(format!("tcp: [{}]", shares(tcp)));
    lines
}

fn shares(shares: &[WeightedCluster]) -> String {
    let shares: Vec<String> =
        shares.iter().map(|share| format!("{} {}", share.weight, share.cluster)).collect();
    shares.join(", ")
}

fn cluster(cluster: &Cluster) -> Vec<String> {
    let Cluster { origin, protocol, balance, limits, policy, retry_budget, outlier, connect_timeout } =
        cluster;
    let mut lines = vec![format!("origin: {origin}"), format!("protocol: {}", self::protocol(*protocol))];
    if *balance != Balance::default() {
        lines.push(format!("balance: {}", self::balance(*balance)));
    }
    if *limits != Limits::default() {
        let Limits { connections, pending, requests } = limits;
        lines.push(format!("limits: {connections} connections, {pending} pending, {requests} requests"));
    }
    if *outlier != Some(OutlierDetection::default()) {
        lines.push(format!("outlier detection: {}", outlier.map_or("none".to_owned(), outlier_detection)));
    }
    if *retry_budget != RetryBudget::default() {
        let RetryBudget { percent, min_per_second, interval } = retry_budget;
        lines.push(format!("retry budget: {percent} % of {interval:?}, {min_per_second} per second"));
    }
    if let Some(policy) = policy {
        lines.insert(1, format!("policy: {policy}"));
    }
    if *connect_timeout != Duration::from_secs(1) {
        lines.push(format!("connect timeout: {connect_timeout:?}"));
    }
    lines
}

fn outlier_detection(of: OutlierDetection) -> String {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_failure,
        consecutive_local_origin_failure,
        split_external_local_origin_errors,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter,
        max_ejection_percent,
    } = of;
    let count = |count: Option<NonZeroU32>| count.map_or("no".to_owned(), |count| count.to_string());
    let local = if split_external_local_origin_errors {
        format!(", {} local", count(consecutive_local_origin_failure))
    } else {
        String::new()
    };
    format!(
        "{} 5xx, {} gateway{local}; {base_ejection_time:?} to {max_ejection_time:?}, jitter \
         {max_ejection_time_jitter:?}, forgiven after {interval:?}; at most {max_ejection_percent} %",
        count(consecutive_5xx),
        count(consecutive_gateway_failure)
    )
}

fn balance(balance: Balance) -> String {
    match balance {
        Balance::PeakEwma { start, decay } => format!("peak EWMA, start {start:?}, decay {decay:?}"),
        Balance::RoundRobin => "round robin".to_owned(),
        Balance::LeastRequest => "least request".to_owned(),
        Balance::Random => "random".to_owned(),
    }
}

fn endpoints(set: &EndpointSet) -> Vec<String> {
    if set.endpoints.is_empty() {
        return vec!["endpoints: []".to_owned()];
    }
    let endpoint = |endpoint: &Endpoint| {
        let Endpoint { address, weight, transport, workload } = endpoint;
        let transport = match transport {
            Transport::Mesh(identity) => identity.to_string(),
            Transport::Plain => "plain".to_owned(),
        };
        let weight = if *weight == 1 { String::new() } else { format!(" weight {weight}") };
        let pod = [&workload.pod, &workload.app, &workload.version].map(String::as_str).join(" ");
        format!("- {}", format!("{address}{weight} {transport} {pod}").trim())
    };
    let mut lines = vec!["endpoints:".to_owned()];
    lines.extend(set.endpoints.iter().map(endpoint));
    lines
}

fn routes(table: &RouteTable) -> Vec<String> {
    let mut lines = vec![format!("origin: {}", table.origin), "rules:".to_owned()];
    for rule in table.hosts().iter().flat_map(|host| &host.rules) {
        lines.extend(self::rule(rule));
    }
    lines
}

fn retry(retry: &RetryPolicy) -> String {
    let RetryPolicy { origin, retries, on, back_off: BackOff { least, base, max }, replay_limit: _ } = retry;
    let Conditions { unanswered, statuses, grpc } = on;
    let from = origin.as_ref().map(ToString::to_string).unwrap_or_default();
    let grpc: Vec<&str> = grpc.words().collect();
    format!(
        "{retries} on [{statuses}] [{}] {unanswered:?}, after {least:?} + {base:?} to {max:?}, from {from}",
        grpc.join(", ")
    )
}

fn rule(rule: &RouteRule) -> Vec<String> {
    let RouteRule { origin, matches, filters, action, retry, timeouts } = rule;
    let mut lines = vec![format!("- match: {}", self::matches(matches)), format!("  origin: {origin}")];
    let Filters { request_headers, response_headers, rewrite } = filters;
    lines.extend(headers("  request headers", request_headers));
    lines.extend(headers("  response headers", response_headers));
    if let Some(host) = &rewrite.host {
        lines.push(format!("  rewrite host: {host}"));
    }
    if let Some(path) = &rewrite.path {
        lines.push(format!("  rewrite path: {}", self::path(path)));
    }
    if **retry != RetryPolicy::default() {
        lines.push(format!("  retry: {}", self::retry(retry)));
    }
    if *timeouts != Timeouts::default() {
        let Timeouts { origin, request, per_try } = timeouts;
        let from = origin.as_ref().map(ToString::to_string).unwrap_or_default();
        let of = |duration: &Option<Duration>| duration.map_or("none".to_owned(), |of| format!("{of:?}"));
        lines.push(format!("  timeouts: {} in all, {} each try, from {from}", of(request), of(per_try)));
    }
    match action {
        Action::Respond(status) => lines.push(format!("  respond: {}", status.as_u16())),
        Action::Redirect(redirect) => {
            let parts = [
                Some(redirect.status.as_u16().to_string()),
                redirect.scheme.as_ref().map(|scheme| format!("scheme {scheme}")),
                redirect.host.as_ref().map(|host| format!("host {host}")),
                redirect.port.map(|port| format!("port {port}")),
                redirect.path.as_ref().map(|path| format!("path {}", self::path(path))),
            ];
            lines.push(format!("  redirect: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", ")));
        }
        Action::Forward(backends) => {
            lines.push("  forward:".to_owned());
            for Backend { cluster, weight, request_headers, response_headers } in backends {
                lines.push(format!("  - {weight} {cluster}"));
                let changes = [
                    headers("request headers", request_headers),
                    headers("response headers", response_headers),
                ];
                let changes: Vec<String> = changes.into_iter().flatten().collect();
                if !changes.is_empty() {
                    let last = lines.pop().unwrap_or_default();
                    lines.push(format!("{last} # {}", changes.join("; ")));
                }
            }
        }
    }
    lines
}

fn path(change: &PathChange) -> String {
    match change {
        PathChange::ReplaceFull(path) => path.clone(),
        PathChange::ReplacePrefix(prefix) => format!("prefix by {prefix}"),
    }
}

fn matches(matches: &RouteMatch) -> String {
    let path = match &matches.path {
        PathMatch::Exact(path) => format!("exact {path}"),
        PathMatch::Prefix(prefix) => format!("prefix {prefix}"),
        PathMatch::Regex(pattern) => format!("regex {}", pattern.text()),
    };
    let value = |value: &ValueMatch| match value {
        ValueMatch::Exact(value) => format!("= {value}"),
        ValueMatch::Regex(pattern) => format!("~ {}", pattern.text()),
    };
    let mut parts = vec![path];
    parts.extend(matches.method.as_ref().map(|method| format!("method {method}")));
    parts.extend(
        matches.headers.iter().map(|header| format!("header {} {}", header.name, value(&header.value))),
    );
    parts.extend(matches.query.iter().map(|query| format!("query {} {}", query.name, value(&query.value))));
    quoted(&parts.join(", "))
}

fn headers(title: &str, change: &HeaderChange) -> Option<String> {
    let HeaderChange { set, add, remove } = change;
    let pair = |verb: &str, (name, value): &(http::HeaderName, http::HeaderValue)| {
        format!("{verb} {name}={}", String::from_utf8_lossy(value.as_bytes()))
    };
    let mut parts: Vec<String> = set.iter().map(|header| pair("set", header)).collect();
    parts.extend(add.iter().map(|header| pair("add", header)));
    parts.extend(remove.iter().map(|name| format!("remove {name}")));
    (!parts.is_empty()).then(|| format!("{title}: {}", parts.join(", ")))
}

/// Each condition on a line; those that say nothing but that all is well are left out.
pub(crate) fn conditions(statuses: &[ObjectStatus]) -> Vec<String> {
    let mut lines = Vec::new();
    for status in statuses {
        for parent in &status.parents {
            let reference = match parent.reference["name"].as_str() {
                Some(name) => format!(" at {name}{}", port(&parent.reference)),
                None => String::new(),
            };
            for condition in &parent.conditions {
                let line = format!(
                    "{}{reference}: {}={:?} {}: {}",
                    status.object,
                    condition.condition_type,
                    condition.status,
                    condition.reason,
                    condition.message
                );
                let dull =
                    ["accepted", "all references resolve", "0/0"].contains(&condition.message.as_str());
                if !dull || condition.condition_type == "Accepted" {
                    lines.push(quoted(&line));
                }
            }
        }
    }
    lines
}

fn port(reference: &serde_json::Value) -> String {
    match &reference["port"] {
        serde_json::Value::Null => String::new(),
        port => format!(":{port}"),
    }
}
