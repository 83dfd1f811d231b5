//! Which rules the requests of a Service port meet: `routes/<ns>/<service>/<port>[/for/<viewer ns>]`.

use gauze_model::Name;
use gauze_model::listener::WeightedCluster;
use gauze_model::name::ServicePort;
use gauze_model::route::{
    Action, Backend, Filters, HeaderChange, HostPattern, RouteMatch, RouteRule, RouteTable, VirtualHost,
};

use super::{services, splits};
use crate::problem::Problem;
use crate::world::World;

pub(super) fn routes(
    world: &World,
    name: &ServicePort,
    viewer: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Option<RouteTable> {
    let (service, index, port) = services::find(world, name)?;
    if viewer.is_some_and(|viewer| !has_consumer_routes(world, name, viewer)) {
        return None;
    }
    let origin = services::port_origin(service, index);
    let rule = match splits::shares(world, service, port, problems) {
        Some(split) => forward(split.origin, split.shares),
        None => {
            forward(origin.clone(), vec![WeightedCluster { cluster: Name::Cluster(name.clone()), weight: 1 }])
        }
    };
    Some(RouteTable::from_hosts(
        origin,
        vec![VirtualHost { domains: vec![HostPattern::Any], rules: vec![rule] }],
    ))
}

/// Whether routes of the viewer's own namespace are attached to a Service of another one.
pub(super) fn has_consumer_routes(world: &World, name: &ServicePort, viewer: &str) -> bool {
    let _ = (world, name, viewer);
    false
}

/// A rule that carries every request.
fn forward(origin: gauze_model::Origin, shares: Vec<WeightedCluster>) -> RouteRule {
    let backends = shares.into_iter().map(|share| Backend {
        cluster: share.cluster,
        weight: share.weight,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    });
    RouteRule {
        origin,
        matches: RouteMatch::default(),
        filters: Filters::default(),
        action: Action::Forward(backends.collect()),
    }
}
