//! What becomes of a route at each of its parents.

use gauze_crds::gateway::ParentReference;
use gauze_crds::{GrpcRoute, HttpRoute, TlsRoute};
use gauze_model::route::{Action, RouteRule};
use gauze_model::{Code, Origin};
use k8s_openapi::api::core::v1 as core;
use serde_json::json;

use super::Patience;
use super::parents::{self, Parent};
use super::{Side, attached, backends, conflict, grpc, http, tls};
use crate::problem::Problem;
use crate::translate::{Judgement, namespace_of, services};
use crate::world::World;

pub(in crate::translate) fn judge_http(world: &World, route: &HttpRoute) -> Vec<Judgement> {
    let (namespace, origin, spec) = (namespace_of(&route.metadata), http::origin(route), &route.spec);
    judge(world, &spec.parent_refs, namespace, &origin, |parent, judgement| {
        let side = side(namespace, parent);
        let loses = |port: &&core::ServicePort| {
            !attached(world, &services::name_of_port(parent.service, port), port, side).grpc.is_empty()
        };
        if parent.ports.iter().all(loses) {
            judgement.refused = Some(conflict(route));
            return;
        }
        let mut rules = Vec::new();
        for port in &parent.ports {
            let name = services::name_of_port(parent.service, port);
            match loses(port) {
                true => judgement.problems.push(conflict(route)),
                false => rules.extend(http::rules(
                    world,
                    route,
                    &name,
                    &Patience::default(),
                    &mut judgement.problems,
                )),
            }
        }
        judgement.problems.extend(unused_hostnames(&spec.hostnames, &spec.parent_refs, &origin));
        refuse_unusable(spec.rules.as_ref().map_or(1, Vec::len), &rules, judgement);
    })
}

pub(in crate::translate) fn judge_grpc(world: &World, route: &GrpcRoute) -> Vec<Judgement> {
    let (namespace, origin, spec) = (namespace_of(&route.metadata), grpc::origin(route), &route.spec);
    judge(world, &spec.parent_refs, namespace, &origin, |parent, judgement| {
        let mut rules = Vec::new();
        for port in &parent.ports {
            let name = services::name_of_port(parent.service, port);
            let ranked = grpc::rules(world, route, &name, &Patience::default(), &mut judgement.problems);
            rules.extend(ranked.into_iter().map(|(_, rule)| rule));
        }
        judgement.problems.extend(unused_hostnames(&spec.hostnames, &spec.parent_refs, &origin));
        refuse_unusable(spec.rules.as_ref().map_or(1, Vec::len), &rules, judgement);
    })
}

pub(in crate::translate) fn judge_tls(world: &World, route: &TlsRoute) -> Vec<Judgement> {
    let (namespace, origin, spec) = (namespace_of(&route.metadata), tls::origin(route), &route.spec);
    judge(world, &spec.parent_refs, namespace, &origin, |parent, judgement| {
        let side = side(namespace, parent);
        let mut rules = Vec::new();
        for port in &parent.ports {
            let name = services::name_of_port(parent.service, port);
            let attached = attached(world, &name, port, side);
            rules.extend(tls::rules(world, &name, &attached, &mut judgement.problems));
        }
        let is_own = |other: &Origin| other.object() == origin.object();
        judgement.problems.retain(|problem| is_own(&problem.origin));
        rules.retain(|rule| is_own(&rule.origin));
        if rules.is_empty() {
            judgement.refused = judgement.problems.first().cloned();
        }
    })
}

/// Hostnames are for Gateways. A route that has no other parents than Services is told so.
fn unused_hostnames(
    hostnames: &Option<Vec<String>>,
    parents: &Option<Vec<ParentReference>>,
    origin: &Origin,
) -> Option<Problem> {
    let is_for_mesh = parents.iter().flatten().all(parents::is_service);
    let has_some = hostnames.as_ref().is_some_and(|hostnames| !hostnames.is_empty());
    (has_some && is_for_mesh).then(|| {
        let message = "a mesh routes by the address that is dialled, so `hostnames` have no effect (GEP-1294); match the header `Host` in the rules";
        Problem::new(Code::UNSUPPORTED_FIELD, origin.at("spec.hostnames"), message)
    })
}

/// A route none of whose rules can be used is not accepted (Gateway API `PartiallyInvalid`). It decides all the
/// same: what it asks for is not passed over, so its requests are answered 500, or 404 where nothing can match.
fn refuse_unusable(given: usize, rules: &[RouteRule], judgement: &mut Judgement) {
    let mut spoilt = (0..given).map(|index| {
        let path = format!("spec.rules[{index}]");
        let carries = rules.iter().any(|rule| rule.origin.path == path && carries(&rule.action));
        let mut problems = judgement.problems.iter();
        problems.find(|problem| !carries && problem.spoils_rule() && problem.origin.path.starts_with(&path))
    });
    let Some(Some(first)) = spoilt.next() else { return };
    if spoilt.all(|problem| problem.is_some()) {
        judgement.refused = Some(first.clone());
        judgement.in_force = true;
    }
}

fn carries(action: &Action) -> bool {
    match action {
        Action::Forward(backends) => {
            backends.iter().any(|backend| backend.weight > 0 && !backends::is_nowhere(&backend.cluster))
        }
        Action::Redirect(_) => true,
        Action::Respond(_) => false,
    }
}

fn judge(
    world: &World,
    references: &Option<Vec<ParentReference>>,
    namespace: &str,
    origin: &Origin,
    accepted: impl Fn(&Parent<'_>, &mut Judgement),
) -> Vec<Judgement> {
    let references = references.iter().flatten().enumerate();
    let judged = references.filter_map(|(index, reference)| {
        let origin = origin.at(format!("spec.parentRefs[{index}]"));
        let mut judgement = Judgement { reference: json!(reference), ..Judgement::default() };
        match parents::parent(world, reference, namespace, &origin)? {
            Err(problem) => judgement.refused = Some(problem),
            Ok(parent) => accepted(&parent, &mut judgement),
        }
        Some(judgement)
    });
    judged.collect()
}

fn side<'a>(namespace: &'a str, parent: &Parent<'_>) -> Side<'a> {
    match namespace == namespace_of(&parent.service.metadata) {
        true => Side::Producer,
        false => Side::Consumer(namespace),
    }
}
