//! The definition of TrafficSplit with every version that is served: v1alpha4 is what the types say, the older ones
//! follow from it by what SMI had not yet. Objects are stored as v1alpha4 and converted by the control plane.
//!
//! None is marked as deprecated: Flagger and Argo Rollouts write old versions only, and would log a warning with each
//! request that nobody could act upon.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionVersion, JSON,
    JSONSchemaProps, JSONSchemaPropsOrArray, ServiceReference, WebhookClientConfig, WebhookConversion,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::TrafficSplit;

/// The definition's name.
pub const NAME: &str = "trafficsplits.split.smi-spec.io";
/// The version that is stored, and the first in discovery: whoever asks for no other needs no conversion.
pub const STORED: &str = "v1alpha4";
/// Where the control plane converts.
pub const CONVERT_PATH: &str = "/convert";
/// What the API server reaches it by.
const SERVICE: &str = "gauze-control-plane";
const PORT: i32 = 443;

/// All served versions, with conversion by the control plane of that namespace. Its `caBundle` is missing:
/// the control plane writes it.
pub fn definition(system_namespace: &str) -> CustomResourceDefinition {
    let mut definition = TrafficSplit::crd();
    let stored = definition.spec.versions.remove(0);
    definition.spec.versions = vec![v1alpha1(&stored), v1alpha2(&stored), v1alpha3(&stored), stored];
    definition.spec.conversion = Some(CustomResourceConversion {
        strategy: "Webhook".to_owned(),
        webhook: Some(WebhookConversion {
            client_config: Some(WebhookClientConfig {
                service: Some(ServiceReference {
                    name: SERVICE.to_owned(),
                    namespace: system_namespace.to_owned(),
                    path: Some(CONVERT_PATH.to_owned()),
                    port: Some(PORT),
                }),
                ..WebhookClientConfig::default()
            }),
            conversion_review_versions: vec!["v1".to_owned()],
        }),
    });
    definition
}

/// Whether this sends the API server to the control plane of that namespace.
pub fn converts(client: &WebhookClientConfig, system_namespace: &str) -> bool {
    client.service.as_ref().is_some_and(|service| {
        service.name == SERVICE
            && service.namespace == system_namespace
            && service.path.as_deref() == Some(CONVERT_PATH)
    })
}

/// Whole numbers, and `matches`.
fn v1alpha3(stored: &CustomResourceDefinitionVersion) -> CustomResourceDefinitionVersion {
    let mut version = older(stored, "v1alpha3");
    let backend = property(spec(&mut version), "backends").items.as_mut();
    if let Some(JSONSchemaPropsOrArray::Schema(backend)) = backend {
        // Clients in Go left out what is 0.
        backend.required.get_or_insert_default().retain(|field| field != "weight");
        property(backend, "weight").default = Some(JSON(json!(0)));
    }
    version
}

/// Whole numbers.
fn v1alpha2(stored: &CustomResourceDefinitionVersion) -> CustomResourceDefinitionVersion {
    let mut version = CustomResourceDefinitionVersion { name: "v1alpha2".to_owned(), ..v1alpha3(stored) };
    spec(&mut version).properties.get_or_insert_default().remove("matches");
    version
}

/// Quantities.
fn v1alpha1(stored: &CustomResourceDefinitionVersion) -> CustomResourceDefinitionVersion {
    let mut version = CustomResourceDefinitionVersion { name: "v1alpha1".to_owned(), ..v1alpha2(stored) };
    let backend = property(spec(&mut version), "backends").items.as_mut();
    if let Some(JSONSchemaPropsOrArray::Schema(backend)) = backend {
        *property(backend, "weight") = quantity();
    }
    version
}

/// Checked by a pattern: what a rule may cost is worked out from the longest possible text, and API servers before
/// Kubernetes 1.33 take no `maxLength` of such a value for one.
fn quantity() -> JSONSchemaProps {
    JSONSchemaProps {
        description: Some(
            "The share, relative to the sum of all: a quantity of 0 or more, for example 90, \"90\" or \"500m\"."
                .to_owned(),
        ),
        default: Some(JSON(json!(0))),
        x_kubernetes_int_or_string: Some(true),
        minimum: Some(0.0),
        max_length: Some(32),
        pattern: Some(QUANTITY.to_owned()),
        ..JSONSchemaProps::default()
    }
}

/// `resource.Quantity` without a sign.
const QUANTITY: &str = r"^\+?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$";

fn older(stored: &CustomResourceDefinitionVersion, name: &str) -> CustomResourceDefinitionVersion {
    CustomResourceDefinitionVersion { name: name.to_owned(), storage: false, ..stored.clone() }
}

/// The schema of `spec`.
fn spec(version: &mut CustomResourceDefinitionVersion) -> &mut JSONSchemaProps {
    let schema = version.schema.get_or_insert_default().open_api_v3_schema.get_or_insert_default();
    property(schema, "spec")
}

/// The schema of a field.
fn property<'s>(schema: &'s mut JSONSchemaProps, field: &str) -> &'s mut JSONSchemaProps {
    schema.properties.get_or_insert_default().entry(field.to_owned()).or_default()
}
