//! GRPCRoute: its rules as they stand at one Service port.

use std::cmp::Reverse;

use ::http::StatusCode;
use gauze_crds::GrpcRoute;
use gauze_crds::grpc_route::{GrpcRouteMatch, GrpcRouteRule};
use gauze_model::name::ServicePort;
use gauze_model::route::{Action, Filters, RouteMatch, RouteRule};
use gauze_model::{Code, Origin};

use super::backends::{self, Rule};
use super::filters;
use super::matches::{self, at, item};
use crate::problem::Problem;
use crate::translate::namespace_of;
use crate::translate::retries::Patience;
use crate::world::{self, ObjectKind, World};

pub(super) fn origin(route: &GrpcRoute) -> Origin {
    world::origin(ObjectKind::GrpcRoute, &route.metadata)
}

/// What takes precedence comes first: the longest name of a service, then of a method, then the most headers
/// (Gateway API `GRPCRouteRule.matches`). Regular expressions, whose rank is ours to say, come behind names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(Reverse<[usize; 5]>);

impl Rank {
    fn of(given: &GrpcRouteMatch) -> Rank {
        let method = given.method.clone().unwrap_or_default();
        let length = |name: Option<String>| name.map_or(0, |name| name.len());
        let (service, headers) = (length(method.service), given.headers.as_ref().map_or(0, Vec::len));
        let is_pattern = method.match_type.as_deref() == Some("RegularExpression");
        Rank(Reverse(match (is_pattern, length(method.method)) {
            (false, method) => [service, method, 0, 0, headers],
            (true, method) => [0, 0, service, method, headers],
        }))
    }
}

/// All rules of a route, one for each match, in the order in which they stand.
pub(super) fn rules(
    world: &World,
    route: &GrpcRoute,
    parent: &ServicePort,
    patience: &Patience,
    problems: &mut Vec<Problem>,
) -> Vec<(Rank, RouteRule)> {
    let route_origin = origin(route);
    problems.extend(super::unseen(world, parent, &route_origin));
    let default = vec![GrpcRouteRule::default()];
    let mut rules = Vec::new();
    for (index, given) in route.spec.rules.as_ref().unwrap_or(&default).iter().enumerate() {
        let origin = route_origin.at(format!("spec.rules[{index}]"));
        if given.session_persistence.is_some() {
            let message =
                "`sessionPersistence` is not supported yet and has no effect; the rest of the rule has";
            problems.push(Problem::new(Code::UNSUPPORTED_FIELD, at(&origin, "sessionPersistence"), message));
        }
        let rule = Rule {
            world,
            namespace: namespace_of(&route.metadata),
            origin: &origin,
            unusable: "answered 500",
        };
        let (filters, action) = read_action(&rule, given, problems);
        let rule = |matches| RouteRule {
            origin: origin.clone(),
            matches,
            filters: filters.clone(),
            action: action.clone(),
            retry: patience.retry.clone(),
            timeouts: patience.timeouts.clone(),
        };
        let matches = read_matches(given, &origin, problems).into_iter();
        rules.extend(matches.map(|(rank, matches)| (rank, rule(matches))));
    }
    rules
}

/// A match that cannot be understood matches nothing.
fn read_matches(
    given: &GrpcRouteRule,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) -> Vec<(Rank, RouteMatch)> {
    let Some(given) = given.matches.as_ref().filter(|matches| !matches.is_empty()) else {
        return vec![(Rank::default(), RouteMatch::default())];
    };
    let list = at(origin, "matches");
    let matches = given.iter().enumerate().filter_map(|(index, given)| {
        let read =
            matches::grpc(given, &item(&list, index)).map_err(|problem| problems.push(problem)).ok()?;
        Some((Rank::of(given), read))
    });
    matches.collect()
}

fn read_action(rule: &Rule<'_>, given: &GrpcRouteRule, problems: &mut Vec<Problem>) -> (Filters, Action) {
    let filters = given.filters.as_deref().unwrap_or_default();
    match filters::grpc(filters, &at(rule.origin, "filters")) {
        Ok(changes) => {
            problems.extend(changes.notes);
            let backends = given.backend_refs.as_deref().unwrap_or_default();
            let backends = backends::backends(rule, backends, filters::grpc, problems);
            (changes.filters, super::action(rule.origin, backends, problems))
        }
        Err(problem) => {
            problems.push(problem);
            (Filters::default(), Action::Respond(StatusCode::INTERNAL_SERVER_ERROR))
        }
    }
}
