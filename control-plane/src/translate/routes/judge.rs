//! What becomes of a route at each of its parents.

use gauze_crds::gateway::ParentReference;
use gauze_crds::{GrpcRoute, HttpRoute};
use gauze_model::Origin;
use k8s_openapi::api::core::v1 as core;
use serde_json::json;

use super::Patience;
use super::parents::{self, Parent};
use super::{Side, attached, conflict, grpc, http};
use crate::translate::{Judgement, namespace_of, services};
use crate::world::World;

pub(in crate::translate) fn judge_http(world: &World, route: &HttpRoute) -> Vec<Judgement> {
    let (namespace, origin) = (namespace_of(&route.metadata), http::origin(route));
    judge(world, &route.spec.parent_refs, namespace, &origin, |parent, judgement| {
        let side = side(namespace, parent);
        let loses = |port: &&core::ServicePort| {
            !attached(world, &services::name_of_port(parent.service, port), port, side).grpc.is_empty()
        };
        if parent.ports.iter().all(loses) {
            judgement.refused = Some(conflict(route));
            return;
        }
        for port in &parent.ports {
            match loses(port) {
                true => judgement.problems.push(conflict(route)),
                false => drop(http::rules(
                    world,
                    route,
                    &services::name_of_port(parent.service, port),
                    &Patience::default(), // has no part in problems
                    &mut judgement.problems,
                )),
            }
        }
    })
}

pub(in crate::translate) fn judge_grpc(world: &World, route: &GrpcRoute) -> Vec<Judgement> {
    let (namespace, origin) = (namespace_of(&route.metadata), grpc::origin(route));
    judge(world, &route.spec.parent_refs, namespace, &origin, |parent, judgement| {
        for port in &parent.ports {
            let name = services::name_of_port(parent.service, port);
            grpc::rules(world, route, &name, &Patience::default(), &mut judgement.problems);
        }
    })
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
