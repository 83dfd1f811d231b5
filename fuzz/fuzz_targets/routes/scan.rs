//! The Gateway API's precedence, read plainly: all rules are looked at, the best of those that match carries the
//! request. It shares no code with the table.

use std::cmp::Reverse;

use gauze_model::route::{HostPattern, PathMatch, RequestHead, RouteMatch, RouteRule, ValueMatch};

/// The generation in the origin of the rule that carries a request.
pub fn carries(rules: &[(Vec<HostPattern>, RouteRule)], head: &RequestHead<'_>) -> Option<i64> {
    let host = plain_host(head.authority);
    let mut best = None;
    for (at, (hosts, rule)) in rules.iter().enumerate() {
        if !matches(&rule.matches, head) {
            continue;
        }
        let any = [HostPattern::Any];
        let hosts = if hosts.is_empty() { &any[..] } else { hosts };
        let Some(specific) = hosts.iter().filter_map(|pattern| fits(pattern, &host)).max() else { continue };
        // What comes first is less: the better host, the better match, the earlier rule.
        let key = (Reverse(specific), Reverse(worth(&rule.matches)), at);
        if best.as_ref().is_none_or(|(least, _)| key < *least) {
            best = Some((key, rule.origin.generation));
        }
    }
    best.map(|(_, generation)| generation)
}

/// Without port and final dot, in lower case. None of the words here holds a colon.
fn plain_host(authority: &str) -> String {
    let host = authority.split(':').next().unwrap_or_default();
    host.strip_suffix('.').unwrap_or(host).to_lowercase()
}

/// How specific a pattern is that fits: exact, then by the length of the wildcard.
fn fits(pattern: &HostPattern, host: &str) -> Option<(u8, usize)> {
    match pattern {
        HostPattern::Exact(exact) => (exact == host).then_some((2, exact.len())),
        HostPattern::Wildcard(suffix) => {
            let labels = host.strip_suffix(suffix.as_str())?.strip_suffix('.')?;
            (!labels.is_empty()).then_some((1, suffix.len()))
        }
        HostPattern::Any => Some((0, 0)),
    }
}

/// Path (exact, longest prefix, regular expression, root), then method, then headers, then query parameters.
fn worth(matches: &RouteMatch) -> ((u8, usize), bool, usize, usize) {
    let path = match &matches.path {
        PathMatch::Exact(path) => (3, path.len()),
        PathMatch::Prefix(prefix) if prefix == "/" => (0, 0),
        PathMatch::Prefix(prefix) => (2, prefix.len()),
        PathMatch::Regex(pattern) => (1, pattern.text().len()),
    };
    (path, matches.method.is_some(), matches.headers.len(), matches.query.len())
}

fn matches(matches: &RouteMatch, head: &RequestHead<'_>) -> bool {
    let path = match &matches.path {
        PathMatch::Exact(path) => path == head.path,
        PathMatch::Prefix(prefix) => has_prefix(prefix, head.path),
        PathMatch::Regex(pattern) => pattern.is_match(head.path),
    };
    let method = matches.method.as_ref().is_none_or(|method| method == head.method);
    let headers = matches.headers.iter().all(|wanted| {
        let given = if wanted.name == "host" {
            (!head.authority.is_empty()).then(|| head.authority.to_owned())
        } else {
            let values: Vec<_> =
                head.headers.get_all(&wanted.name).iter().filter_map(|it| it.to_str().ok()).collect();
            (!values.is_empty()).then(|| values.join(","))
        };
        given.is_some_and(|given| is(&wanted.value, &given))
    });
    let query = matches.query.iter().all(|wanted| {
        let pairs =
            head.query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let given = pairs.into_iter().find(|(name, _)| *name == wanted.name);
        given.is_some_and(|(_, value)| is(&wanted.value, value))
    });
    path && method && headers && query
}

fn is(wanted: &ValueMatch, given: &str) -> bool {
    match wanted {
        ValueMatch::Exact(exact) => exact == given,
        ValueMatch::Regex(pattern) => pattern.is_match(given),
    }
}

/// Element by element; one final slash of a prefix says nothing, and the root is a prefix of all.
fn has_prefix(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        return true;
    }
    let (wanted, given): (Vec<_>, Vec<_>) = (prefix.split('/').collect(), path.split('/').collect());
    given.starts_with(&wanted)
}
