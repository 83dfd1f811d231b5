//! Names of resources on the wire. The name alone determines the bytes: whatever differs between
//! viewers stands in the name, so an answer is computed and encoded once for all who ask.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The four kinds of resource that a proxy holds (Envoy's LDS, RDS, CDS and EDS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// LDS: `inbound/…` and `outbound/…`.
    Listener,
    /// RDS: `routes/…`.
    Routes,
    /// CDS: `cluster/…`.
    Cluster,
    /// EDS: `cluster/…`, the same name as its cluster.
    Endpoints,
}

/// The name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[allow(missing_docs)] // the forms name the fields
pub enum Name {
    /// `inbound/<namespace>/<pod>`: how a pod accepts; only that pod may ask for it.
    Inbound { namespace: String, pod: String },
    /// `outbound/<viewer namespace>/<ip>:<port>`: where a dialled address leads.
    Outbound { viewer: String, address: SocketAddr },
    /// `routes/<namespace>/<service>/<port>[/for/<viewer namespace>]`.
    Routes { service: ServicePort, viewer: Option<String> },
    /// `cluster/<namespace>/<service>/<port>`: a Service as a backend, and its endpoints.
    Cluster(ServicePort),
    /// `cluster/pod/<ip>:<port>`: one dialled pod address, and its endpoint.
    Pod(SocketAddr),
}

/// A port of a Service, by number: `<namespace>/<service>/<port>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// `port`, not `targetPort`.
    pub port: u16,
}

/// A string that is not the name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a resource name (inbound/NS/POD, outbound/NS/IP:PORT, routes/NS/SERVICE/PORT[/for/NS], cluster/NS/SERVICE/PORT or cluster/pod/IP:PORT)"
)]
pub struct NotAName(pub String);

impl Name {
    /// Whether a resource of this kind can have this name.
    pub fn is_of(&self, kind: Kind) -> bool {
        match self {
            Name::Inbound { .. } | Name::Outbound { .. } => kind == Kind::Listener,
            Name::Routes { .. } => kind == Kind::Routes,
            Name::Cluster(_) | Name::Pod(_) => matches!(kind, Kind::Cluster | Kind::Endpoints),
        }
    }

    /// The namespace that a certificate must be of to ask for this name; `None`: anybody may.
    pub fn reserved_for(&self) -> Option<&str> {
        match self {
            Name::Inbound { namespace, .. } => Some(namespace),
            Name::Outbound { viewer, .. } => Some(viewer),
            Name::Routes { viewer, .. } => viewer.as_deref(),
            Name::Cluster(_) | Name::Pod(_) => None,
        }
    }
}

impl ServicePort {
    /// The port of these parts.
    pub fn new(namespace: impl Into<String>, service: impl Into<String>, port: u16) -> ServicePort {
        ServicePort { namespace: namespace.into(), service: service.into(), port }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.service, self.port)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Inbound { namespace, pod } => write!(f, "inbound/{namespace}/{pod}"),
            Name::Outbound { viewer, address } => write!(f, "outbound/{viewer}/{address}"),
            Name::Routes { service, viewer: None } => write!(f, "routes/{service}"),
            Name::Routes { service, viewer: Some(viewer) } => write!(f, "routes/{service}/for/{viewer}"),
            Name::Cluster(service) => write!(f, "cluster/{service}"),
            Name::Pod(address) => write!(f, "cluster/pod/{address}"),
        }
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Name, NotAName> {
        parse(text).filter(|name| name.to_string() == text).ok_or_else(|| NotAName(text.to_owned()))
    }
}

/// Reads a name leniently; `from_str` then insists on the one canonical spelling (`080`, `[::0]` are refused).
fn parse(text: &str) -> Option<Name> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let service = |namespace: &str, service: &str, port: &str| {
        Some(ServicePort::new(namespace, service, port.parse().ok()?))
    };
    match parts[..] {
        ["inbound", namespace, pod] => Some(Name::Inbound { namespace: namespace.into(), pod: pod.into() }),
        ["outbound", viewer, address] => {
            Some(Name::Outbound { viewer: viewer.into(), address: address.parse().ok()? })
        }
        ["routes", ns, svc, port] => Some(Name::Routes { service: service(ns, svc, port)?, viewer: None }),
        ["routes", ns, svc, port, "for", viewer] => {
            Some(Name::Routes { service: service(ns, svc, port)?, viewer: Some(viewer.into()) })
        }
        ["cluster", "pod", address] => Some(Name::Pod(address.parse().ok()?)),
        ["cluster", ns, svc, port] => Some(Name::Cluster(service(ns, svc, port)?)),
        _ => None,
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for Name {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Name, NotAName> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_it_was_written() {
        for text in [
            "inbound/shop/web-0",
            "outbound/shop/10.96.0.12:80",
            "outbound/shop/[fd00::1]:80",
            "routes/shop/cart/80",
            "routes/shop/cart/80/for/web",
            "cluster/shop/cart/80",
            "cluster/pod/10.1.0.4:8080",
            "cluster/pod/[fd00::4]:8080",
            "cluster/pod/svc/80",
        ] {
            assert_eq!(text.parse::<Name>().map(|name| name.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn anything_else_is_refused_and_named() {
        for text in [
            "",
            "inbound/shop",
            "inbound//web",
            "cluster/shop/cart/080",
            "cluster/shop/cart/99999",
            "routes/a/b/1/for/",
            "*",
        ] {
            assert_eq!(text.parse::<Name>(), Err(NotAName(text.to_owned())));
        }
    }
}
