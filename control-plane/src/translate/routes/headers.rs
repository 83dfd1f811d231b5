//! Which headers a filter changes.

use ::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use ::http::{HeaderName, HeaderValue};
use gauze_crds::gateway::{Header, HeaderFilter};
use gauze_model::route::HeaderChange;
use gauze_model::{Code, Origin};

use super::matches::{at, invalid, item};
use crate::problem::Problem;

/// What the two ends of a connection say to each other of it (RFC 9110, 7.6.1) and of where a message ends.
const OF_A_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Begins the headers in which proxies speak to each other.
const OURS: &str = "gauze-";

/// # Errors
/// The first header that cannot be changed so.
pub(super) fn header_change(
    given: &HeaderFilter,
    origin: &Origin,
    notes: &mut Vec<Problem>,
) -> Result<HeaderChange, Problem> {
    let remove = given.remove.iter().flatten().enumerate();
    let remove = remove.map(|(index, name)| header_name(name, &item(&at(origin, "remove"), index)));
    let change = HeaderChange {
        set: pairs(given.set.as_deref().unwrap_or_default(), &at(origin, "set"))?,
        add: pairs(given.add.as_deref().unwrap_or_default(), &at(origin, "add"))?,
        remove: remove.collect::<Result<_, _>>()?,
    };
    notes.extend(repeated(&change).map(|name| {
        let message = format!("`{name}` is changed more than once; write one action for each header");
        Problem::new(Code::HEADER_CHANGED_TWICE, origin.clone(), message)
    }));
    Ok(settled(change))
}

/// The names that have more than one action, each once.
fn repeated(change: &HeaderChange) -> impl Iterator<Item = &HeaderName> {
    let pairs = change.set.iter().chain(&change.add).map(|(name, _)| name);
    let mut names: Vec<_> = pairs.chain(&change.remove).collect();
    names.sort_by_key(|name| name.as_str());
    let mut repeated: Vec<_> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    repeated.dedup();
    repeated.into_iter()
}

/// Several actions for one name, as others read them: of one list the first counts (Gateway API `HTTPHeader.name`);
/// what is removed is so before anything is set or added (Envoy).
fn settled(change: HeaderChange) -> HeaderChange {
    let HeaderChange { set, add, mut remove } = change;
    let (mut set, add) = (first_of_each(set), first_of_each(add));
    let is_set =
        |set: &[(HeaderName, HeaderValue)], name: &HeaderName| set.iter().any(|(set, _)| set == name);
    let (to_nothing, add): (Vec<_>, Vec<_>) =
        add.into_iter().partition(|(name, _)| remove.contains(name) && !is_set(&set, name));
    set.extend(to_nothing);
    remove.retain(|name| !is_set(&set, name));
    HeaderChange { set, add, remove }
}

fn first_of_each(pairs: Vec<(HeaderName, HeaderValue)>) -> Vec<(HeaderName, HeaderValue)> {
    let mut first: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in pairs {
        if first.iter().all(|(known, _)| *known != name) {
            first.push((name, value));
        }
    }
    first
}

fn pairs(given: &[Header], origin: &Origin) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let pairs = given.iter().enumerate().map(|(index, header)| {
        let origin = item(origin, index);
        let name = header_name(&header.name, &at(&origin, "name"))?;
        let value = HeaderValue::from_str(&header.value).map_err(|_| {
            invalid(&at(&origin, "value"), "the value holds characters that a header cannot".to_owned())
        })?;
        Ok((name, value))
    });
    pairs.collect()
}

fn header_name(name: &str, origin: &Origin) -> Result<HeaderName, Problem> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| invalid(origin, format!("`{name}` is not a header name")))?;
    if parsed == HOST {
        let message = "the host is not changed as a header; write a filter `URLRewrite` with `hostname`";
        return Err(invalid(origin, message.to_owned()));
    }
    if OF_A_CONNECTION.contains(&parsed) || parsed.as_str().starts_with(OURS) {
        let message =
            format!("`{parsed}` is between the two ends of a connection; remove it from the filter");
        return Err(invalid(origin, message));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(set: &[&str], add: &[&str], remove: &[&str]) -> (Vec<String>, Vec<String>) {
        let headers = |names: &[&str], value: &str| {
            let header =
                |(at, name): (usize, &&str)| Header { name: (*name).into(), value: format!("{value}{at}") };
            Some(names.iter().enumerate().map(header).collect())
        };
        let remove = Some(remove.iter().map(|name| (*name).to_owned()).collect());
        let given = HeaderFilter { set: headers(set, "s"), add: headers(add, "a"), remove };
        let mut notes = Vec::new();
        let HeaderChange { set, add, remove } =
            header_change(&given, &Origin::default(), &mut notes).expect("headers that can be changed");
        let line = |sign: &'static str| {
            move |(name, value): (HeaderName, HeaderValue)| {
                format!("{name}{sign}{}", value.to_str().unwrap_or_default())
            }
        };
        let lines = set.into_iter().map(line("=")).chain(add.into_iter().map(line("+")));
        let lines = lines.chain(remove.into_iter().map(|name| format!("-{name}")));
        (lines.collect(), notes.into_iter().map(|note| note.message).collect())
    }

    #[test]
    fn several_actions_for_one_header_come_to_one_and_are_told() {
        let told = vec!["`x` is changed more than once; write one action for each header".to_owned()];
        for (what, [set, add, remove], expected) in [
            ("of what is set twice the first counts", [&["x", "X"][..], &[], &[]], vec!["x=s0"]),
            ("of what is added twice the first counts", [&[], &["X", "x"], &[]], vec!["x+a0"]),
            ("what is set is added to", [&["x"], &["x"], &[]], vec!["x=s0", "x+a0"]),
            ("what is removed is removed before it is set", [&["x"], &[], &["X"]], vec!["x=s0"]),
            ("added to nothing is set", [&[], &["x"], &["x"]], vec!["x=a0"]),
            ("removed twice is removed", [&[], &[], &["x", "x"]], vec!["-x", "-x"]),
            ("all three", [&["x"], &["x"], &["x"]], vec!["x=s0", "x+a0"]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(changed(set, add, remove), (expected, told.clone()), "{what}");
        }
        let apart = ["a=s0", "b+a0", "-c"].map(str::to_owned).to_vec();
        assert_eq!(changed(&["a"], &["b"], &["c"]), (apart, Vec::new()));
    }

    #[test]
    fn what_belongs_to_a_connection_is_not_changed() {
        for name in
            ["Host", "connection", "Transfer-Encoding", "content-length", "te", "gauze-peer", "no name"]
        {
            let given = HeaderFilter { remove: Some(vec![name.to_owned()]), ..HeaderFilter::default() };
            let refused = header_change(&given, &Origin::default(), &mut Vec::new());
            assert_eq!(refused.map_err(|problem| problem.code), Err(Code::INVALID_VALUE), "{name}");
        }
    }
}
