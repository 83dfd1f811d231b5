//! What a rule sends to. A backend that cannot be used keeps its share, which is answered 500 (Gateway
//! API): its cluster is one that does not exist.

use gauze_crds::gateway::BackendRef;
use gauze_model::name::ServicePort;
use gauze_model::route::{Backend, HeaderChange};
use gauze_model::{Code, Name, Origin};

use super::filters::Changes;
use super::matches::{at, item};
use crate::problem::Problem;
use crate::translate::{ports, services};
use crate::world::World;

/// A rule in its surroundings.
pub(super) struct Rule<'a> {
    pub world: &'a World,
    /// Of the route.
    pub namespace: &'a str,
    pub origin: &'a Origin,
    /// What becomes of the share of a backend that cannot be used.
    pub unusable: &'static str,
}

/// The backends of a rule.
pub(super) fn backends<F>(
    rule: &Rule<'_>,
    given: &[BackendRef<F>],
    filters: impl Fn(&[F], &Origin) -> Result<Changes, Problem>,
    problems: &mut Vec<Problem>,
) -> Vec<Backend> {
    let list = at(rule.origin, "backendRefs");
    let mut backends = Vec::new();
    for (index, reference) in given.iter().enumerate() {
        let origin = item(&list, index);
        let changes = filters(reference.filters.as_deref().unwrap_or_default(), &at(&origin, "filters"))
            .and_then(|changes| header_changes(changes, &at(&origin, "filters"), problems));
        let cluster = cluster(rule, reference, &origin);
        let ((request_headers, response_headers), cluster) = match (changes, cluster) {
            (Ok(changes), Ok(cluster)) => (changes, cluster),
            (Ok(changes), Err((problem, cluster))) => {
                problems.push(problem);
                (changes, cluster)
            }
            (Err(problem), _) => {
                problems.push(problem);
                (Default::default(), nowhere(rule, reference))
            }
        };
        let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or(0);
        backends.push(Backend { cluster, weight, request_headers, response_headers });
    }
    backends
}

/// A backend changes headers only.
fn header_changes(
    changes: Changes,
    origin: &Origin,
    notes: &mut Vec<Problem>,
) -> Result<(HeaderChange, HeaderChange), Problem> {
    notes.extend(changes.notes);
    if changes.redirect.is_some() || changes.filters.rewrite != Default::default() {
        let message = "a backend can change headers only, so its share is answered 500; move RequestRedirect or URLRewrite to the rule";
        return Err(Problem::new(Code::UNSUPPORTED_FILTER, origin.clone(), message));
    }
    Ok((changes.filters.request_headers, changes.filters.response_headers))
}

/// The cluster of a backend; or why it cannot be used, and a cluster that does not exist in its place.
fn cluster<F>(rule: &Rule<'_>, reference: &BackendRef<F>, origin: &Origin) -> Result<Name, (Problem, Name)> {
    let problem = |(code, message): (Code, String)| {
        Problem::new(code, origin.clone(), format!("{message}; its share is {}", rule.unusable))
    };
    let port = service_port(rule, reference).map_err(|why| (problem(why), nowhere(rule, reference)))?;
    match missing(rule.world, &port) {
        None => Ok(Name::Cluster(port)),
        Some(why) => Err((problem(why), Name::Cluster(port))),
    }
}

/// The Service port that a backend means, or why it means none. Of any namespace, without a ReferenceGrant: clients of a
/// mesh can dial every Service themselves, and are judged there by who they are (docs/decisions/007).
fn service_port<F>(rule: &Rule<'_>, reference: &BackendRef<F>) -> Result<ServicePort, (Code, String)> {
    let BackendRef { name, group, kind, .. } = reference;
    let (group, kind) = (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Service"));
    if !matches!(group, "" | "core") || kind != "Service" {
        let message = format!("a backend must be a Service, not `{kind}` of `{group}`");
        return Err((Code::BACKEND_KIND_UNSUPPORTED, message));
    }
    let namespace = reference.namespace.as_deref().unwrap_or(rule.namespace);
    if rule.world.service(namespace, name).is_some_and(|service| services::is_external_name(service)) {
        let message = format!("Service `{name}` is of type ExternalName, which has no endpoints");
        return Err((Code::SERVICE_TYPE_UNSUPPORTED, message));
    }
    match reference.port.and_then(ports::number) {
        Some(port) => Ok(ServicePort::new(namespace, name, port)),
        None => Err((Code::BACKEND_PORT_MISSING, format!("write the `port` of Service `{name}`"))),
    }
}

/// What there is not, of a backend that may be used.
fn missing(world: &World, port: &ServicePort) -> Option<(Code, String)> {
    let ServicePort { namespace, service, port: number } = port;
    if world.service(namespace, service).is_none() {
        let message = format!("there is no Service `{service}` in namespace `{namespace}`");
        return Some((Code::BACKEND_MISSING, message));
    }
    let absent = services::find(world, port).is_none();
    absent.then(|| (Code::BACKEND_PORT_MISSING, format!("Service `{service}` has no port {number}")))
}

/// Whether it is the cluster of a backend that means no Service port.
pub(super) fn is_nowhere(cluster: &Name) -> bool {
    matches!(cluster, Name::Cluster(port) if port.port == 0)
}

/// The name of a cluster that never exists: no Service has a port 0.
fn nowhere<F>(rule: &Rule<'_>, reference: &BackendRef<F>) -> Name {
    Name::Cluster(ServicePort::new(rule.namespace, &reference.name, 0))
}
