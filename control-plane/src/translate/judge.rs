//! What is wrong with an object, at each of its parents: what its status will say.

use serde_json::Value;

use super::{authorization, policies, routes, splits};
use crate::problem::Problem;
use crate::world::{Object, World};

/// What becomes of an object at one parent (or target, or root).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judgement {
    /// The `parentRef` or `targetRef`, exactly as the user wrote it; null where there is just one parent.
    pub reference: Value,
    /// Why the object has no effect there.
    pub refused: Option<Problem>,
    /// Whether it is in force all the same: an AuthorizationPolicy that cannot be read is closed, not gone.
    pub in_force: bool,
    /// What decides there in its place.
    pub overridden: Option<Problem>,
    /// What else is wrong; the rest of the object has its effect.
    pub problems: Vec<Problem>,
}

/// What becomes of an object; nothing for kinds without a meaning of their own, and for what is another controller's.
pub(crate) fn judge(world: &World, object: &Object) -> Vec<Judgement> {
    let mut judged = match object {
        Object::HttpRoute(route) => routes::judge_http(world, route),
        Object::GrpcRoute(route) => routes::judge_grpc(world, route),
        Object::TlsRoute(route) => routes::judge_tls(world, route),
        Object::TrafficSplit(split) => vec![splits::judge(world, split)],
        Object::TrafficPolicy(policy) => policies::judge(world, policy),
        Object::AuthorizationPolicy(policy) => authorization::judge(world, policy),
        Object::Namespace(_)
        | Object::ServiceAccount(_)
        | Object::Pod(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::HttpRouteGroup(_) => Vec::new(),
    };
    for judgement in &mut judged {
        without_repetition(&mut judgement.problems);
    }
    judged
}

/// The same thing is found at each port.
fn without_repetition(problems: &mut Vec<Problem>) {
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let known = seen.contains(problem);
        if !known {
            seen.push(problem.clone());
        }
        !known
    });
}
