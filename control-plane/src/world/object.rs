//! The kinds of object that the world holds.

use std::fmt;
use std::sync::Arc;

use gauze_crds::{
    AuthorizationPolicy, GrpcRoute, HttpRoute, HttpRouteGroup, TlsRoute, TrafficPolicy, TrafficSplit,
};
use gauze_model::Origin;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An object; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Namespace(Arc<Namespace>),
    ServiceAccount(Arc<ServiceAccount>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    HttpRoute(Arc<HttpRoute>),
    GrpcRoute(Arc<GrpcRoute>),
    TlsRoute(Arc<TlsRoute>),
    TrafficSplit(Arc<TrafficSplit>),
    HttpRouteGroup(Arc<HttpRouteGroup>),
    TrafficPolicy(Arc<TrafficPolicy>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
}

/// The kinds, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectKind {
    Namespace,
    ServiceAccount,
    Pod,
    Service,
    EndpointSlice,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    TrafficSplit,
    #[serde(rename = "HTTPRouteGroup")]
    HttpRouteGroup,
    TrafficPolicy,
    AuthorizationPolicy,
}

/// Which object; namespace is empty for a Namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    pub kind: ObjectKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
}

/// What is common to all kinds, of whichever it is.
macro_rules! of_any_kind {
    ($object:expr, $inner:ident => $value:expr) => {
        match $object {
            Object::Namespace($inner) => $value,
            Object::ServiceAccount($inner) => $value,
            Object::Pod($inner) => $value,
            Object::Service($inner) => $value,
            Object::EndpointSlice($inner) => $value,
            Object::HttpRoute($inner) => $value,
            Object::GrpcRoute($inner) => $value,
            Object::TlsRoute($inner) => $value,
            Object::TrafficSplit($inner) => $value,
            Object::HttpRouteGroup($inner) => $value,
            Object::TrafficPolicy($inner) => $value,
            Object::AuthorizationPolicy($inner) => $value,
        }
    };
}

/// The object, if it is of that kind.
macro_rules! of_one_kind {
    ($($name:ident: $kind:ident),* $(,)?) => {
        impl Object {
            $(pub(crate) fn $name(&self) -> Option<&Arc<$kind>> {
                if let Object::$kind(object) = self { Some(object) } else { None }
            })*
        }
    };
}

of_one_kind! {
    as_namespace: Namespace,
    as_pod: Pod,
    as_service: Service,
    as_slice: EndpointSlice,
    as_http_route: HttpRoute,
    as_grpc_route: GrpcRoute,
    as_tls_route: TlsRoute,
    as_split: TrafficSplit,
    as_route_group: HttpRouteGroup,
    as_policy: TrafficPolicy,
    as_authorization_policy: AuthorizationPolicy,
}

impl ObjectKey {
    pub fn new(kind: ObjectKind, namespace: impl Into<String>, name: impl Into<String>) -> ObjectKey {
        ObjectKey { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl ObjectKind {
    pub const ALL: [ObjectKind; 12] = [
        ObjectKind::Namespace,
        ObjectKind::ServiceAccount,
        ObjectKind::Pod,
        ObjectKind::Service,
        ObjectKind::EndpointSlice,
        ObjectKind::HttpRoute,
        ObjectKind::GrpcRoute,
        ObjectKind::TlsRoute,
        ObjectKind::TrafficSplit,
        ObjectKind::HttpRouteGroup,
        ObjectKind::TrafficPolicy,
        ObjectKind::AuthorizationPolicy,
    ];

    /// As `kind:` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Namespace => "Namespace",
            ObjectKind::ServiceAccount => "ServiceAccount",
            ObjectKind::Pod => "Pod",
            ObjectKind::Service => "Service",
            ObjectKind::EndpointSlice => "EndpointSlice",
            ObjectKind::HttpRoute => "HTTPRoute",
            ObjectKind::GrpcRoute => "GRPCRoute",
            ObjectKind::TlsRoute => "TLSRoute",
            ObjectKind::TrafficSplit => "TrafficSplit",
            ObjectKind::HttpRouteGroup => "HTTPRouteGroup",
            ObjectKind::TrafficPolicy => "TrafficPolicy",
            ObjectKind::AuthorizationPolicy => "AuthorizationPolicy",
        }
    }

    /// Whether a cluster knows it by a CustomResourceDefinition only.
    pub fn is_custom(self) -> bool {
        match self {
            ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TrafficSplit
            | ObjectKind::HttpRouteGroup
            | ObjectKind::TrafficPolicy
            | ObjectKind::AuthorizationPolicy => true,
            ObjectKind::Namespace
            | ObjectKind::ServiceAccount
            | ObjectKind::Pod
            | ObjectKind::Service
            | ObjectKind::EndpointSlice => false,
        }
    }

    /// What `apiVersion:` says of this kind, where gauze writes it.
    pub fn api_version(self) -> &'static str {
        match self {
            ObjectKind::Namespace | ObjectKind::ServiceAccount | ObjectKind::Pod | ObjectKind::Service => {
                "v1"
            }
            ObjectKind::EndpointSlice => "discovery.k8s.io/v1",
            ObjectKind::HttpRoute | ObjectKind::GrpcRoute | ObjectKind::TlsRoute => {
                "gateway.networking.k8s.io/v1"
            }
            ObjectKind::TrafficSplit => "split.smi-spec.io/v1alpha4",
            ObjectKind::HttpRouteGroup => "specs.smi-spec.io/v1alpha4",
            ObjectKind::TrafficPolicy | ObjectKind::AuthorizationPolicy => "gauze.dev/v1alpha1",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

impl Object {
    pub fn kind(&self) -> ObjectKind {
        match self {
            Object::Namespace(_) => ObjectKind::Namespace,
            Object::ServiceAccount(_) => ObjectKind::ServiceAccount,
            Object::Pod(_) => ObjectKind::Pod,
            Object::Service(_) => ObjectKind::Service,
            Object::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Object::HttpRoute(_) => ObjectKind::HttpRoute,
            Object::GrpcRoute(_) => ObjectKind::GrpcRoute,
            Object::TlsRoute(_) => ObjectKind::TlsRoute,
            Object::TrafficSplit(_) => ObjectKind::TrafficSplit,
            Object::HttpRouteGroup(_) => ObjectKind::HttpRouteGroup,
            Object::TrafficPolicy(_) => ObjectKind::TrafficPolicy,
            Object::AuthorizationPolicy(_) => ObjectKind::AuthorizationPolicy,
        }
    }

    pub fn metadata(&self) -> &ObjectMeta {
        of_any_kind!(self, object => &object.metadata)
    }

    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey {
            kind: self.kind(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    pub fn origin(&self) -> Origin {
        origin(self.kind(), self.metadata())
    }

    /// The object as the user would write it, with `apiVersion` and `kind`.
    pub fn to_json(&self) -> Value {
        let mut value = of_any_kind!(self, object => json!(object));
        value["apiVersion"] = self.kind().api_version().into();
        value["kind"] = self.kind().as_str().into();
        value
    }
}

/// The origin of an object of this kind.
pub(crate) fn origin(kind: ObjectKind, metadata: &ObjectMeta) -> Origin {
    Origin {
        kind: kind.as_str().to_owned(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        path: String::new(),
    }
}
