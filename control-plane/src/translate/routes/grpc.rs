//! GRPCRoute: its rules as they stand at one Service port.

use ::http::StatusCode;
use gauze_crds::GrpcRoute;
use gauze_crds::grpc_route::GrpcRouteRule;
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

/// All rules of a route, one for each match, in the order in which they stand.
pub(super) fn rules(
    world: &World,
    route: &GrpcRoute,
    parent: &ServicePort,
    patience: &Patience,
    problems: &mut Vec<Problem>,
) -> Vec<RouteRule> {
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
        let rule = Rule { world, namespace: namespace_of(&route.metadata), parent, origin: &origin };
        let (filters, action) = read_action(&rule, given, problems);
        rules.extend(read_matches(given, &origin, problems).into_iter().map(|matches| RouteRule {
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
fn read_matches(given: &GrpcRouteRule, origin: &Origin, problems: &mut Vec<Problem>) -> Vec<RouteMatch> {
    let Some(given) = given.matches.as_ref().filter(|matches| !matches.is_empty()) else {
        return vec![RouteMatch::default()];
    };
    let list = at(origin, "matches");
    let matches = given.iter().enumerate().filter_map(|(index, given)| {
        matches::grpc(given, &item(&list, index)).map_err(|problem| problems.push(problem)).ok()
    });
    matches.collect()
}

fn read_action(rule: &Rule<'_>, given: &GrpcRouteRule, problems: &mut Vec<Problem>) -> (Filters, Action) {
    let filters = given.filters.as_deref().unwrap_or_default();
    match filters::grpc(filters, &at(rule.origin, "filters")) {
        Ok(changes) => {
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
