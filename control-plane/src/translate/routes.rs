//! Which rules the requests of a Service port meet: `routes/<ns>/<service>/<port>[/for/<viewer ns>]`.
//!
//! A Gateway API route decides alone; without one a TrafficSplit; without either the Service's own
//! endpoints. Routes in the Service's namespace (producer) are for all clients; routes in another
//! namespace (consumer) are for the clients there, in place of the producer's (GEP-1294).

mod backends; // what a rule sends to
mod filters; // what a rule changes
mod grpc; // GRPCRoute
mod headers; // which headers a filter changes
mod http; // HTTPRoute
mod judge; // what becomes of a route at each of its parents
pub(super) mod matches; // which requests a rule is for
mod parents; // which Service ports a route is for
mod targets; // where a rewrite or a redirect leads
pub(super) mod tls; // TLSRoute

use std::sync::Arc;

use ::http::StatusCode;
use gauze_crds::{GrpcRoute, HttpRoute, TlsRoute, TrafficPolicy};
use gauze_model::listener::WeightedCluster;
use gauze_model::name::ServicePort;
use gauze_model::route::{
    Action, Backend, Filters, HeaderChange, HostPattern, RouteMatch, RouteRule, RouteTable, VirtualHost,
    precedence,
};
use gauze_model::{Code, Name, Origin};
use k8s_openapi::api::core::v1 as core;

use super::retries::Patience;
use super::splits::Shares;
use super::{age, namespace_of, policies, ports, services, splits};
use crate::problem::Problem;
use crate::world::World;

pub(super) use judge::{judge_grpc, judge_http, judge_tls};

/// Whose routes: the Service's owner's, or those of the clients in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side<'a> {
    Producer,
    Consumer(&'a str),
}

/// The routes that are attached to a Service port on one side; of each kind, the oldest first.
#[derive(Default)]
pub(super) struct Attached<'w> {
    pub grpc: Vec<&'w Arc<GrpcRoute>>,
    pub http: Vec<&'w Arc<HttpRoute>>,
    pub tls: Vec<&'w Arc<TlsRoute>>,
}

pub(super) fn routes(
    world: &World,
    name: &ServicePort,
    viewer: Option<&str>,
    shaped_by: &mut Vec<Origin>,
    problems: &mut Vec<Problem>,
) -> Option<RouteTable> {
    let (service, index, port) = services::find(world, name)?;
    let side = viewer.map_or(Side::Producer, Side::Consumer);
    let attached = attached(world, name, port, side);
    if !attached.sees_requests() && side != Side::Producer {
        return None;
    }
    let origin = services::port_origin(service, index);
    let policy = policies::holding(world, service, port);
    shaped_by.extend(policy.filter(|policy| shapes(policy)).map(|policy| policies::origin(policy)));
    let patience = Patience::of_policy(policy.map(|policy| &**policy));
    let rules = if attached.sees_requests() {
        attached.rules(world, name, &patience, problems)
    } else if attached.is_empty()
        && let Some(split) = splits::shares(world, service, port, problems)
    {
        let mut rules = of_split(split, own(name), &patience);
        rules.sort_by_cached_key(|rule| precedence(&rule.matches));
        rules
    } else {
        vec![forward(origin.clone(), RouteMatch::default(), own(name), &patience)]
    };
    // GEP-1294: a mesh routes by the address that was dialled, whatever host the request names.
    let any = VirtualHost { domains: vec![HostPattern::Any], rules };
    Some(RouteTable::from_hosts(origin, vec![any]))
}

/// Whether a policy says something of routes; the rest of it is about clusters.
fn shapes(policy: &TrafficPolicy) -> bool {
    policy.spec.retry.is_some() || policy.spec.timeouts.is_some()
}

/// The routes of one side at a Service port.
pub(super) fn attached<'w>(
    world: &'w World,
    name: &ServicePort,
    port: &core::ServicePort,
    side: Side<'_>,
) -> Attached<'w> {
    let is_on_side = |namespace: &str| match side {
        Side::Producer => namespace == name.namespace,
        Side::Consumer(viewer) => namespace == viewer && viewer != name.namespace,
    };
    let attaches = |namespace: &str, parents: &Option<Vec<_>>| {
        is_on_side(namespace)
            && parents.iter().flatten().any(|parent| parents::is_port(parent, namespace, name, port))
    };
    let grpc = world.grpc_routes_of(&name.namespace, &name.service);
    let http = world.http_routes_of(&name.namespace, &name.service);
    let tls = world.tls_routes_of(&name.namespace, &name.service);
    let mut attached = Attached {
        grpc: grpc.filter(|route| attaches(namespace_of(&route.metadata), &route.spec.parent_refs)).collect(),
        http: http.filter(|route| attaches(namespace_of(&route.metadata), &route.spec.parent_refs)).collect(),
        tls: tls.filter(|route| attaches(namespace_of(&route.metadata), &route.spec.parent_refs)).collect(),
    };
    attached.grpc.sort_by_key(|route| age(&route.metadata));
    attached.http.sort_by_key(|route| age(&route.metadata));
    attached.tls.sort_by_key(|route| age(&route.metadata));
    attached
}

impl Attached<'_> {
    /// Without routes of any kind a TrafficSplit decides.
    pub(super) fn is_empty(&self) -> bool {
        !self.sees_requests() && self.tls.is_empty()
    }

    /// Whether there are routes for requests, beside which a TLSRoute does not count.
    pub(super) fn sees_requests(&self) -> bool {
        !self.grpc.is_empty() || !self.http.is_empty()
    }

    /// All rules in order of precedence; among equals those of the older route, then of the first by name, then the
    /// first in it. Where there are GRPCRoutes, HTTPRoutes do not count (GEP-1294).
    fn rules(
        &self,
        world: &World,
        name: &ServicePort,
        patience: &Patience,
        problems: &mut Vec<Problem>,
    ) -> Vec<RouteRule> {
        match self.grpc.is_empty() {
            true => {
                let rules = self.http.iter();
                let rules = rules.flat_map(|route| http::rules(world, route, name, patience, problems));
                let mut rules: Vec<_> = rules.collect();
                rules.sort_by_cached_key(|rule| precedence(&rule.matches));
                rules
            }
            false => {
                problems.extend(self.http.iter().map(|route| conflict(route)));
                let rules = self.grpc.iter();
                let rules = rules.flat_map(|route| grpc::rules(world, route, name, patience, problems));
                let mut rules: Vec<_> = rules.collect();
                rules.sort_by_key(|(rank, _)| *rank);
                rules.into_iter().map(|(_, rule)| rule).collect()
            }
        }
    }
}

fn conflict(route: &HttpRoute) -> Problem {
    Problem::new(
        Code::CONFLICT,
        http::origin(route),
        "a GRPCRoute is attached to the same Service port and decides alone there; remove one of them, or attach it to another port",
    )
}

/// Everything to the Service itself.
fn own(name: &ServicePort) -> Vec<WeightedCluster> {
    vec![WeightedCluster { cluster: Name::Cluster(name.clone()), weight: 1 }]
}

/// The requests that a split is for go by its shares, all others to the root itself.
fn of_split(split: Shares, own: Vec<WeightedCluster>, patience: &Patience) -> Vec<RouteRule> {
    let Shares { origin, shares, requests } = split;
    let Some(requests) = requests else {
        return vec![forward(origin, RouteMatch::default(), shares, patience)];
    };
    let rest = forward(origin.at("spec.service"), RouteMatch::default(), own, patience);
    let shared =
        requests.into_iter().map(|(origin, matches)| forward(origin, matches, shares.clone(), patience));
    // The rest comes last: it is what a match without conditions comes to as well.
    shared.chain([rest]).collect()
}

/// A rule that carries these requests by these shares.
fn forward(
    origin: Origin,
    matches: RouteMatch,
    shares: Vec<WeightedCluster>,
    patience: &Patience,
) -> RouteRule {
    let backends = shares.into_iter().map(|share| Backend {
        cluster: share.cluster,
        weight: share.weight,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    });
    RouteRule {
        origin,
        matches,
        filters: Filters::default(),
        action: Action::Forward(backends.collect()),
        retry: patience.retry.clone(),
        timeouts: patience.timeouts.clone(),
    }
}

/// A rule without a backend that may receive anything is answered 500 (Gateway API `backendRefs`).
fn action(origin: &Origin, backends: Vec<Backend>, problems: &mut Vec<Problem>) -> Action {
    if backends.iter().any(|backend| backend.weight > 0) {
        return Action::Forward(backends);
    }
    let (code, message) = match backends.is_empty() {
        true => {
            (Code::NO_BACKEND_NAMED, "the rule names no backend, so its requests are answered 500; name one")
        }
        false => (Code::WEIGHTS_ALL_ZERO, "all weights are 0, so the requests are answered 500; raise one"),
    };
    problems.push(Problem::new(code, matches::at(origin, "backendRefs"), message));
    Action::Respond(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A route has no effect on a port whose requests cannot be seen.
fn unseen(world: &World, name: &ServicePort, origin: &Origin) -> Option<Problem> {
    let (service, _, port) = services::find(world, name)?;
    ports::of_service(world, service, port).is_opaque().then(|| {
        let message = format!(
            "port {} of Service `{}` is declared opaque, so its requests are not seen and the route has no effect there; declare `appProtocol: http`, `kubernetes.io/h2c` or `grpc`",
            name.port, name.service
        );
        Problem::new(Code::PROTOCOL_CONFLICT, origin.clone(), message)
    })
}
