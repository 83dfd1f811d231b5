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
    /// The Service port whose requests the rule carries.
    pub parent: &'a ServicePort,
    pub origin: &'a Origin,
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
            .and_then(|changes| header_changes(changes, &at(&origin, "filters")));
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
fn header_changes(changes: Changes, origin: &Origin) -> Result<(HeaderChange, HeaderChange), Problem> {
    if changes.redirect.is_some() || changes.filters.rewrite != Default::default() {
        let message = "a backend can change headers only, so its share is answered 500; move RequestRedirect or URLRewrite to the rule";
        return Err(Problem::new(Code::UNSUPPORTED_FILTER, origin.clone(), message));
    }
    Ok((changes.filters.request_headers, changes.filters.response_headers))
}

/// The cluster of a backend; or why it cannot be used, and a cluster that does not exist in its place.
fn cluster<F>(rule: &Rule<'_>, reference: &BackendRef<F>, origin: &Origin) -> Result<Name, (Problem, Name)> {
    let refused = |code, message: String| {
        Err((
            Problem::new(code, origin.clone(), format!("{message}; its share is answered 500")),
            nowhere(rule, reference),
        ))
    };
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Service");
    if !matches!(group, "" | "core") || kind != "Service" {
        return refused(
            Code::BACKEND_KIND_UNSUPPORTED,
            format!("a backend must be a Service, not `{kind}` of `{group}`"),
        );
    }
    let namespace = reference.namespace.as_deref().unwrap_or(rule.namespace);
    // The parent's owner has agreed to these clients already: a consumer route may lead back to it.
    if namespace != rule.namespace && namespace != rule.parent.namespace {
        return refused(
            Code::BACKEND_NOT_PERMITTED,
            format!(
                "namespace `{namespace}` permits no reference from `{}` (ReferenceGrants are not read yet)",
                rule.namespace
            ),
        );
    }
    let name = &reference.name;
    let Some(port) = reference.port.and_then(ports::number) else {
        return refused(Code::BACKEND_PORT_MISSING, format!("write the `port` of Service `{name}`"));
    };
    let cluster = ServicePort::new(namespace, name, port);
    let absent = |code, message: String| {
        let problem = Problem::new(code, origin.clone(), format!("{message}; its share is answered 500"));
        Err((problem, Name::Cluster(cluster.clone())))
    };
    let Some(service) = rule.world.service(namespace, name) else {
        return absent(
            Code::BACKEND_MISSING,
            format!("there is no Service `{name}` in namespace `{namespace}`"),
        );
    };
    if services::is_external_name(service) {
        return refused(
            Code::SERVICE_TYPE_UNSUPPORTED,
            format!("Service `{name}` is of type ExternalName, which has no endpoints"),
        );
    }
    if services::find(rule.world, &cluster).is_none() {
        return absent(Code::BACKEND_PORT_MISSING, format!("Service `{name}` has no port {port}"));
    }
    Ok(Name::Cluster(cluster))
}

/// The name of a cluster that never exists: no Service has a port 0.
fn nowhere<F>(rule: &Rule<'_>, reference: &BackendRef<F>) -> Name {
    Name::Cluster(ServicePort::new(rule.namespace, &reference.name, 0))
}
