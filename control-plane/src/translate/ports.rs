//! What a port is declared to speak. A declared port never waits for first bytes.

use gauze_model::listener::PortProtocol;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{annotation, namespace_of, pods};
use crate::world::World;

pub(super) const OPAQUE_PORTS_ANNOTATION: &str = "gauze.dev/opaque-ports";

/// Ports where the server usually speaks first, opaque if nothing else is declared (Linkerd's list):
/// SMTP, submission, MySQL, Galera, PostgreSQL, Redis, ElasticSearch, Memcached.
const DEFAULT_OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// Whether the port carries TCP, which is all that gauze carries.
pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP"))
}

/// The number of a port, where Kubernetes allows none other than 1 to 65535.
pub(super) fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// What a port of a Service speaks: `appProtocol`, the annotation, the port's name, the default list; in this order.
pub(super) fn of_service(world: &World, service: &Service, port: &ServicePort) -> PortProtocol {
    let number = number(port.port).unwrap_or_default();
    let target = match &port.target_port {
        Some(IntOrString::Int(target)) => self::number(*target).unwrap_or(number),
        Some(IntOrString::String(_)) | None => number,
    };
    let namespace = world.namespace(namespace_of(&service.metadata)).map(|namespace| &namespace.metadata);
    let opaque = annotation(&service.metadata, OPAQUE_PORTS_ANNOTATION)
        .or_else(|| annotation(namespace?, OPAQUE_PORTS_ANNOTATION))
        .is_some_and(|ports| pods::lists(ports, number));
    if let Some(protocol) = port.app_protocol.as_deref().and_then(by_word) {
        return protocol;
    }
    if opaque {
        return PortProtocol::Opaque;
    }
    let prefix = port.name.as_deref().and_then(|name| name.split('-').next());
    prefix.and_then(by_word).unwrap_or_else(|| by_number([number, target]))
}

/// What a port speaks of which only the number is known.
pub(super) fn by_number<const N: usize>(ports: [u16; N]) -> PortProtocol {
    match ports.iter().any(|port| DEFAULT_OPAQUE_PORTS.contains(port)) {
        true => PortProtocol::Opaque,
        false => PortProtocol::Detect,
    }
}

/// The words of `appProtocol` (KEP-3726, Istio) and of port names (Istio), without regard to case.
fn by_word(word: &str) -> Option<PortProtocol> {
    match word.to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => Some(PortProtocol::Http),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some(PortProtocol::Http2),
        "grpc" => Some(PortProtocol::Grpc),
        "https" | "tls" | "kubernetes.io/wss" => Some(PortProtocol::Tls),
        "tcp" | "mongo" | "mysql" | "postgres" | "postgresql" | "redis" | "smtp" => {
            Some(PortProtocol::Opaque)
        }
        _ => None,
    }
}

/// Several declarations of one port: where they disagree, nothing is declared.
pub(super) fn agree(protocols: impl IntoIterator<Item = PortProtocol>) -> Option<PortProtocol> {
    let mut protocols = protocols.into_iter();
    let first = protocols.next()?;
    Some(if protocols.all(|protocol| protocol == first) { first } else { PortProtocol::Detect })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::MeshSettings;

    #[test]
    fn a_port_speaks_what_the_first_declaration_says() {
        for (name, app_protocol, port, annotation, expected) in [
            ("", None, 80, "", PortProtocol::Detect),
            ("http", None, 80, "", PortProtocol::Http),
            ("http-admin", None, 80, "", PortProtocol::Http),
            ("httpadmin", None, 80, "", PortProtocol::Detect),
            ("grpc-web", None, 80, "", PortProtocol::Grpc),
            ("web", Some("kubernetes.io/h2c"), 80, "", PortProtocol::Http2),
            ("tcp", Some("HTTP"), 80, "", PortProtocol::Http),
            ("web", Some("example.com/own"), 3306, "", PortProtocol::Opaque),
            ("https", None, 443, "", PortProtocol::Tls),
            ("", None, 5432, "", PortProtocol::Opaque),
            ("http", None, 5432, "", PortProtocol::Http),
            ("http", None, 80, "80", PortProtocol::Opaque),
            ("http", None, 80, "1-79", PortProtocol::Http),
        ] {
            let mut service = Service::default();
            service.metadata.annotations =
                Some([(OPAQUE_PORTS_ANNOTATION.to_owned(), annotation.to_owned())].into());
            let declared = ServicePort {
                name: Some(name.to_owned()),
                app_protocol: app_protocol.map(str::to_owned),
                port,
                ..ServicePort::default()
            };
            let world = World::new(MeshSettings::default());
            assert_eq!(of_service(&world, &service, &declared), expected, "{name} {app_protocol:?} {port}");
        }
    }

    #[test]
    fn declarations_that_disagree_declare_nothing() {
        use PortProtocol::{Detect, Grpc, Http};
        assert_eq!(agree([]), None);
        assert_eq!(agree([Http]), Some(Http));
        assert_eq!(agree([Http, Http]), Some(Http));
        assert_eq!(agree([Http, Grpc]), Some(Detect));
    }
}
