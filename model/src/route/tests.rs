use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

mod changes;
mod tables;

/// A request by its parts.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    authority: String,
    target: String,
    headers: HeaderMap,
}

impl Asked {
    fn get(authority: &str, target: &str) -> Asked {
        let headers = HeaderMap::new();
        Asked { method: Method::GET, authority: authority.into(), target: target.into(), headers }
    }

    fn method(self, method: Method) -> Asked {
        Asked { method, ..self }
    }

    fn header(mut self, name: &'static str, value: &str) -> Asked {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    fn head(&self) -> RequestHead<'_> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        let (method, authority, headers) = (&self.method, self.authority.as_str(), &self.headers);
        RequestHead { method, authority, path, query, headers }
    }
}

fn exact(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Exact(path.into()), ..RouteMatch::default() }
}

fn prefix(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix(path.into()), ..RouteMatch::default() }
}

fn regex(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Regex(Pattern::new(path).unwrap()), ..RouteMatch::default() }
}

fn header(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch { name: HeaderName::from_static(name), value: ValueMatch::Exact(value.into()) }
}

fn query(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) }
}

/// A rule that is told from others by the name of its origin.
fn rule(name: &str, matches: RouteMatch) -> RouteRule {
    let (kind, namespace) = ("HTTPRoute".into(), "shop".into());
    let origin = Origin { kind, namespace, name: name.into(), ..Origin::default() };
    RouteRule {
        origin,
        matches,
        filters: Filters::default(),
        action: Action::Respond(StatusCode::OK),
        retry: Default::default(),
        timeouts: Default::default(),
    }
}

fn host(text: &str) -> HostPattern {
    match text.strip_prefix("*.") {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None if text == "*" => HostPattern::Any,
        None => HostPattern::Exact(text.into()),
    }
}

fn hosts(text: &str) -> Vec<HostPattern> {
    text.split_whitespace().map(host).collect()
}

/// The name of the rule that carries a request.
fn carried<'t>(table: &'t RouteTable, asked: &Asked) -> Option<&'t str> {
    route(table, &asked.head(), &mut ()).map(|rule| rule.origin.name.as_str())
}
