//! What is watched, and under which path the API server serves it.

use std::fmt;

use kube::Client;
use serde::Deserialize;

use crate::world::ObjectKind;

/// A kind that is watched. Of Nodes and ServiceCIDRs only networks are taken; all others are objects of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Watched {
    Object(ObjectKind),
    Node,
    ServiceCidr,
}

impl Watched {
    /// ServiceAccounts mean nothing for configuration: who a pod is stands in the pod.
    pub(super) const ALL: [Watched; 13] = [
        Watched::Object(ObjectKind::Namespace),
        Watched::Object(ObjectKind::Pod),
        Watched::Object(ObjectKind::Service),
        Watched::Object(ObjectKind::EndpointSlice),
        Watched::Object(ObjectKind::HttpRoute),
        Watched::Object(ObjectKind::GrpcRoute),
        Watched::Object(ObjectKind::TlsRoute),
        Watched::Object(ObjectKind::TrafficSplit),
        Watched::Object(ObjectKind::HttpRouteGroup),
        Watched::Object(ObjectKind::TrafficPolicy),
        Watched::Object(ObjectKind::AuthorizationPolicy),
        Watched::Node,
        Watched::ServiceCidr,
    ];

    /// Group, plural, and the versions that are understood, the best first.
    fn names(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Watched::Object(ObjectKind::Namespace) => ("", "namespaces", &["v1"]),
            Watched::Object(ObjectKind::ServiceAccount) => ("", "serviceaccounts", &["v1"]),
            Watched::Object(ObjectKind::Pod) => ("", "pods", &["v1"]),
            Watched::Object(ObjectKind::Service) => ("", "services", &["v1"]),
            Watched::Object(ObjectKind::EndpointSlice) => ("discovery.k8s.io", "endpointslices", &["v1"]),
            Watched::Object(ObjectKind::HttpRoute) => {
                ("gateway.networking.k8s.io", "httproutes", &["v1", "v1beta1"])
            }
            Watched::Object(ObjectKind::GrpcRoute) => {
                ("gateway.networking.k8s.io", "grpcroutes", &["v1", "v1alpha2"])
            }
            Watched::Object(ObjectKind::TlsRoute) => {
                ("gateway.networking.k8s.io", "tlsroutes", &["v1", "v1alpha3", "v1alpha2"])
            }
            Watched::Object(ObjectKind::TrafficSplit) => {
                ("split.smi-spec.io", "trafficsplits", &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"])
            }
            Watched::Object(ObjectKind::HttpRouteGroup) => {
                ("specs.smi-spec.io", "httproutegroups", &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"])
            }
            Watched::Object(ObjectKind::TrafficPolicy) => ("gauze.dev", "trafficpolicies", &["v1alpha1"]),
            Watched::Object(ObjectKind::AuthorizationPolicy) => {
                ("gauze.dev", "authorizationpolicies", &["v1alpha1"])
            }
            Watched::Node => ("", "nodes", &["v1"]),
            Watched::ServiceCidr => ("networking.k8s.io", "servicecidrs", &["v1", "v1beta1"]),
        }
    }

    /// The kind as it stands in paths.
    pub(super) fn plural(self) -> &'static str {
        self.names().1
    }

    /// Whether a cluster may lack the kind: it is a custom resource, or new.
    fn is_optional(self) -> bool {
        match self {
            Watched::Object(kind) => kind.is_custom(),
            Watched::Node => false,
            Watched::ServiceCidr => true,
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Watched::Object(kind) => kind.fmt(f),
            Watched::Node => f.write_str("Node"),
            Watched::ServiceCidr => f.write_str("ServiceCIDR"),
        }
    }
}

/// How the API server serves a kind.
pub(super) struct Served {
    /// Where.
    pub(super) path: String,
    /// Whether statuses are written apart from the rest.
    pub(super) has_status: bool,
}

/// How the API server serves the kind now, in the best version that both sides know; none, if it does not.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn served(client: &Client, watched: Watched) -> kube::Result<Option<Served>> {
    let (group, plural, versions) = watched.names();
    let path = |version: &str| match group {
        "" => format!("/api/{version}/{plural}"),
        group => format!("/apis/{group}/{version}/{plural}"),
    };
    if !watched.is_optional() {
        return Ok(versions.first().map(|version| Served { path: path(version), has_status: true }));
    }
    let Some(offered) = discover::<ApiGroup>(client, &format!("/apis/{group}")).await? else {
        return Ok(None);
    };
    for version in versions {
        if !offered.versions.iter().any(|offered| offered.version == *version) {
            continue;
        }
        let found = discover::<ApiResources>(client, &format!("/apis/{group}/{version}")).await?;
        let has = |name: &str| {
            found.iter().flat_map(|found| &found.resources).any(|resource| resource.name == name)
        };
        if has(plural) {
            let has_status = has(&format!("{plural}/status"));
            return Ok(Some(Served { path: path(version), has_status }));
        }
    }
    Ok(None)
}

/// A discovery document (`APIGroup`, `APIResourceList`), as far as it is read.
#[derive(Deserialize)]
struct ApiGroup {
    versions: Vec<ApiVersion>,
}

#[derive(Deserialize)]
struct ApiVersion {
    version: String,
}

#[derive(Deserialize)]
struct ApiResources {
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
struct ApiResource {
    name: String,
}

async fn discover<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> kube::Result<Option<T>> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    match client.request(request).await {
        Ok(document) => Ok(Some(document)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}
