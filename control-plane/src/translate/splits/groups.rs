//! Which requests a split with `matches` is for: those of its HTTPRouteGroups. All groups are one list: one match
//! demands all that it names, and any match will do. What cannot be understood matches nothing, so that its requests
//! go where they would go without the split.

use ::http::{HeaderName, Method};
use gauze_crds::http_route_group::{HeaderPatterns, HttpMatch};
use gauze_crds::traffic_split::SplitMatch;
use gauze_crds::{HttpRouteGroup, TrafficSplit};
use gauze_model::route::{HeaderMatch, PathMatch, Pattern, RouteMatch, ValueMatch};
use gauze_model::{Code, Origin};

use crate::problem::Problem;
use crate::translate::namespace_of;
use crate::translate::routes::matches::{at, invalid, pattern};
use crate::world::{self, ObjectKind, World};

/// Rules that the matches of one split may come to; each method of a match is one.
const RULES_MAX: usize = 1_024;

/// The matches of a split, each with the place in the split that it comes from; `None`: it is for all requests.
pub(super) fn requests(
    world: &World,
    split: &TrafficSplit,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) -> Option<Vec<(Origin, RouteMatch)>> {
    let named = split.spec.matches.as_ref().filter(|named| !named.is_empty())?;
    let mut found = Vec::new();
    for (index, reference) in named.iter().enumerate() {
        let origin = origin.at(format!("spec.matches[{index}]"));
        match group(world, namespace_of(&split.metadata), reference) {
            Err((code, message)) => {
                let message = format!("{message}; until then no request belongs to it");
                problems.push(Problem::new(code, origin, message));
            }
            Ok(group) => {
                let mut faults = Vec::new();
                found.extend(matches_of(group, &mut faults).into_iter().map(|rule| (origin.clone(), rule)));
                problems.extend(faults.into_iter().map(|fault| told_at(&origin, &fault)));
            }
        }
    }
    if found.len() > RULES_MAX {
        let message = format!(
            "its groups come to {} rules (each method of a match is one), of which the first {RULES_MAX} count; split fewer requests",
            found.len()
        );
        problems.push(invalid(&origin.at("spec.matches"), message));
        found.truncate(RULES_MAX);
    }
    Some(found)
}

/// What is wrong with a group, as the status of a split says it: the group has none.
fn told_at(origin: &Origin, fault: &Problem) -> Problem {
    let Origin { name, path, .. } = &fault.origin;
    Problem::new(fault.code, origin.clone(), format!("HTTPRouteGroup `{name}` {path}: {}", fault.message))
}

fn group<'w>(
    world: &'w World,
    namespace: &str,
    reference: &SplitMatch,
) -> Result<&'w HttpRouteGroup, (Code, String)> {
    let SplitMatch { api_group, kind, name } = reference;
    let is_ours = api_group.as_deref().is_none_or(|group| group == "specs.smi-spec.io");
    if kind != "HTTPRouteGroup" || !is_ours {
        let group = api_group.as_deref().map_or_else(String::new, |group| format!(" of `{group}`"));
        let message = format!("`{kind}`{group} says nothing of requests; write `kind: HTTPRouteGroup`");
        return Err((Code::MATCH_KIND_UNSUPPORTED, message));
    }
    world.route_group(namespace, name).map(|group| &**group).ok_or_else(|| {
        let message = format!(
            "namespace `{namespace}` has no HTTPRouteGroup `{name}`; correct the name, or create the group"
        );
        (Code::MATCH_GROUP_MISSING, message)
    })
}

/// The matches of a group, with what is wrong with the group itself.
pub(super) fn matches_of(group: &HttpRouteGroup, problems: &mut Vec<Problem>) -> Vec<RouteMatch> {
    let origin = world::origin(ObjectKind::HttpRouteGroup, &group.metadata);
    let mut rules = Vec::new();
    let mut is_empty = true;
    for (path, given) in group.matches() {
        is_empty = false;
        match rules_of(given, &origin.at(path)) {
            Ok(more) => rules.extend(more),
            Err(problem) => problems.push(problem),
        }
    }
    if is_empty {
        let message = "the group has no match, so no request belongs to it; write at least one";
        problems.push(Problem::new(Code::MISSING_FIELD, origin.at("spec.matches"), message));
    }
    rules
}

/// One match as rules need it, once for each of its methods.
fn rules_of(given: &HttpMatch, origin: &Origin) -> Result<Vec<RouteMatch>, Problem> {
    let path = match given.path_regex.as_deref() {
        // The specification's own ways to say: any path.
        None | Some(".*" | "/" | "/.*") => PathMatch::default(),
        Some(text) => PathMatch::Regex(beginning(text, &at(origin, "pathRegex"))?),
    };
    let headers = headers(given.headers.as_ref(), &at(origin, "headers"))?;
    let methods = methods(&given.methods, &at(origin, "methods"))?;
    let rule =
        |method| RouteMatch { path: path.clone(), method, headers: headers.clone(), query: Vec::new() };
    Ok(methods.into_iter().map(rule).collect())
}

/// `pathRegex` is anchored at the start and not at the end (SMI Traffic Specs).
fn beginning(text: &str, origin: &Origin) -> Result<Pattern, Problem> {
    // Alone first: `a)(b` must not become valid by what is put around it, and problems name what the user wrote.
    pattern(text, origin)?;
    pattern(&format!("(?:{text}).*"), origin)
}

/// Each header that is named must be there; in a list, two items may name the same.
fn headers(given: Option<&HeaderPatterns>, origin: &Origin) -> Result<Vec<HeaderMatch>, Problem> {
    let each = given.into_iter().flat_map(HeaderPatterns::iter);
    each.map(|(path, name, text)| {
        let origin = origin.at(format!("{}{path}", origin.path));
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid(&origin, format!("`{name}` is not a header name")))?;
        Ok(HeaderMatch { name, value: ValueMatch::Regex(pattern(text, &origin)?) })
    })
    .collect()
}

/// The methods; `None` is any.
fn methods(given: &[String], origin: &Origin) -> Result<Vec<Option<Method>>, Problem> {
    if given.is_empty() || given.iter().any(|method| method == "*") {
        return Ok(vec![None]);
    }
    let read = |(index, text): (usize, &String)| {
        let method = Method::from_bytes(text.as_bytes()).ok();
        // Methods are case-sensitive: nobody sends `get`.
        method.filter(|_| *text == text.to_ascii_uppercase()).map(Some).ok_or_else(|| {
            let origin = origin.at(format!("{}[{index}]", origin.path));
            invalid(&origin, format!("`{text}` is no method; write one in capitals, for example GET, or `*`"))
        })
    };
    given.iter().enumerate().map(read).collect()
}
