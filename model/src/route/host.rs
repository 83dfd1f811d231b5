//! Hosts, as requests name them and as rules ask for them.

use std::borrow::Cow;
use std::fmt;

use super::HostPattern;

/// The host that an authority names: without port and final dot, in lower case.
pub fn host_of(authority: &str) -> Cow<'_, str> {
    let host = match authority.rfind([':', ']']) {
        Some(at) if authority[at..].starts_with(':') => &authority[..at],
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

impl HostPattern {
    /// Whether this is a pattern for a host, given in lower case and without final dot; `None` if none is named.
    pub fn covers(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (HostPattern::Any, _) => true,
            (HostPattern::Exact(name), Some(host)) => name == host,
            (HostPattern::Wildcard(suffix), Some(host)) => {
                let label = host.strip_suffix(suffix.as_str()).and_then(|before| before.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty())
            }
            (_, None) => false,
        }
    }

    /// This pattern and the wider ones around it, the most specific first: `a.b.c`, `*.b.c`, `*.c`, `*`.
    pub fn and_wider(&self) -> impl Iterator<Item = HostPattern> {
        let name = match self {
            HostPattern::Exact(name) | HostPattern::Wildcard(name) => name.as_str(),
            HostPattern::Any => "",
        };
        let wider = suffixes(name).map(|suffix| HostPattern::Wildcard(suffix.to_owned()));
        let any = (*self != HostPattern::Any).then_some(HostPattern::Any);
        std::iter::once(self.clone()).chain(wider).chain(any)
    }

    /// Orders the more specific before the less (Gateway API: exact, then the longest wildcard).
    pub fn specificity(&self) -> impl Ord + use<> {
        std::cmp::Reverse(match self {
            HostPattern::Exact(host) => (2, host.len()),
            HostPattern::Wildcard(suffix) => (1, suffix.len()),
            HostPattern::Any => (0, 0),
        })
    }
}

/// What follows each label of a name, the longest first: `b.c`, `c` in `a.b.c`.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &name[at + 1..])
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}
