//! Headers, paths and locations, changed on the way (Gateway API filters).

use http::HeaderMap;

use super::matches::behind_prefix;
use super::{HeaderChange, PathChange, PathMatch, Redirect, RequestHead, Rewrite, host_of};

impl HeaderChange {
    /// Sets, then adds, then removes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl Rewrite {
    /// The path and query to send on; `None`: as they came. `matched` is what the rule matched by.
    pub fn path_and_query(&self, matched: &PathMatch, head: &RequestHead<'_>) -> Option<String> {
        self.path.as_ref().map(|change| with_query(change.apply(matched, head.path), head.query))
    }
}

impl PathChange {
    /// The new path, without the query. A prefix is replaced element by element (the table at
    /// `HTTPPathModifier.replacePrefixMatch`); if the rule did not match by prefix, nothing changes.
    pub fn apply(&self, matched: &PathMatch, path: &str) -> String {
        match (self, matched) {
            _ if path == "*" => path.to_owned(), // OPTIONS of the server itself has no path
            (PathChange::ReplaceFull(full), _) => or_root(full.clone()),
            (PathChange::ReplacePrefix(new), PathMatch::Prefix(old)) => match behind_prefix(old, path) {
                Some(rest) => or_root([new.trim_end_matches('/'), rest].concat()),
                None => path.to_owned(),
            },
            (PathChange::ReplacePrefix(_), PathMatch::Exact(_) | PathMatch::Regex(_)) => path.to_owned(),
        }
    }
}

/// A path begins with a slash, whatever stands in the configuration.
fn or_root(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

impl Redirect {
    /// The `Location` of the answer. `scheme` and `port` are those that the client used; they hold
    /// unless the rule says otherwise, and a scheme of the rule's brings its own default port.
    pub fn location(&self, matched: &PathMatch, head: &RequestHead<'_>, scheme: &str, port: u16) -> String {
        let path = match &self.path {
            Some(change) => change.apply(matched, head.path),
            None => head.path.to_owned(),
        };
        let target = with_query(path, head.query);
        let host = self.host.as_deref().map_or_else(|| host_of(head.authority), Into::into);
        if host.is_empty() {
            return target;
        }
        let default = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let port = self.port.unwrap_or_else(|| self.scheme.as_deref().map_or(port, default));
        let scheme = self.scheme.as_deref().unwrap_or(scheme);
        if port == default(scheme) {
            format!("{scheme}://{host}{target}")
        } else {
            format!("{scheme}://{host}:{port}{target}")
        }
    }
}
