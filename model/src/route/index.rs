//! The rules of a table that can match, without a look at the others: a table of ten thousand rules
//! costs a lookup by path, not a scan. The answer is that of the scan (a property of the tests).

use std::collections::BTreeMap;

use super::host::suffixes;
use super::matches::without_final_slash;
use super::{HostPattern, PathMatch, RouteRule, VirtualHost};

/// Fewer rules than this are scanned: that is as fast, and costs no memory.
const INDEXED_FROM: usize = 16;

/// Prefixes of more elements than this are scanned, so that the number of lookups is bounded,
/// whatever path a client sends.
const DEPTH_MAX: usize = 12;

/// Beside the hosts of a table; positions are theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    exact: BTreeMap<String, usize>,
    /// By what follows `*.`.
    wildcards: BTreeMap<String, usize>,
    any: Option<usize>,
    /// For each host, unless it has few rules.
    paths: Vec<Option<PathIndex>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PathIndex {
    exact: BTreeMap<String, Vec<usize>>,
    /// Without the final slash, so that the root is empty.
    prefixes: BTreeMap<String, Vec<usize>>,
    /// Regular expressions, and very deep prefixes.
    others: Vec<usize>,
}

impl Index {
    pub(super) fn of<C>(hosts: &[VirtualHost<C>]) -> Index {
        let paths = hosts.iter().map(|host| PathIndex::of(&host.rules)).collect();
        let mut index = Index { exact: BTreeMap::new(), wildcards: BTreeMap::new(), any: None, paths };
        let domains =
            hosts.iter().enumerate().flat_map(|(at, host)| host.domains.iter().map(move |it| (at, it)));
        for (at, domain) in domains {
            // Where two virtual hosts name one domain, the first counts.
            match domain {
                HostPattern::Exact(host) => drop(index.exact.entry(host.clone()).or_insert(at)),
                HostPattern::Wildcard(suffix) => drop(index.wildcards.entry(suffix.clone()).or_insert(at)),
                HostPattern::Any => drop(index.any.get_or_insert(at)),
            }
        }
        index
    }

    /// The virtual host that fits best: the exact one, else that of the longest wildcard, else any.
    pub(super) fn host(&self, host: &str) -> Option<usize> {
        self.exact.get(host).copied().or_else(|| self.longest_wildcard(host)).or(self.any)
    }

    fn longest_wildcard(&self, host: &str) -> Option<usize> {
        if self.wildcards.is_empty() {
            return None;
        }
        suffixes(host).find_map(|suffix| self.wildcards.get(suffix).copied())
    }

    /// The rules of a host that can match a path, in order; `None`: any of them can.
    pub(super) fn rules(&self, host: usize, path: &str) -> Option<impl Iterator<Item = usize> + use<'_>> {
        self.paths[host].as_ref().map(|index| index.candidates(path))
    }
}

impl PathIndex {
    fn of<C>(rules: &[RouteRule<C>]) -> Option<PathIndex> {
        if rules.len() < INDEXED_FROM {
            return None;
        }
        let mut index = PathIndex::default();
        for (at, rule) in rules.iter().enumerate() {
            match &rule.matches.path {
                PathMatch::Exact(path) => index.exact.entry(path.clone()).or_default().push(at),
                PathMatch::Prefix(prefix) if depth(prefix) <= DEPTH_MAX => {
                    index.prefixes.entry(without_final_slash(prefix).to_owned()).or_default().push(at);
                }
                PathMatch::Prefix(_) | PathMatch::Regex(_) => index.others.push(at),
            }
        }
        Some(index)
    }

    /// Merges the few lists of rules that can match into one, in order.
    fn candidates(&self, path: &str) -> impl Iterator<Item = usize> + use<'_> {
        let mut lists: [&[usize]; DEPTH_MAX + 3] = [&[]; DEPTH_MAX + 3];
        let prefixes = element_ends(path).filter_map(|end| self.prefixes.get(&path[..end]));
        let found = self.exact.get(path).into_iter().chain(prefixes).chain([&self.others]);
        for (list, found) in lists.iter_mut().zip(found) {
            *list = found;
        }
        std::iter::from_fn(move || {
            let next = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
            let (first, rest) = next.split_first()?;
            *next = rest;
            Some(*first)
        })
    }
}

fn depth(prefix: &str) -> usize {
    without_final_slash(prefix).matches('/').count()
}

/// Where the elements of a path end, the root first: 0, 2, 4 in `/a/b`. At most [`DEPTH_MAX`] and the root.
fn element_ends(path: &str) -> impl Iterator<Item = usize> {
    let inner = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    let whole = (!path.is_empty()).then_some(path.len());
    std::iter::once(0).chain(inner).chain(whole).take(DEPTH_MAX + 1)
}
