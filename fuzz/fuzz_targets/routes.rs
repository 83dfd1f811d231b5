//! Route matching: whatever rules there are and whatever is asked for, the table (virtual hosts, an index by path)
//! carries a request by the rule that a plain reading of the Gateway API's precedence yields, rule by rule.
#![no_main]

use arbitrary::Arbitrary;
use gauze_model::Origin;
use gauze_model::route::{
    Action, Filters, HeaderMatch, HostPattern, PathMatch, Pattern, QueryMatch, RequestHead, RouteMatch,
    RouteRule, RouteTable, ValueMatch, route,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use libfuzzer_sys::fuzz_target;

#[path = "routes/scan.rs"]
mod scan; // the plain reading

/// Few words, so that rules and requests meet.
const LABELS: [&str; 4] = ["a", "b", "shop", "x"];
const ELEMENTS: [&str; 5] = ["", "a", "b", "ab", "a.b"];
const VALUES: [&str; 4] = ["", "1", "2", "1,2"];
const NAMES: [&str; 3] = ["x-a", "x-b", "host"];
const PATTERNS: [&str; 6] = ["/a.*", ".*", "/(a|b)", "/a|/b/a", "[12]?", "/a/[^/]*"];
static METHODS: [Method; 3] = [Method::GET, Method::POST, Method::OPTIONS];

#[derive(Arbitrary, Debug)]
struct Case {
    rules: Vec<Rule>,
    asked: Vec<Asked>,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    hosts: Vec<Host>,
    path: Path,
    method: Option<u8>,
    headers: Vec<(u8, u8)>,
    query: Vec<(u8, u8)>,
    /// Bits: values of headers and parameters are patterns.
    by_pattern: u8,
}

#[derive(Arbitrary, Debug)]
enum Host {
    Exact(Vec<u8>),
    Wildcard(u8, Vec<u8>),
    Any,
}

#[derive(Arbitrary, Debug)]
enum Path {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    PrefixWithSlash(Vec<u8>),
    Regex(u8),
}

#[derive(Arbitrary, Debug)]
struct Asked {
    host: Vec<u8>,
    /// Port, final dot, upper case.
    spelling: u8,
    path: Vec<u8>,
    method: u8,
    headers: Vec<(u8, u8)>,
    query: Option<Vec<(u8, u8)>>,
}

fuzz_target!(|case: Case| {
    let rules: Vec<_> = case.rules.iter().take(64).enumerate().map(|(at, rule)| rule.build(at)).collect();
    let table: RouteTable = RouteTable::new(Origin::default(), rules.clone());
    for asked in case.asked.iter().take(16) {
        let (authority, path, query, headers) = asked.parts();
        let head = RequestHead {
            method: method(asked.method),
            authority: &authority,
            path: &path,
            query: query.as_deref(),
            headers: &headers,
        };
        let mut reasons = Vec::new();
        let found = route(&table, &head, &mut reasons).map(|rule| rule.origin.generation);
        let quietly = route(&table, &head, &mut ()).map(|rule| rule.origin.generation);
        assert_eq!(found, quietly, "an explanation changes nothing");
        assert_eq!(found, scan::carries(&rules, &head), "{head:?}\n{:#?}", table.hosts());
    }
});

fn word(words: &[&'static str], which: u8) -> &'static str {
    words[usize::from(which) % words.len()]
}

fn method(which: u8) -> &'static Method {
    &METHODS[usize::from(which) % METHODS.len()]
}

fn labels(which: &[u8]) -> String {
    which.iter().take(5).map(|label| word(&LABELS, *label)).collect::<Vec<_>>().join(".")
}

fn path(which: &[u8]) -> String {
    let elements = which.iter().take(18).map(|element| format!("/{}", word(&ELEMENTS, *element)));
    elements.collect()
}

impl Rule {
    fn build(&self, at: usize) -> (Vec<HostPattern>, RouteRule) {
        let matches = RouteMatch {
            path: self.path.build(),
            method: self.method.map(|which| method(which).clone()),
            headers: self.headers.iter().take(4).map(|(name, value)| self.header(*name, *value)).collect(),
            query: self.query.iter().take(4).map(|(name, value)| self.parameter(*name, *value)).collect(),
        };
        let rule = RouteRule {
            origin: Origin { generation: at as i64, ..Origin::default() },
            matches,
            filters: Filters::default(),
            action: Action::Respond(StatusCode::OK),
            retry: Default::default(),
            timeouts: Default::default(),
        };
        (self.hosts.iter().take(4).map(Host::build).collect(), rule)
    }

    fn header(&self, name: u8, value: u8) -> HeaderMatch {
        HeaderMatch { name: HeaderName::from_static(word(&NAMES, name)), value: self.value(1, value) }
    }

    fn parameter(&self, name: u8, value: u8) -> QueryMatch {
        QueryMatch { name: word(&LABELS, name).to_owned(), value: self.value(2, value) }
    }

    fn value(&self, bit: u8, value: u8) -> ValueMatch {
        match self.by_pattern & bit {
            0 => ValueMatch::Exact(word(&VALUES, value).to_owned()),
            _ => ValueMatch::Regex(pattern(value)),
        }
    }
}

fn pattern(which: u8) -> Pattern {
    Pattern::new(word(&PATTERNS, which)).expect("it is one")
}

impl Host {
    fn build(&self) -> HostPattern {
        match self {
            Host::Any => HostPattern::Any,
            Host::Exact(which) if which.is_empty() => HostPattern::Any,
            Host::Exact(which) => HostPattern::Exact(labels(which)),
            Host::Wildcard(first, which) => {
                let more: Vec<u8> = std::iter::once(*first).chain(which.iter().copied()).collect();
                HostPattern::Wildcard(labels(&more))
            }
        }
    }
}

impl Path {
    fn build(&self) -> PathMatch {
        match self {
            Path::Exact(which) if which.is_empty() => PathMatch::Exact("/".to_owned()),
            Path::Exact(which) => PathMatch::Exact(path(which)),
            Path::Prefix(which) if which.is_empty() => PathMatch::default(),
            Path::Prefix(which) => PathMatch::Prefix(path(which)),
            Path::PrefixWithSlash(which) => PathMatch::Prefix(path(which) + "/"),
            Path::Regex(which) => PathMatch::Regex(pattern(*which)),
        }
    }
}

impl Asked {
    fn parts(&self) -> (String, String, Option<String>, HeaderMap) {
        let mut authority = labels(&self.host);
        if self.spelling & 1 != 0 {
            authority.make_ascii_uppercase();
        }
        if self.spelling & 2 != 0 && !authority.is_empty() {
            authority.push('.');
        }
        if self.spelling & 4 != 0 && !authority.is_empty() {
            authority += ":8080";
        }
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().take(6).filter(|(name, _)| word(&NAMES, *name) != "host") {
            let value = HeaderValue::from_static(word(&VALUES, *value));
            headers.append(HeaderName::from_static(word(&NAMES, *name)), value);
        }
        let parameter =
            |(name, value): &(u8, u8)| format!("{}={}", word(&LABELS, *name), word(&VALUES, *value));
        let query =
            self.query.as_ref().map(|all| all.iter().take(6).map(parameter).collect::<Vec<_>>().join("&"));
        let path = if self.path.is_empty() { "*".to_owned() } else { path(&self.path) };
        (authority, path, query, headers)
    }
}
