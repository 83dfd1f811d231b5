//! Rewrites of the path, element by element as the Gateway API wants them.
//!
//! Envoy replaces the matched prefix as a string, which is the same except around a bare `/`: `/cart` to `/` would
//! turn `/cart/1` into `//1`, and `/` to `/shop` would turn `/1` into `/shop1`. These cases are written as a regular
//! expression that takes the slash along, and only such expressions are read back.

use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use gauze_model::route::{PathChange, PathMatch};

use crate::path::{At as _, Fault, Read, required};

/// The whole path, without the query.
const WHOLE: &str = "^.*$";

/// The slash that every path begins with.
const ROOT: &str = "^/";

/// One of Envoy's ways to say it.
pub(super) enum Written {
    Prefix(String),
    Regex(RegexMatchAndSubstitute),
}

/// `None` where nothing changes: the prefix of what did not match by prefix.
pub(super) fn write(change: &PathChange, matched: &PathMatch) -> Option<Written> {
    match (change, matched) {
        (PathChange::ReplaceFull(path), _) => Some(Written::Regex(substitute(WHOLE, &from_root(path)))),
        (PathChange::ReplacePrefix(to), PathMatch::Prefix(from)) => {
            Some(write_prefix(from, to.trim_end_matches('/')))
        }
        (PathChange::ReplacePrefix(_), PathMatch::Exact(_) | PathMatch::Regex(_)) => None,
    }
}

fn write_prefix(from: &str, to: &str) -> Written {
    match (from, to) {
        ("/", to) => Written::Regex(substitute(ROOT, &format!("{}/", from_root(to).trim_end_matches('/')))),
        (from, "") => Written::Regex(substitute(&with_slash(from), "/")),
        (_, to) => Written::Prefix(from_root(to)),
    }
}

/// A path begins with a slash, whatever stands in the configuration.
pub(super) fn from_root(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The prefix, and the slash after it if there is one.
fn with_slash(prefix: &str) -> String {
    format!("^{}/?", escape_regex(prefix))
}

/// As `RE2::QuoteMeta`: everything that could mean something.
fn escape_regex(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if character.is_ascii_punctuation() && !"/-_".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn substitute(regex: &str, with: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: regex.to_owned(), engine_type: None }),
        substitution: with.replace('\\', r"\\"),
    }
}

pub(super) fn read_regex(rewrite: RegexMatchAndSubstitute, matched: &PathMatch) -> Read<PathChange> {
    let RegexMatchAndSubstitute { pattern, substitution } = rewrite;
    let RegexMatcher { regex, engine_type: _ } = required(pattern).at("pattern")?;
    if substitution.replace(r"\\", "").contains('\\') {
        return Err(Fault::beyond("references to groups are not supported").at("substitution"));
    }
    let to = substitution.replace(r"\\", r"\");
    match matched {
        _ if regex == WHOLE => Ok(PathChange::ReplaceFull(to)),
        PathMatch::Prefix(from) if from == "/" && regex == ROOT && to.ends_with('/') => Ok(to_prefix(&to)),
        PathMatch::Prefix(from) if from != "/" && regex == with_slash(from) && to == "/" => {
            Ok(to_prefix(&to))
        }
        _ => {
            let problem = "only the whole path, or the matched prefix with the slash after it, is supported";
            Err(Fault::beyond(problem).at("regex").at("pattern"))
        }
    }
}

/// A prefix that Envoy replaces as a string.
pub(super) fn read_prefix(to: &str, matched: &PathMatch) -> Read<PathChange> {
    match matched {
        PathMatch::Prefix(from) if to.starts_with('/') && to.ends_with('/') == (from == "/") => {
            Ok(to_prefix(to))
        }
        _ => Err(Fault::beyond("would not replace whole path elements, which is not supported")),
    }
}

/// Without the slash at the end, which means nothing.
fn to_prefix(to: &str) -> PathChange {
    match to.trim_end_matches('/') {
        "" => PathChange::ReplacePrefix("/".to_owned()),
        to => PathChange::ReplacePrefix(to.to_owned()),
    }
}
