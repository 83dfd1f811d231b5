//! Gateway API rules in order of precedence (`HTTPRouteSpec.rules`, `HTTPRouteSpec.hostnames`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{HostPattern, PathMatch, RouteMatch, RouteRule, RouteTable, VirtualHost};
use crate::origin::Origin;

/// Orders what takes precedence first: an exact path, the longest prefix, a regular expression, and
/// last the root, which matches any path; then a method; then more headers; then more query parameters.
/// Ties are for the caller: the oldest object, then by namespace and name, then the first rule.
pub fn precedence(matches: &RouteMatch) -> impl Ord + use<> {
    let path = match &matches.path {
        PathMatch::Exact(path) => (0, Reverse(path.len())),
        PathMatch::Prefix(prefix) if prefix.len() > "/".len() => (1, Reverse(prefix.len())),
        PathMatch::Regex(pattern) => (2, Reverse(pattern.text().len())),
        PathMatch::Prefix(_) => (3, Reverse(0)),
    };
    let conditions = (matches.method.is_some(), matches.headers.len(), matches.query.len());
    (path, Reverse(conditions))
}

impl<C: Clone> RouteTable<C> {
    /// Makes a table of rules that are given with their hosts (none: all hosts), oldest object first.
    /// A host's own rules come before those of the wildcards around it, each in order of [`precedence`].
    pub fn new(origin: Origin, rules: Vec<(Vec<HostPattern>, RouteRule<C>)>) -> RouteTable<C> {
        let mut rules: Vec<_> = rules.into_iter().map(|(hosts, rule)| (or_any(hosts), rule)).collect();
        rules.sort_by_cached_key(|(_, rule)| precedence(&rule.matches));
        let mut by_host: BTreeMap<&HostPattern, Vec<usize>> = BTreeMap::new();
        for (at, (hosts, _)) in rules.iter().enumerate() {
            hosts.iter().for_each(|host| by_host.entry(host).or_default().push(at));
        }
        // Hosts with the same rules share a virtual host.
        let mut hosts: BTreeMap<Vec<usize>, Vec<HostPattern>> = BTreeMap::new();
        for host in by_host.keys() {
            hosts.entry(rules_for(host, &by_host)).or_default().push((*host).clone());
        }
        let virtual_host = |(at, domains): (Vec<usize>, Vec<HostPattern>)| VirtualHost {
            domains,
            rules: at.into_iter().map(|at| rules[at].1.clone()).collect(),
        };
        let mut hosts: Vec<_> = hosts.into_iter().map(virtual_host).collect();
        hosts.sort_by_cached_key(|host| host.domains.first().map(HostPattern::specificity));
        RouteTable::from_hosts(origin, hosts)
    }
}

fn or_any(hosts: Vec<HostPattern>) -> Vec<HostPattern> {
    if hosts.is_empty() { vec![HostPattern::Any] } else { hosts }
}

/// The rules that apply to a host: its own, then those of the wider patterns, none twice.
fn rules_for(host: &HostPattern, by_host: &BTreeMap<&HostPattern, Vec<usize>>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let applying = host.and_wider().flat_map(|pattern| by_host.get(&pattern).into_iter().flatten().copied());
    applying.filter(|at| seen.insert(*at)).collect()
}
