//! SMI TrafficSplits: who gets how much of a Service's traffic.

mod groups; // which requests a split is for

use std::sync::Arc;

use gauze_crds::traffic_split::Weight;
use gauze_crds::{HttpRouteGroup, TrafficSplit};
use gauze_model::listener::WeightedCluster;
use gauze_model::route::RouteMatch;
use gauze_model::{Code, Name, Origin};
use k8s_openapi::api::core::v1::{self as core, Service};

use super::routes::{self, Side};
use super::{Judgement, age, name_of, namespace_of, ports, services};
use crate::problem::Problem;
use crate::world::{self, ObjectKind, World};

/// A split as it stands at one port of its root.
pub(super) struct Shares {
    pub origin: Origin,
    /// Not empty, and not all of weight 0.
    pub shares: Vec<WeightedCluster>,
    /// The requests that are shared out, each with its place in the split; all others are the root's own. `None`: every request.
    pub requests: Option<Vec<(Origin, RouteMatch)>>,
}

/// What becomes of a split.
pub(super) fn judge(world: &World, split: &TrafficSplit) -> Judgement {
    let origin = origin(split);
    let root = match root(world, split) {
        Ok(root) => root,
        Err(problem) => return Judgement { refused: Some(problem), ..Judgement::default() },
    };
    let mut judgement = Judgement::default();
    let (routed_ports, split_ports): (Vec<_>, Vec<_>) =
        services::tcp_ports(root).map(|(_, port)| port).partition(|port| {
            let name = services::name_of_port(root, port);
            !routes::attached(world, &name, port, Side::Producer).is_empty()
        });
    for port in &split_ports {
        shares(world, root, port, &mut judgement.problems);
    }
    if !routed_ports.is_empty() {
        let message = format!(
            "an HTTPRoute, GRPCRoute or TLSRoute decides at port {} of Service `{}`; move the weights into its `backendRefs`, or remove it",
            routed_ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", "),
            name_of(&root.metadata)
        );
        let problem = Problem::new(Code::OVERRIDDEN, origin.at("spec.service"), message);
        match split_ports.is_empty() {
            true => judgement.overridden = Some(problem),
            false => judgement.problems.push(problem),
        }
    }
    judgement
}

/// The Service that a split is for, or why the split has no effect.
fn root<'w>(world: &'w World, split: &TrafficSplit) -> Result<&'w Arc<Service>, Problem> {
    let namespace = namespace_of(&split.metadata);
    let origin = origin(split);
    let problem = |code, path, message: String| Err(Problem::new(code, origin.at(path), message));
    let host = &split.spec.service;
    let service = service_name(host, namespace).and_then(|name| world.service(namespace, name));
    let Some(service) = service else {
        let message = format!(
            "there is no Service `{host}` in namespace `{namespace}`; correct the name, or create the Service"
        );
        return problem(Code::PARENT_MISSING, "spec.service", message);
    };
    if let Some((code, message)) = services::not_dialled(service) {
        return problem(code, "spec.service", message);
    }
    match holding(world, service) {
        Some(holder) if holder.metadata == split.metadata => Ok(service),
        holder => {
            let other = holder.map(|holder| name_of(&holder.metadata)).unwrap_or_default();
            let message = format!(
                "TrafficSplit `{other}` is older and splits Service `{host}` already; remove one of the two"
            );
            problem(Code::CONFLICT, "spec.service", message)
        }
    }
}

fn origin(split: &TrafficSplit) -> Origin {
    world::origin(ObjectKind::TrafficSplit, &split.metadata)
}

/// The shares of the split that holds at this port of a Service, if there is one.
pub(super) fn shares(
    world: &World,
    root: &Service,
    port: &core::ServicePort,
    problems: &mut Vec<Problem>,
) -> Option<Shares> {
    let split = holding(world, root)?;
    let origin = origin(split).at("spec.backends");
    let mut usable = Vec::new();
    // A backend without a share may be anything, also nothing yet.
    let sharing =
        split.spec.backends.iter().enumerate().filter(|(_, backend)| backend.weight > Weight::default());
    for (index, backend) in sharing {
        match backend_cluster(world, split, &backend.service, port) {
            Ok(cluster) => usable.push((cluster, backend.weight)),
            Err((code, message)) => {
                let message = format!("{message}; its share goes to the others until then");
                problems.push(Problem::new(code, origin.at(format!("spec.backends[{index}]")), message));
            }
        }
    }
    if usable.is_empty() {
        let message = format!(
            "no backend with a weight above 0 can be used, so requests go to the endpoints of `{}` itself; give a backend that has endpoints a weight",
            split.spec.service
        );
        problems.push(Problem::new(Code::WEIGHTS_ALL_ZERO, origin.clone(), message));
        usable.push((Name::Cluster(services::name_of_port(root, port)), Weight::whole(1)));
    }
    let requests = groups::requests(world, split, &origin, problems);
    if requests.is_some() && ports::of_service(world, root, port).is_opaque() {
        problems.push(unseen(root, port, &origin));
    }
    Some(Shares { origin, shares: scale(usable), requests })
}

/// Which requests match cannot be told where none are seen.
fn unseen(root: &Service, port: &core::ServicePort, origin: &Origin) -> Problem {
    let message = format!(
        "port {0} of Service `{1}` is declared opaque, so its requests are not seen, match nothing and go to `{1}` itself; declare `appProtocol: http`, `kubernetes.io/h2c` or `grpc`, or remove `matches`",
        port.port,
        name_of(&root.metadata)
    );
    Problem::new(Code::PROTOCOL_CONFLICT, origin.at("spec.matches"), message)
}

/// What is wrong with a group of requests, which has no status of its own.
pub(super) fn check_group(group: &HttpRouteGroup, problems: &mut Vec<Problem>) {
    groups::matches_of(group, problems);
}

/// The oldest split of this root that is accepted.
fn holding<'w>(world: &'w World, root: &Service) -> Option<&'w Arc<TrafficSplit>> {
    let (namespace, name) = (namespace_of(&root.metadata), name_of(&root.metadata));
    let splits = world.splits_of(namespace, name).filter(|split| {
        service_name(&split.spec.service, namespace) == Some(name)
            && namespace_of(&split.metadata) == namespace
    });
    splits.min_by_key(|split| age(&split.metadata)).filter(|_| services::not_dialled(root).is_none())
}

/// `cart`, `cart.shop`, `cart.shop.svc` or `cart.shop.svc.cluster.local`, in the split's own namespace.
fn service_name<'a>(host: &'a str, namespace: &str) -> Option<&'a str> {
    let Some((name, rest)) = host.split_once('.') else { return Some(host) };
    let rest = rest.strip_prefix(namespace)?;
    (rest.is_empty() || rest == ".svc" || rest.starts_with(".svc.")).then_some(name)
}

/// The backend at the port of the same number as the root's (SMI), or what it lacks to take its share.
fn backend_cluster(
    world: &World,
    split: &TrafficSplit,
    host: &str,
    port: &core::ServicePort,
) -> Result<Name, (Code, String)> {
    let namespace = namespace_of(&split.metadata);
    let Some(backend) = service_name(host, namespace) else {
        let message = format!("`{host}` must be a Service in namespace `{namespace}`");
        return Err((Code::BACKEND_NOT_PERMITTED, message));
    };
    let Some(service) = world.service(namespace, backend) else {
        let message = format!("namespace `{namespace}` has no Service `{backend}`");
        return Err((Code::BACKEND_MISSING, message));
    };
    let name = services::name_of_port(service, port);
    let Some((_, _, declared)) = services::find(world, &name) else {
        return Err((Code::BACKEND_PORT_MISSING, format!("Service `{backend}` has no port {}", port.port)));
    };
    if services::endpoints(world, service, declared, &mut Vec::new()).is_empty() {
        return Err((Code::NO_ENDPOINTS, format!("Service `{backend}` has no endpoint that can be used")));
    }
    Ok(Name::Cluster(name))
}

/// Largest sum of weights on the wire; far finer than anybody splits.
const SUM_MAX: u64 = 1_000_000;

/// Weights as whole numbers, as the user wrote them wherever that is possible.
fn scale(backends: Vec<(Name, Weight)>) -> Vec<WeightedCluster> {
    let whole = backends.iter().all(|(_, weight)| weight.thousandths.is_multiple_of(1000));
    let unit = if whole { 1000 } else { 1 };
    let sum: u64 = backends.iter().map(|(_, weight)| weight.thousandths / unit).sum();
    let shrink = |weight: u64| match sum > SUM_MAX {
        true => (u128::from(weight) * u128::from(SUM_MAX) / u128::from(sum)).max(1) as u64,
        false => weight,
    };
    let shares = backends.into_iter().map(|(cluster, weight)| WeightedCluster {
        cluster,
        weight: shrink(weight.thousandths / unit) as u32,
    });
    shares.collect()
}
