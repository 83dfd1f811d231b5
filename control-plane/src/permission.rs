//! Who may open a configuration stream, and which names may be asked for on it: pure, and fails closed.

use std::time::Duration;

use gauze_model::{Code, Name, SpiffeId};
use gauze_xds::discovery::DeltaDiscoveryRequest;
use tonic::Status;

use crate::readiness::Unready;
use crate::workload::Workload;
use crate::world::World;

/// Names that one stream may be subscribed to. A destination takes four (listener, routes, cluster,
/// endpoints), and a proxy keeps at most 4,096 destinations.
pub const NAMES_MAX: usize = 4 * 4_096 + 1;

/// Why a stream is ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("configuration is given only to clients with a certificate of this mesh")]
    NoCertificate,
    #[error("the first request's node.id is `{0}`; it must be NAMESPACE/POD of the proxy's own pod")]
    NotAPod(String),
    #[error("no pod {pod} of {identity} is known")]
    NotItsPod { pod: String, identity: SpiffeId },
    #[error("the pod is gone, or has another ServiceAccount now")]
    PodGone,
    #[error("`{name}` is reserved for {reserved}; this proxy is {pod}")]
    Reserved { name: String, reserved: String, pod: String },
    #[error("a stream may be subscribed to {NAMES_MAX} names at most")]
    TooManyNames,
    #[error("the client's message cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate with which this stream was opened has expired; open another with the next one")]
    CertificateExpired,
    #[error("newer streams of the same pod have taken its place")]
    Replaced,
    #[error("the client did not take a response within {0:?}")]
    TooSlow(Duration),
    #[error("this replica of the control plane sends its proxies away: {0}")]
    GoElsewhere(Unready),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let text = refusal.to_string();
        match refusal {
            Refusal::NoCertificate => Status::unauthenticated(format!("{}: {text}", Code::POD_REFUSED)),
            Refusal::Unreadable(_) => Status::invalid_argument(text),
            Refusal::NotAPod(_) => Status::invalid_argument(format!("{}: {text}", Code::POD_REFUSED)),
            Refusal::NotItsPod { .. } | Refusal::PodGone => {
                Status::permission_denied(format!("{}: {text}", Code::POD_REFUSED))
            }
            Refusal::Reserved { .. } => Status::permission_denied(format!("{}: {text}", Code::NAME_RESERVED)),
            Refusal::TooManyNames => Status::resource_exhausted(text),
            Refusal::Replaced => Status::aborted(text),
            Refusal::TooSlow(_) => Status::deadline_exceeded(text),
            Refusal::CertificateExpired => Status::unavailable(text),
            Refusal::GoElsewhere(_) => Status::unavailable(text),
        }
    }
}

/// The pod behind a new stream: the one that the client claims to be, if the world knows it under
/// namespace and ServiceAccount of the client's certificate.
///
/// # Errors
/// It is not.
pub fn admit(world: &World, node_id: &str, identity: &SpiffeId) -> Result<Workload, Refusal> {
    let (namespace, pod) = node_id
        .split_once('/')
        .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty() && !pod.contains('/'))
        .ok_or_else(|| Refusal::NotAPod(node_id.chars().take(300).collect()))?;
    let known = Workload::find(world, namespace, pod);
    let own = known.filter(|workload| workload.identity(&identity.trust_domain) == *identity);
    own.ok_or_else(|| Refusal::NotItsPod { pod: pod.to_owned(), identity: identity.clone() })
}

/// Whether `workload` may ask for all names of `request`, having asked for `subscribed` already.
/// Names that are none are left to the protocol, which answers that they do not exist.
///
/// # Errors
/// A name is reserved for others, or there are too many.
pub fn permit(
    request: &DeltaDiscoveryRequest,
    workload: &Workload,
    subscribed: usize,
) -> Result<(), Refusal> {
    let named = request.resource_names_subscribe.len() + request.resource_locators_subscribe.len();
    let given_up = request.resource_names_unsubscribe.len() + request.resource_locators_unsubscribe.len();
    if subscribed + named > NAMES_MAX
        || given_up > NAMES_MAX
        || request.initial_resource_versions.len() > NAMES_MAX
    {
        return Err(Refusal::TooManyNames);
    }
    // Both fields subscribe.
    let locators = request.resource_locators_subscribe.iter().map(|locator| &locator.name);
    for text in request.resource_names_subscribe.iter().chain(locators) {
        if let Ok(name) = text.parse::<Name>() {
            permit_name(&name, workload)?;
        }
    }
    Ok(())
}

fn permit_name(name: &Name, workload: &Workload) -> Result<(), Refusal> {
    let reserved = match name {
        Name::Inbound { namespace, pod } if (namespace, pod) != (&workload.namespace, &workload.pod) => {
            format!("pod {namespace}/{pod}")
        }
        _ => match name.reserved_for() {
            Some(namespace) if namespace != workload.namespace => format!("namespace {namespace}"),
            Some(_) | None => return Ok(()),
        },
    };
    let pod = format!("{}/{}", workload.namespace, workload.pod);
    Err(Refusal::Reserved { name: name.to_string(), reserved, pod })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{MeshSettings, Object};
    use gauze_xds::discovery::ResourceLocator;
    use serde_json::json;
    use std::sync::Arc;

    fn world() -> World {
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "web-0"},
            "spec": {"serviceAccountName": "web", "containers": []}
        });
        World::of(MeshSettings::default(), [Object::Pod(Arc::new(serde_json::from_value(pod).unwrap()))])
    }

    fn web() -> Workload {
        Workload::find(&world(), "shop", "web-0").unwrap()
    }

    fn asks(names: &[&str]) -> DeltaDiscoveryRequest {
        let resource_names_subscribe = names.iter().map(|name| (*name).to_owned()).collect();
        DeltaDiscoveryRequest { resource_names_subscribe, ..DeltaDiscoveryRequest::default() }
    }

    #[test]
    fn a_stream_belongs_to_the_pod_of_its_certificate() {
        let web = SpiffeId::new("cluster.local", "shop", "web");
        for (what, node_id, identity, expected) in [
            ("its own pod", "shop/web-0", web.clone(), true),
            ("a pod that nobody knows", "shop/web-1", web.clone(), false),
            ("another ServiceAccount", "shop/web-0", SpiffeId::new("cluster.local", "shop", "cart"), false),
            ("another namespace", "shop/web-0", SpiffeId::new("cluster.local", "bank", "web"), false),
            ("no pod", "web-0", web.clone(), false),
            ("nothing", "", web.clone(), false),
            ("a path", "shop/web-0/x", web.clone(), false),
            ("half a pod", "/web-0", web, false),
        ] {
            assert_eq!(admit(&world(), node_id, &identity).is_ok(), expected, "{what}");
        }
    }

    #[test]
    fn names_are_asked_for_by_those_for_whom_they_are() {
        for (name, expected) in [
            ("inbound/shop/web-0", true),
            ("inbound/shop/cart-0", false),
            ("inbound/bank/web-0", false),
            ("outbound/shop/10.96.0.1:80", true),
            ("outbound/bank/10.96.0.1:80", false),
            ("routes/bank/vault/80", true),
            ("routes/bank/vault/80/for/shop", true),
            ("routes/bank/vault/80/for/bank", false),
            ("cluster/bank/vault/80", true),
            ("cluster/pod/10.1.0.4:8080", true),
            ("no name at all", true),
        ] {
            assert_eq!(permit(&asks(&[name]), &web(), 0).is_ok(), expected, "{name}");
            let locator = ResourceLocator { name: name.to_owned(), ..ResourceLocator::default() };
            let by_locator =
                DeltaDiscoveryRequest { resource_locators_subscribe: vec![locator], ..Default::default() };
            assert_eq!(permit(&by_locator, &web(), 0).is_ok(), expected, "{name}, as a locator");
        }
    }

    #[test]
    fn one_name_too_many_ends_the_stream() {
        let one = asks(&["cluster/shop/cart/80"]);
        assert_eq!(permit(&one, &web(), NAMES_MAX - 1), Ok(()));
        assert_eq!(permit(&one, &web(), NAMES_MAX), Err(Refusal::TooManyNames));
    }
}
