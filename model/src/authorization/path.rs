//! The ways in which servers read a path. The path goes to the app as it was sent, and nobody knows what the app makes of
//! `//admin`, `/%61dmin`, `/x%2Fadmin` or `/admin;v=1`. So all of these readings are judged: an ALLOW must match each of
//! them, a DENY one. What no sensible client sends, and servers disagree about, has no reading: no ALLOW for a path matches it,
//! every DENY for a path does.
//!
//! This is Istio's `DECODE_AND_MERGE_SLASHES` (BASE, with `%2F`, `%5C` and `//`), made safe for a path that is not rewritten.
//! Case counts, and so does a slash at the end, as in Istio: `/admin*` covers `/admin/` too.

use super::{Match, StringMatch};

/// How often a path may be encoded in itself (`%2525`) and still be read.
const ENCODED_TIMES_MAX: usize = 4;

/// What a path may be for the server that it is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readings<'a> {
    /// All servers read it alike.
    One(&'a str),
    /// Servers differ.
    Several(Vec<String>),
    /// No sensible client sends it: two kinds of obfuscation at once, such as `/a;x%2F..`, bytes that are no text, control
    /// characters, a `%` that encodes nothing, a fragment, or no path at all.
    None,
}

impl<'a> Readings<'a> {
    /// The readings of a request's target: the query is left out, and of the absolute form scheme and authority too.
    pub fn of(target: &'a str) -> Readings<'a> {
        let Some(path) = path_of(target) else { return Readings::None };
        if is_plain(path) {
            return Readings::One(path);
        }
        several(path).map_or(Readings::None, Readings::Several)
    }

    pub(super) fn matches(&self, is_match: impl Fn(&str) -> bool) -> Match {
        match self {
            Readings::One(path) => Match::known(is_match(path)),
            Readings::Several(paths) => Match {
                certain: paths.iter().all(|path| is_match(path)),
                possible: paths.iter().any(|path| is_match(path)),
            },
            Readings::None => Match::UNKNOWN,
        }
    }
}

/// Whether a policy can name paths so: in the form that all servers read alike.
pub fn can_be_named(by: &StringMatch) -> bool {
    let path = match by {
        StringMatch::Any => return true,
        StringMatch::Exact(path) | StringMatch::Prefix(path) => path.clone(),
        StringMatch::Suffix(end) if end.starts_with('/') => end.clone(),
        StringMatch::Suffix(end) => format!("/-{end}"),
    };
    if !path.starts_with('/') || path.contains('?') {
        return false;
    }
    match Readings::of(&path) {
        Readings::One(_) => true,
        Readings::Several(readings) => readings == [path],
        Readings::None => false,
    }
}

/// The path of a target (RFC 9112, section 3.2): `/path?query`, `http://host/path?query`, or `*`.
fn path_of(target: &str) -> Option<&str> {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            rest.find(['/', '?']).map_or("", |start| &rest[start..])
        }
        _ => target,
    };
    let path = target.split('?').next().unwrap_or_default();
    match path {
        "" => Some("/"),
        "*" => Some(path),
        _ => path.starts_with('/').then_some(path),
    }
}

/// Whether nobody could read it in another way.
fn is_plain(path: &str) -> bool {
    let has_odd_byte = path.bytes().any(|b| matches!(b, b'%' | b'\\' | b';' | b'#') || b.is_ascii_control());
    !has_odd_byte && !path.contains("//") && !path.contains("/.")
}

/// Each further decoding is one that a server behind another may do; each is read with and without parameters.
fn several(path: &str) -> Option<Vec<String>> {
    if path.contains('#') {
        return None;
    }
    let mut text = decode(path, Decode::Harmless)?;
    // In which order a server undoes two of these changes what comes out; one of them alone is undone in one way.
    let odd = ['%', '\\', ';'].into_iter().filter(|odd| text.contains(*odd)).count();
    let may_climb = odd == 0 && !text.contains("//");
    if odd > 1 {
        return None;
    }
    let mut readings = Vec::new();
    for _ in 0..=ENCODED_TIMES_MAX {
        for reading in
            [text.clone(), resolve(&text, may_climb)?, resolve(&without_parameters(&text), may_climb)?]
        {
            if !readings.contains(&reading) {
                readings.push(reading);
            }
        }
        let further = decode(&text, Decode::All)?;
        if further == text {
            return Some(readings);
        }
        text = further;
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Decode {
    /// What separates nothing, wherever it stands.
    Harmless,
    All,
}

/// Decodes once (RFC 3986, section 2.1).
fn decode(path: &str, which: Decode) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = match first {
            b'%' => encoded_byte(after)?,
            byte => *byte,
        };
        let is_separator = matches!(byte, b'/' | b'\\' | b';' | b'%' | b'?' | b'#');
        if byte.is_ascii_control() {
            return None;
        }
        rest = if *first == b'%' { &after[2..] } else { after };
        if *first == b'%' && which == Decode::Harmless && is_separator {
            decoded.extend(format!("%{byte:02X}").bytes());
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

fn encoded_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// `/a;v=1/b` is `/a/b` for servers that know parameters of segments (RFC 3986, section 3.3).
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// Without dot segments and empty ones; `\` is a slash (RFC 3986, section 5.2.4).
fn resolve(path: &str, may_climb: bool) -> Option<String> {
    let slashed = path.replace('\\', "/");
    let mut kept: Vec<&str> = Vec::new();
    for segment in slashed.split('/') {
        match segment {
            "" | "." => {}
            ".." if !may_climb => return None,
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let ends_in_slash = ["/", "/.", "/.."].iter().any(|end| slashed.ends_with(end)) && !kept.is_empty();
    Some(format!("/{}{}", kept.join("/"), if ends_in_slash { "/" } else { "" }))
}

#[cfg(test)]
mod tests;
