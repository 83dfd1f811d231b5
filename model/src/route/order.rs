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
        let patterns: BTreeSet<&HostPattern> = rules.iter().flat_map(|(hosts, _)| hosts).collect();

        let mut hosts: BTreeMap<Vec<usize>, Vec<HostPattern>> = BTreeMap::new();
        for pattern in patterns {
            hosts.entry(rules_for(pattern, &rules)).or_default().push(pattern.clone());
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

/// The rules that apply to a host, by the most specific of their patterns that covers it.
fn rules_for<C>(host: &HostPattern, rules: &[(Vec<HostPattern>, RouteRule<C>)]) -> Vec<usize> {
    let best = |patterns: &[HostPattern]| {
        patterns.iter().filter(|it| it.covers(host)).map(|it| it.specificity()).min()
    };
    let mut applying: Vec<_> =
        rules.iter().enumerate().filter_map(|(at, rule)| Some((best(&rule.0)?, at))).collect();
    applying.sort();
    applying.into_iter().map(|(_, at)| at).collect()
}
