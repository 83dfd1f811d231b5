//! Which rule carries a request. A table is in Envoy's form (virtual hosts of ordered rules), so that
//! what `gauze explain` shows is what crosses the wire; [`RouteTable::new`] orders Gateway API rules into it.
//!
//! Here are the types and [`route`]; each part of a decision has a file of its own below.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::origin::Origin;
use crate::retry::RetryPolicy;
use crate::timeouts::Timeouts;
use crate::why::{Reason, Why};

mod change; // headers, paths and locations, changed on the way
mod host; // hosts, as requests name them and as rules ask for them
mod index; // the rules that can match, without a look at the others
mod matches; // whether one rule matches
mod order; // Gateway API rules in order of precedence
mod pattern; // regular expressions, compiled once
mod split; // one backend of many, by weight

pub use host::host_of;
pub use matches::Mismatch;
pub use order::precedence;
pub use pattern::Pattern;
pub(crate) use split::scale;
pub use split::{share, split};

use index::Index;

/// All rules of one Service port (Envoy `RouteConfiguration`).
///
/// `C` is what a backend refers to: a cluster's name on the wire, the live cluster itself in the proxy,
/// which so looks nothing up by name for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable<C = Name> {
    /// The Service port.
    pub origin: Origin,
    /// A request sees the rules of the one host that fits best.
    hosts: Vec<VirtualHost<C>>,
    /// Of the hosts; the same for tables that differ in what their backends refer to only.
    index: Arc<Index>,
}

/// The rules for some hosts, in order of precedence: the first that matches carries the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost<C = Name> {
    /// The hosts whose requests see these rules.
    pub domains: Vec<HostPattern>,
    /// The first that matches counts.
    pub rules: Vec<RouteRule<C>>,
}

/// Which hosts a rule is for (Gateway API `Hostname`, Envoy `VirtualHost.domains`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPattern {
    /// This host, in lower case, without a port.
    Exact(String),
    /// `*.` and this suffix: any host with one or more labels before it.
    Wildcard(String),
    /// `*`: every host, and a request without one.
    Any,
}

/// One rule: what it matches and what is done then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule<C = Name> {
    /// The user's rule; `spec.rules[i]` or `spec.backends`.
    pub origin: Origin,
    /// Which requests it carries.
    pub matches: RouteMatch,
    /// What it changes on the way.
    pub filters: Filters,
    /// What it does with a request.
    pub action: Action<C>,
    /// How a request is tried again that it forwards.
    pub retry: Arc<RetryPolicy>,
    /// How long a request may take that it forwards.
    pub timeouts: Timeouts,
}

/// A conjunction (Gateway API `HTTPRouteMatch`, `GRPCRouteMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// `None`: any.
    pub method: Option<Method>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
    /// All of these.
    pub query: Vec<QueryMatch>,
}

/// Which paths (Gateway API `HTTPPathMatch`, Envoy `RouteMatch.path_specifier`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This very path.
    Exact(String),
    /// By path element: `/abc` matches `/abc` and `/abc/d`, not `/abcd`. No trailing slash, except `/` itself.
    Prefix(String),
    /// The whole path, anchored at both ends.
    Regex(Pattern),
}

impl Default for PathMatch {
    fn default() -> PathMatch {
        PathMatch::Prefix("/".to_owned())
    }
}

/// One header (Gateway API `HTTPHeaderMatch`); several lines of it count as one list. `host` means the
/// authority, in which version of HTTP a request may come: GEP-1294 has meshes match hosts so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// In any case.
    pub name: HeaderName,
    /// Its value.
    pub value: ValueMatch,
}

/// One query parameter (Gateway API `HTTPQueryParamMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Compared as it stands, case-sensitive; the first of several counts.
    pub name: String,
    /// Its value, as it stands.
    pub value: ValueMatch,
}

/// Which values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// This very value.
    Exact(String),
    /// The whole value, anchored at both ends.
    Regex(Pattern),
}

/// What is changed on the way (Gateway API filters).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Of requests, before they are sent on.
    pub request_headers: HeaderChange,
    /// Of responses, before they are sent back.
    pub response_headers: HeaderChange,
    /// Host and path of requests.
    pub rewrite: Rewrite,
}

/// Gateway API `HTTPHeaderFilter`: set, then add, then remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Replaces all values there are.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Comes behind the values there are.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// All values.
    pub remove: Vec<HeaderName>,
}

/// Gateway API `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new Host; `None`: as it came.
    pub host: Option<String>,
    /// The new path; `None`: as it came.
    pub path: Option<PathChange>,
}

/// Gateway API `HTTPPathModifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path is this one.
    ReplaceFull(String),
    /// Replaces the prefix that matched, element-wise.
    ReplacePrefix(String),
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<C = Name> {
    /// Sends it to one of these, by weight.
    Forward(Vec<Backend<C>>),
    /// Answers where to go instead.
    Redirect(Redirect),
    /// Answered here: a rule without a usable backend (GAMMA: 500).
    Respond(StatusCode),
}

/// One share of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend<C = Name> {
    /// What it refers to.
    pub cluster: C,
    /// Relative to the others; 0 gets none.
    pub weight: u32,
    /// Of requests, before they are sent on.
    pub request_headers: HeaderChange,
    /// Of responses, before they are sent back.
    pub response_headers: HeaderChange,
}

/// Gateway API `HTTPRequestRedirectFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`; `None`: as asked.
    pub scheme: Option<String>,
    /// `None`: as asked.
    pub host: Option<String>,
    /// `None`: the default of `scheme`, or as asked.
    pub port: Option<u16>,
    /// `None`: as asked.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

impl<C> RouteTable<C> {
    /// A table as it stands on the wire: the rules of each host are in order of precedence.
    pub fn from_hosts(origin: Origin, hosts: Vec<VirtualHost<C>>) -> RouteTable<C> {
        let index = Arc::new(Index::of(&hosts));
        RouteTable { origin, hosts, index }
    }

    /// The virtual hosts, in the order in which they were given.
    pub fn hosts(&self) -> &[VirtualHost<C>] {
        &self.hosts
    }
}

impl<C> Action<C> {
    /// The shares of a split; none where the rule forwards nothing.
    pub fn backends(&self) -> &[Backend<C>] {
        match self {
            Action::Forward(backends) => backends,
            Action::Redirect(_) | Action::Respond(_) => &[],
        }
    }
}

impl RouteTable {
    /// Every cluster that a rule can forward to, in order, as often as it is named.
    pub fn clusters(&self) -> impl Iterator<Item = &Name> {
        let rules = self.hosts.iter().flat_map(|host| &host.rules);
        rules.flat_map(|rule| rule.action.backends()).map(|backend| &backend.cluster)
    }

    /// The same table with what each backend's name stands for.
    pub fn resolve<C>(&self, mut cluster: impl FnMut(&Name) -> C) -> RouteTable<C> {
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|host| VirtualHost {
            domains: host.domains.clone(),
            rules: host.rules.iter().map(|rule| rule.resolve(&mut cluster)).collect(),
        });
        RouteTable { origin: self.origin.clone(), hosts: hosts.collect(), index: self.index.clone() }
    }
}

impl RouteRule {
    fn resolve<C>(&self, cluster: &mut impl FnMut(&Name) -> C) -> RouteRule<C> {
        let action = match &self.action {
            Action::Forward(backends) => {
                Action::Forward(backends.iter().map(|backend| backend.resolve(cluster)).collect())
            }
            Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
            Action::Respond(status) => Action::Respond(*status),
        };
        RouteRule {
            origin: self.origin.clone(),
            matches: self.matches.clone(),
            filters: self.filters.clone(),
            action,
            retry: self.retry.clone(),
            timeouts: self.timeouts.clone(),
        }
    }
}

impl Backend {
    fn resolve<C>(&self, cluster: &mut impl FnMut(&Name) -> C) -> Backend<C> {
        Backend {
            cluster: cluster(&self.cluster),
            weight: self.weight,
            request_headers: self.request_headers.clone(),
            response_headers: self.response_headers.clone(),
        }
    }
}

/// What a decision looks at in a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'r> {
    /// The method.
    pub method: &'r Method,
    /// Host, or `:authority`, with or without a port; empty if the request names none.
    pub authority: &'r str,
    /// The path as it stands in the request, without the query.
    pub path: &'r str,
    /// What stands behind the first `?`.
    pub query: Option<&'r str>,
    /// All headers.
    pub headers: &'r HeaderMap,
}

/// The rule that carries a request: the first that matches, of the virtual host that fits best.
pub fn route<'t, C>(
    table: &'t RouteTable<C>,
    head: &RequestHead<'_>,
    why: &mut impl Why,
) -> Option<&'t RouteRule<C>> {
    let host = host_of(head.authority);
    let Some(at) = table.index.host(&host) else {
        why.note(|| Reason::new("route", "no rule", format!("no rule is for the host `{host}`")));
        return None;
    };
    let rules = &table.hosts[at].rules;
    let found = match table.index.rules(at, head.path) {
        Some(candidates) => first_match(candidates.map(|at| &rules[at]), head, why),
        None => first_match(rules.iter(), head, why),
    };
    if found.is_none() {
        why.note(|| Reason::new("route", "no rule", format!("no rule for the host `{host}` matches")));
    }
    found
}

/// Notes the rules that came close: those for this path.
fn first_match<'t, C: 't>(
    mut rules: impl Iterator<Item = &'t RouteRule<C>>,
    head: &RequestHead<'_>,
    why: &mut impl Why,
) -> Option<&'t RouteRule<C>> {
    rules.find(|rule| match rule.matches.mismatch(head) {
        None => {
            why.note(|| {
                Reason::new("route", rule.origin.to_string(), rule.matches.to_string()).by(&rule.origin)
            });
            true
        }
        Some(Mismatch::Path) => false,
        Some(mismatch) => {
            why.note(|| {
                Reason::new("route", format!("not {}", rule.origin), mismatch.to_string()).by(&rule.origin)
            });
            false
        }
    })
}

#[cfg(test)]
mod tests;
