//! The Kubernetes types of gauze, and the Gateway API and SMI types that it reads; one kind a file.
//! What the fields mean for traffic is decided elsewhere (`control-plane/src/translate`).

// KubeSchema repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]
// `printcolumn(type_ = …)` stands once for each column; clippy takes these for one attribute written twice.
#![allow(clippy::duplicated_attributes)]

pub mod authorization_policy;
pub mod duration; // `500ms`, `1h30m`
pub mod gateway; // what HTTPRoute, GRPCRoute and TLSRoute share
pub mod grpc_route;
pub mod http_route;
pub mod http_route_group;
pub mod outlier_detection; // of a TrafficPolicy
pub mod policy; // what our policies share: targets and status
pub mod retry; // retries and timeouts of a TrafficPolicy
pub mod tls_route;
pub mod traffic_policy;
pub mod traffic_split;

pub use authorization_policy::AuthorizationPolicy;
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
pub use http_route_group::HttpRouteGroup;
pub use tls_route::TlsRoute;
pub use traffic_policy::TrafficPolicy;
pub use traffic_split::TrafficSplit;
