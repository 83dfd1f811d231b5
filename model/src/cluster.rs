//! A backend: how it is balanced and limited, and its endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::RetryBudget;
use crate::identity::SpiffeId;
use crate::listener::PortProtocol;
use crate::origin::Origin;
use crate::outlier::OutlierDetection;

/// A Service port (or one pod address) as a backend, without its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The Service (or Pod); the path names the port.
    pub origin: Origin,
    /// The TrafficPolicy that holds for it; `None`: the defaults do.
    pub policy: Option<Origin>,
    /// What the endpoints speak, where it is declared.
    pub protocol: PortProtocol,
    /// How an endpoint is chosen for a request.
    pub balance: Balance,
    /// What may be in use at once.
    pub limits: Limits,
    /// When an endpoint is ejected; `None`: never (Envoy `Cluster.outlier_detection`).
    pub outlier: Option<OutlierDetection>,
    /// How much may be retried.
    pub retry_budget: RetryBudget,
    /// Envoy `Cluster.connect_timeout`.
    pub connect_timeout: Duration,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            origin: Origin::default(),
            policy: None,
            protocol: PortProtocol::default(),
            balance: Balance::default(),
            limits: Limits::default(),
            retry_budget: RetryBudget::default(),
            outlier: None,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Two draws, the lighter by peak-EWMA latency times requests in flight (Finagle, Linkerd).
    PeakEwma {
        /// What an endpoint is believed to take before it was measured.
        start: Duration,
        /// How long a peak is remembered.
        decay: Duration,
    },
    /// In turn, by weight.
    RoundRobin,
    /// Two draws, the one with fewer requests in flight by weight (Envoy `LEAST_REQUEST`).
    LeastRequest,
    /// By weight.
    Random,
}

impl Default for Balance {
    fn default() -> Balance {
        Balance::PeakEwma { start: Duration::from_millis(30), decay: Duration::from_secs(10) }
    }
}

/// Circuit-breaker limits of a cluster, per process (Envoy `CircuitBreakers.Thresholds`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `max_connections`: open at once.
    pub connections: u32,
    /// `max_pending_requests`: waiting for a connection at once.
    pub pending: u32,
    /// `max_requests`: in flight at once.
    pub requests: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 1024, pending: 1024, requests: 1024 }
    }
}

/// The default of [`Cluster::connect_timeout`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The endpoints of a cluster, in no particular order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSet {
    /// Each address once.
    pub endpoints: Vec<Endpoint>,
}

/// One address that can serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Relative share; 0 is never chosen while another can be (Envoy `load_balancing_weight`).
    pub weight: u32,
    /// How it must be dialled.
    pub transport: Transport,
    /// Whose address it is.
    pub workload: Workload,
}

/// How an endpoint must be dialled. What is `Mesh` is never dialled in plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Mesh TLS, and the peer must be this identity.
    Mesh(SpiffeId),
    /// Outside the mesh: as the app would have dialled it.
    Plain,
}

/// What is known of the workload behind an address; empty where it is not a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid: an address that is reused is another endpoint.
    pub uid: String,
    /// `app.kubernetes.io/name` or `app` of the pod.
    pub app: String,
    /// `app.kubernetes.io/version` or `version` of the pod.
    pub version: String,
}
