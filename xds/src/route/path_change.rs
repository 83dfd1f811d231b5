//! Rewrites of the path, element by element as the Gateway API wants them.
//!
//! Envoy replaces the matched prefix as a string, which is the same except around a bare `/`: `/cart` to `/` would
//! turn `/cart/1` into `//1`, and `/` to `/shop` would turn `/1` into `/shop1`. These cases are written as a regular
//! expression that eats the slashes, and only such expressions are read back.

use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use gauze_model::route::{PathChange, PathMatch};

use crate::path::{At as _, Fault, Read, required};

/// The whole path, without the query.
const WHOLE: &str = "^.*$";

/// One of Envoy's ways to say it.
pub(super) enum Written {
    Prefix(String),
    Regex(RegexMatchAndSubstitute),
}

pub(super) fn write(change: &PathChange, matched: &PathMatch) -> Written {
    match (change, matched) {
        (PathChange::ReplaceFull(path), _) => Written::Regex(substitute(WHOLE, path)),
        (PathChange::ReplacePrefix(to), PathMatch::Prefix(from)) => write_prefix(from, to),
        (PathChange::ReplacePrefix(to), _) => Written::Prefix(to.clone()),
    }
}

fn write_prefix(from: &str, to: &str) -> Written {
    if to.ends_with('/') {
        return Written::Regex(substitute(&eats_slashes(from), to));
    }
    if from == "/" {
        return Written::Regex(substitute("^/", &format!("{to}/")));
    }
    Written::Prefix(to.to_owned())
}

fn eats_slashes(prefix: &str) -> String {
    format!("^{}/*", escape_regex(prefix.trim_end_matches('/')))
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
        PathMatch::Prefix(from) if to.ends_with('/') && regex == eats_slashes(from) => {
            Ok(PathChange::ReplacePrefix(to))
        }
        PathMatch::Prefix(from) if from == "/" && regex == "^/" => match to.strip_suffix('/') {
            Some(to) => Ok(PathChange::ReplacePrefix(to.to_owned())),
            None => Err(not_ours()),
        },
        _ => Err(not_ours()),
    }
}

fn not_ours() -> Fault {
    Fault::beyond("only the whole path, or the matched prefix with the slashes after it, is supported")
        .at("regex")
        .at("pattern")
}

/// A prefix that Envoy replaces as a string.
pub(super) fn read_prefix(to: String, matched: &PathMatch) -> Read<PathChange> {
    let at_root = matches!(matched, PathMatch::Prefix(from) if from == "/");
    if to.ends_with('/') != at_root && matches!(matched, PathMatch::Prefix(_)) {
        return Err(Fault::beyond("would not replace whole path elements, which is not supported"));
    }
    Ok(PathChange::ReplacePrefix(to))
}
