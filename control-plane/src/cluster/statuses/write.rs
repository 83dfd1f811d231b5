//! One status into the cluster. Our own kinds are applied by the server. Gateway API's list is one field for all
//! controllers: it is read, changed and written back only if nobody else wrote meanwhile.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::plan::Order;
use crate::cluster::{MANAGER, reason};
use crate::status::Shape;

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What came of a write.
#[derive(Deserialize)]
struct Answer {
    metadata: Written,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(default)]
    pub(super) resource_version: String,
}

/// Why a status was not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Somebody else wrote: the watch will tell what.
    Conflict,
    /// The object, or its kind, is not there any more.
    Gone,
    Refused(String),
}

/// Writes what an order says.
///
/// # Errors
/// It does not stand there, as far as we know.
pub(super) async fn write(client: &Client, plural: &str, order: &Order) -> Result<Written, Failed> {
    let refused = |why: &dyn std::fmt::Display| Failed::Refused(why.to_string());
    let path = format!("/apis/{}/namespaces/{}/{plural}", order.stands.api_version, order.key.namespace);
    let body = body(order, &now());
    let request = Request::new(path);
    let request = match order.shape {
        Shape::Parents => {
            let parameters =
                PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            request.patch_subresource("status", &order.key.name, &parameters, &Patch::Merge(&body))
        }
        Shape::Ancestors | Shape::Split => {
            let parameters = PatchParams::apply(MANAGER).force();
            request.patch_subresource("status", &order.key.name, &parameters, &Patch::Apply(&body))
        }
    };
    let request = request.map_err(|error| refused(&error))?;
    match timeout(TIMEOUT, client.request::<Answer>(request)).await {
        Ok(Ok(answer)) => Ok(answer.metadata),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failed::Conflict),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failed::Gone),
        Ok(Err(error)) => Err(refused(&reason(&error))),
        Err(_) => Err(refused(&format!("no answer in {TIMEOUT:?}"))),
    }
}

/// As conditions say it: in whole seconds.
fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// What is sent. Of another object of the same name, or of a list that somebody else has changed, it is refused.
fn body(order: &Order, now: &str) -> Value {
    let Order { key, shape, stands, wanted, .. } = order;
    let status = wanted.clone().at(now, &stands.ours).to_json(*shape, &stands.foreign);
    match shape {
        Shape::Parents => {
            json!({ "metadata": { "resourceVersion": stands.resource_version }, "status": status })
        }
        Shape::Ancestors | Shape::Split => json!({
            "apiVersion": stands.api_version,
            "kind": key.kind.as_str(),
            "metadata": { "name": key.name, "namespace": key.namespace, "uid": stands.uid },
            "status": status,
        }),
    }
}
