//! HTTPRoute: its rules as they stand at one Service port.

use ::http::StatusCode;
use gauze_crds::HttpRoute;
use gauze_crds::http_route::HttpRouteRule;
use gauze_model::name::ServicePort;
use gauze_model::route::{Action, Filters, PathChange, PathMatch, RouteMatch, RouteRule};
use gauze_model::{Code, Origin};

use super::backends::{self, Rule};
use super::filters::{self, Changes};
use super::matches::{self, at, item};
use crate::problem::Problem;
use crate::translate::namespace_of;
use crate::translate::retries::Patience;
use crate::world::{self, ObjectKind, World};

pub(super) fn origin(route: &HttpRoute) -> Origin {
    world::origin(ObjectKind::HttpRoute, &route.metadata)
}

/// All rules of a route, one for each match, in the order in which they stand.
pub(super) fn rules(
    world: &World,
    route: &HttpRoute,
    parent: &ServicePort,
    patience: &Patience,
    problems: &mut Vec<Problem>,
) -> Vec<RouteRule> {
    let route_origin = origin(route);
    problems.extend(super::unseen(world, parent, &route_origin));
    // Left out, there is one rule that matches everything (Gateway API `HTTPRouteSpec.rules`).
    let default = vec![HttpRouteRule::default()];
    let mut rules = Vec::new();
    for (index, given) in route.spec.rules.as_ref().unwrap_or(&default).iter().enumerate() {
        let origin = route_origin.at(format!("spec.rules[{index}]"));
        report_unsupported(given, &origin, problems);
        let matches = read_matches(given, &origin, problems);
        let rule = Rule {
            world,
            namespace: namespace_of(&route.metadata),
            origin: &origin,
            unusable: "answered 500",
        };
        let (filters, action) = read_action(&rule, given, &matches, problems);
        let patience = patience.clone().of_rule(given, &origin, problems);
        rules.extend(matches.into_iter().map(|matches| RouteRule {
            origin: origin.clone(),
            matches,
            filters: filters.clone(),
            action: action.clone(),
            retry: patience.retry.clone(),
            timeouts: patience.timeouts.clone(),
        }));
    }
    rules
}

/// A match that cannot be understood matches nothing.
fn read_matches(given: &HttpRouteRule, origin: &Origin, problems: &mut Vec<Problem>) -> Vec<RouteMatch> {
    let Some(given) = given.matches.as_ref().filter(|matches| !matches.is_empty()) else {
        return vec![RouteMatch::default()];
    };
    let list = at(origin, "matches");
    let matches = given.iter().enumerate().filter_map(|(index, given)| {
        matches::http(given, &item(&list, index)).map_err(|problem| problems.push(problem)).ok()
    });
    matches.collect()
}

fn read_action(
    rule: &Rule<'_>,
    given: &HttpRouteRule,
    matches: &[RouteMatch],
    problems: &mut Vec<Problem>,
) -> (Filters, Action) {
    let error = (Filters::default(), Action::Respond(StatusCode::INTERNAL_SERVER_ERROR));
    let list = at(rule.origin, "filters");
    let changes = filters::http(given.filters.as_deref().unwrap_or_default(), &list)
        .and_then(|changes| check_prefix(changes, matches, &list));
    let Changes { filters, redirect, notes } = match changes {
        Ok(changes) => changes,
        Err(problem) => {
            problems.push(problem);
            return error;
        }
    };
    problems.extend(notes);
    let backends = given.backend_refs.as_deref().unwrap_or_default();
    if let Some(redirect) = redirect {
        if !backends.is_empty() {
            let message = "a redirect sends nothing to backends; remove `backendRefs`, or the filter";
            problems.push(filters::incompatible(&at(rule.origin, "backendRefs"), message));
        }
        return (filters, Action::Redirect(redirect));
    }
    let backends = backends::backends(rule, backends, filters::http, problems);
    match super::action(rule.origin, backends, problems) {
        Action::Respond(_) => error,
        action => (filters, action),
    }
}

/// A prefix can be replaced only where a prefix matched (Gateway API `ReplacePrefixMatch`).
fn check_prefix(changes: Changes, matches: &[RouteMatch], origin: &Origin) -> Result<Changes, Problem> {
    let redirected = changes.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    let replaces = [redirected, changes.filters.rewrite.path.as_ref()]
        .into_iter()
        .flatten()
        .any(|change| matches!(change, PathChange::ReplacePrefix(_)));
    let all_prefixes = matches.iter().all(|matches| matches!(matches.path, PathMatch::Prefix(_)));
    match replaces && !all_prefixes {
        false => Ok(changes),
        true => Err(filters::incompatible(
            origin,
            "ReplacePrefixMatch needs a match of type PathPrefix; use it in every match of the rule, or write ReplaceFullPath",
        )),
    }
}

/// What upstream has and gauze has not yet: without effect, but not in silence.
fn report_unsupported(given: &HttpRouteRule, origin: &Origin, problems: &mut Vec<Problem>) {
    for (field, present) in [("sessionPersistence", given.session_persistence.is_some())] {
        if present {
            let message =
                format!("`{field}` is not supported yet and has no effect; the rest of the rule has");
            problems.push(Problem::new(Code::UNSUPPORTED_FIELD, at(origin, field), message));
        }
    }
}
