//! Whether one rule matches, and if not, what spoke against it.

use std::borrow::Cow;
use std::fmt;

use http::header::HOST;
use http::{HeaderMap, HeaderName, Method};

use super::{HeaderMatch, PathMatch, QueryMatch, RequestHead, RouteMatch, ValueMatch};

/// The first condition of a match that a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'m> {
    /// The path is for other rules.
    Path,
    /// Another method is asked for.
    Method(&'m Method),
    /// A header is missing, or has another value.
    Header(&'m HeaderMatch),
    /// A query parameter is missing, or has another value.
    Query(&'m QueryMatch),
}

impl RouteMatch {
    /// What speaks against carrying this request; `None`: it matches.
    pub fn mismatch(&self, head: &RequestHead<'_>) -> Option<Mismatch<'_>> {
        if !self.path.matches(head.path) {
            return Some(Mismatch::Path);
        }
        if let Some(method) = self.method.as_ref().filter(|method| *method != head.method) {
            return Some(Mismatch::Method(method));
        }
        if let Some(header) = self.headers.iter().find(|header| !header.matches(head)) {
            return Some(Mismatch::Header(header));
        }
        let query = head.query.unwrap_or_default();
        self.query.iter().find(|parameter| !parameter.matches(query)).map(Mismatch::Query)
    }
}

impl PathMatch {
    /// Whether `path`, as it stands in a request, is one of these.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathMatch::Exact(exact) => exact == path,
            PathMatch::Prefix(prefix) => behind_prefix(prefix, path).is_some(),
            PathMatch::Regex(pattern) => pattern.is_match(path),
        }
    }
}

/// What follows a prefix that ends where an element of the path ends: nothing, or a slash and more.
/// The root is a prefix of all there is, also of `*`.
pub(super) fn behind_prefix<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let prefix = without_final_slash(prefix);
    let rest = path.strip_prefix(prefix)?;
    (prefix.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

pub(super) fn without_final_slash(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

impl HeaderMatch {
    fn matches(&self, head: &RequestHead<'_>) -> bool {
        if self.name == HOST {
            return !head.authority.is_empty() && self.value.matches(head.authority.as_bytes());
        }
        joined_value(head.headers, &self.name).is_some_and(|value| self.value.matches(&value))
    }
}

/// RFC 9110, 5.3: several lines of a field are one list.
fn joined_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut values = headers.get_all(name).iter().map(|value| value.as_bytes());
    let first = values.next()?;
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let joined = joined.to_mut();
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    Some(joined)
}

impl QueryMatch {
    fn matches(&self, query: &str) -> bool {
        let parameters =
            query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        let mut of_this_name = parameters.filter(|(name, _)| *name == self.name);
        of_this_name.next().is_some_and(|(_, value)| self.value.matches(value.as_bytes()))
    }
}

impl ValueMatch {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Exact(exact) => exact.as_bytes() == value,
            ValueMatch::Regex(pattern) => {
                std::str::from_utf8(value).is_ok_and(|value| pattern.is_match(value))
            }
        }
    }
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.path)?;
        if let Some(method) = &self.method {
            write!(f, ", method {method}")?;
        }
        self.headers.iter().try_for_each(|header| write!(f, ", {header}"))?;
        self.query.iter().try_for_each(|parameter| write!(f, ", {parameter}"))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(f, "is `{path}`"),
            PathMatch::Prefix(prefix) => write!(f, "begins with `{prefix}`"),
            PathMatch::Regex(pattern) => write!(f, "matches `{}`", pattern.text()),
        }
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header `{}` {}", self.name, self.value)
    }
}

impl fmt::Display for QueryMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query parameter `{}` {}", self.name, self.value)
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueMatch::Exact(value) => write!(f, "is `{value}`"),
            ValueMatch::Regex(pattern) => write!(f, "matches `{}`", pattern.text()),
        }
    }
}

/// What would have to be otherwise.
impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Path => f.write_str("it is for another path"),
            Mismatch::Method(method) => write!(f, "it is for method {method}"),
            Mismatch::Header(header) => write!(f, "it is for requests whose {header}"),
            Mismatch::Query(parameter) => write!(f, "it is for requests whose {parameter}"),
        }
    }
}
