//! Where a connection goes: what a pod accepts, and where a dialled address leads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::authorization::Policy;
use crate::identity::SpiffeId;
use crate::name::Name;
use crate::origin::Origin;
use crate::server_name::TlsRule;

/// A listener resource (`inbound/…` or `outbound/…`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// `inbound/…`.
    Inbound(Inbound),
    /// `outbound/…`.
    Outbound(Outbound),
}

/// How one pod accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// The Pod.
    pub origin: Origin,
    /// Who this pod is; its certificate says the same.
    pub identity: SpiffeId,
    /// The pod's own addresses: the only ones that inbound accepts for.
    pub addresses: Vec<IpAddr>,
    /// Who may come in without mesh TLS, unless `ports` says otherwise.
    pub mtls: Mtls,
    /// Ports of the pod that are declared, or that differ from the default.
    pub ports: BTreeMap<u16, InboundPort>,
    /// Addresses inside these networks are asked for; all others are outside the mesh and pass at once.
    pub mesh_networks: Vec<IpNet>,
    /// The AuthorizationPolicies that select the pod, by namespace and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
}

impl Inbound {
    /// How a port of this pod accepts connections, declared or not.
    pub fn port(&self, port: u16) -> InboundPort {
        let undeclared = InboundPort { protocol: PortProtocol::Detect, mtls: self.mtls };
        self.ports.get(&port).copied().unwrap_or(undeclared)
    }
}

/// What is known of one port of a pod (the Service's `targetPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundPort {
    /// What it is declared to speak.
    pub protocol: PortProtocol,
    /// Who may come in without mesh TLS.
    pub mtls: Mtls,
}

/// Whether a connection must be mesh TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    /// Mesh TLS and plaintext are both let in.
    #[default]
    Permissive,
    /// Only mesh TLS is let in.
    Strict,
}

/// What a port is declared to speak (`appProtocol`, the port's name, or the list of opaque ports).
/// A declared port never waits for first bytes to find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// Nothing is declared: look at the first bytes.
    #[default]
    Detect,
    /// HTTP/1.1 or HTTP/2, told apart by the first bytes; never opaque.
    Http,
    /// HTTP/2 (`kubernetes.io/h2c`).
    Http2,
    /// gRPC: HTTP/2 whose refusals carry a gRPC status.
    Grpc,
    /// The app's own TLS, passed through.
    Tls,
    /// Opaque TCP.
    Opaque,
}

impl PortProtocol {
    /// Whether requests on this port can be routed as HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, PortProtocol::Http | PortProtocol::Http2 | PortProtocol::Grpc)
    }

    /// Whether a connection on this port may be the app's own TLS, and is looked at where its server name decides.
    pub fn may_be_tls(self) -> bool {
        matches!(self, PortProtocol::Detect | PortProtocol::Tls)
    }

    /// Whether bytes on this port are carried as they are, without a look at them.
    pub fn is_opaque(self) -> bool {
        matches!(self, PortProtocol::Tls | PortProtocol::Opaque)
    }
}

/// Where a dialled address leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    /// The Service port or Pod behind the address.
    pub origin: Origin,
    /// What it is declared to speak.
    pub protocol: PortProtocol,
    /// Where its HTTP requests go.
    pub http: HttpTarget,
    /// Where its TLS connections go, by the server name that they ask for. Empty: as all opaque ones. Else they go by
    /// these rules alone. Of no account where the port is declared to speak something else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<TlsRule>,
    /// Where its opaque connections go.
    pub tcp: Vec<WeightedCluster>,
}

/// Where requests of a dialled address go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpTarget {
    /// A Service: through its route table.
    Routes(Name),
    /// A pod address: straight to it, never through a Service's routes or splits.
    Cluster(Name),
}

/// One share of opaque connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedCluster {
    /// Where they go.
    pub cluster: Name,
    /// Relative to the others; 0 gets none.
    pub weight: u32,
}
