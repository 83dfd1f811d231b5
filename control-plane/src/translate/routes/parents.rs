//! Which Service ports a route is for.

use std::sync::Arc;

use gauze_crds::gateway::{GROUP, ParentReference};
use gauze_model::name::ServicePort;
use gauze_model::{Code, Origin};
use k8s_openapi::api::core::v1::{self as core, Service};

use crate::problem::Problem;
use crate::translate::services;
use crate::world::World;

/// A Service that a route is attached to, and those of its ports that the reference selects.
pub(super) struct Parent<'w> {
    pub service: &'w Arc<Service>,
    pub ports: Vec<&'w core::ServicePort>,
}

/// Whether a reference of a route in `namespace` selects this Service port.
pub(super) fn is_port(
    reference: &ParentReference,
    namespace: &str,
    name: &ServicePort,
    port: &core::ServicePort,
) -> bool {
    is_service(reference)
        && reference.name == name.service
        && reference.namespace.as_deref().unwrap_or(namespace) == name.namespace
        && selects(reference, port)
}

/// Both spellings of the core group are in use (gateway-api#2309).
pub(super) fn is_service(reference: &ParentReference) -> bool {
    matches!(reference.group.as_deref(), Some("" | "core")) && reference.kind.as_deref() == Some("Service")
}

/// By number, by name (`sectionName`), by both, or every port.
fn selects(reference: &ParentReference, port: &core::ServicePort) -> bool {
    reference.port.is_none_or(|number| number == port.port)
        && reference.section_name.as_ref().is_none_or(|name| port.name.as_ref() == Some(name))
}

/// What a reference is attached to, or why to nothing; `None` if it is another controller's.
pub(super) fn parent<'w>(
    world: &'w World,
    reference: &ParentReference,
    namespace: &str,
    origin: &Origin,
) -> Option<Result<Parent<'w>, Problem>> {
    if !is_service(reference) {
        // A Gateway is another controller's; a Service without group is nobody's, and its author should know.
        let group = reference.group.as_deref().unwrap_or(GROUP);
        let meant = reference.kind.as_deref() == Some("Service") && group == GROUP;
        return meant.then(|| {
            let message = "a Service is of the core group; write `group: \"\"` (left out, it means gateway.networking.k8s.io)";
            Err(Problem::new(Code::PARENT_KIND_UNSUPPORTED, origin.clone(), message))
        });
    }
    Some(attach(world, reference, reference.namespace.as_deref().unwrap_or(namespace), origin))
}

fn attach<'w>(
    world: &'w World,
    reference: &ParentReference,
    namespace: &str,
    origin: &Origin,
) -> Result<Parent<'w>, Problem> {
    let name = &reference.name;
    let problem = |code, message| Err(Problem::new(code, origin.clone(), message));
    let Some(service) = world.service(namespace, name) else {
        return problem(
            Code::PARENT_MISSING,
            format!(
                "there is no Service `{name}` in namespace `{namespace}`; correct the name, or create the Service"
            ),
        );
    };
    if let Some((code, message)) = services::not_dialled(service) {
        return problem(code, message);
    }
    let ports: Vec<_> =
        services::tcp_ports(service).map(|(_, port)| port).filter(|port| selects(reference, port)).collect();
    if ports.is_empty() {
        let has: Vec<String> = services::tcp_ports(service).map(|(_, port)| port.port.to_string()).collect();
        return problem(
            Code::PARENT_PORT_MISSING,
            format!("Service `{name}` has no such port; it has {}", has.join(", ")),
        );
    }
    Ok(Parent { service, ports })
}
