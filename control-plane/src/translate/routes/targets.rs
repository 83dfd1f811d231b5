//! Where a rewrite or a redirect leads.

use ::http::uri::PathAndQuery;
use gauze_crds::http_route::HttpPathModifier;
use gauze_model::Origin;
use gauze_model::route::PathChange;

use super::filters::missing;
use super::matches::{at, invalid};
use crate::problem::Problem;

/// # Errors
/// It is no host name (Gateway API `PreciseHostname`: no wildcard, no port).
pub(super) fn host_name(given: &str, origin: &Origin) -> Result<String, Problem> {
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    match given.len() <= 253 && given.split('.').all(is_label) {
        true => Ok(given.to_owned()),
        false => Err(invalid(origin, format!("`{given}` is not a host; write a name like `shop.example`"))),
    }
}

/// # Errors
/// The field that its type asks for is missing, or holds no path.
pub(super) fn path_change(given: &HttpPathModifier, origin: &Origin) -> Result<PathChange, Problem> {
    let path = |given: &Option<String>, field: &str| {
        let path = given.as_deref().ok_or_else(|| missing(origin, field))?;
        path_of(path, &at(origin, field))
    };
    match given.modifier_type.as_str() {
        "ReplaceFullPath" => path(&given.replace_full_path, "replaceFullPath").map(PathChange::ReplaceFull),
        "ReplacePrefixMatch" => {
            path(&given.replace_prefix_match, "replacePrefixMatch").map(PathChange::ReplacePrefix)
        }
        other => Err(invalid(
            &at(origin, "type"),
            format!("`{other}` is not known here; write ReplaceFullPath or ReplacePrefixMatch"),
        )),
    }
}

/// A path without query; empty means the root.
fn path_of(given: &str, origin: &Origin) -> Result<String, Problem> {
    let is_path = !given.contains(['?', '#']) && PathAndQuery::try_from(format!("/{given}")).is_ok();
    match is_path {
        true => Ok(given.to_owned()),
        false => {
            Err(invalid(origin, format!("`{given}` is not a path; the request's query is kept by itself")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_hosts() {
        for (given, expected) in [
            ("shop.example", true),
            ("cart", true),
            ("10.0.0.1", true),
            ("Shop.Example", true),
            ("", false),
            ("*.example", false),
            ("shop.example:80", false),
            ("shop..example", false),
            ("-shop", false),
            ("user@shop", false),
            ("a b", false),
        ] {
            assert_eq!(host_name(given, &Origin::default()).is_ok(), expected, "{given}");
        }
    }

    #[test]
    fn only_paths_are_paths() {
        for (given, expected) in
            [("/new", true), ("", true), ("new", true), ("/a?b=c", false), ("/a#b", false), ("/a b", false)]
        {
            assert_eq!(path_of(given, &Origin::default()).is_ok(), expected, "{given}");
        }
    }
}
