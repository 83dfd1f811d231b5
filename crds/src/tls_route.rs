//! Gateway API `TLSRoute` (gateway.networking.k8s.io/v1), as upstream has it (v1.6, experimental channel). Its older
//! versions have the same fields, and fewer of them are required there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::gateway::{BackendRef, ParentReference, RouteStatus};

/// Routes TLS connections to a Service by the server name that they ask for; nobody looks inside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TlsRoute {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: TlsRouteSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RouteStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// Server names, exact or with `*.` in front. v1 requires them; left out, before v1: every TLS connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostnames: Option<Vec<String>>,
    /// For Gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// One: v1alpha2 lets more be written, which nothing tells apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<TlsRouteRule>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_refs: Option<Vec<BackendRef<NoFilter>>>,
}

/// Bytes that nobody reads cannot be changed: there are no filters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NoFilter {}
