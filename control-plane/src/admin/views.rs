//! The JSON that the operator's socket answers; `gauze get`, `gauze explain` and `gauze proxy` read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use gauze_model::{Kind, Name, Origin};
use gauze_xds::delta::{Held, Holding};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::problem::Problem;
use crate::push::{ProxyView, Push};
use crate::status::{self, Heard, HoldingState, ObjectStatus};
use crate::translate::check;
use crate::world::{MeshSettings, Object, ObjectKey, World};

/// Which release this is, what holds for the whole mesh, and when certificates end; times in seconds since 1970.
pub(super) fn about(settings: &MeshSettings, authority: Option<&Arc<Authority>>, own_ends: f64) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "mesh": {
            "trustDomain": settings.trust_domain,
            "mtls": settings.mtls,
            "meshNetworks": settings.mesh_networks,
        },
        "certificates": {
            "rootEnds": authority.map(|authority| seconds(authority.root_expiry())),
            "ownEnds": own_ends as u64,
            "life": authority.map(|authority| authority.life().as_secs()),
        },
    })
}

/// What [`about`] says of the mesh; what an older control plane does not say has its default.
pub fn settings_in(about: &Value) -> MeshSettings {
    let mut settings = MeshSettings::default();
    let mesh = &about["mesh"];
    if let Some(domain) = mesh["trustDomain"].as_str() {
        domain.clone_into(&mut settings.trust_domain);
    }
    settings.mtls = serde_json::from_value(mesh["mtls"].clone()).unwrap_or(settings.mtls);
    settings.mesh_networks =
        serde_json::from_value(mesh["meshNetworks"].clone()).unwrap_or(settings.mesh_networks);
    settings
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn objects(push: &Push, heard: &Heard) -> Value {
    objects_of(&push.world(), &push.problems(), heard)
}

/// Every object with its conditions as they would stand in a cluster, and with what its source cannot read of it.
/// `problems` at the end are those of what is no object at all (a file that does not parse).
pub fn objects_of(world: &World, problems: &[Problem], heard: &Heard) -> Value {
    let statuses = status::conditions(world, problems, heard);
    let mut statuses: BTreeMap<&ObjectKey, &ObjectStatus> =
        statuses.iter().map(|status| (&status.object, status)).collect();
    let origins: Vec<Origin> = world.objects().map(Object::origin).collect();
    let found = check(world);
    let mut by_object: BTreeMap<(&str, &str, &str), Vec<&Problem>> = BTreeMap::new();
    for problem in problems.iter().chain(&found) {
        by_object.entry(problem.origin.object()).or_default().push(problem);
    }
    let mut objects = Vec::new();
    for (object, origin) in world.objects().zip(&origins) {
        let key = object.key();
        let problems = by_object.remove(&origin.object()).unwrap_or_default();
        let status = statuses.remove(&key);
        objects.push(self::object(&key, object.metadata().generation, status, &problems));
    }
    // Those of which no version could ever be read.
    for (key, status) in statuses {
        let origin = (key.kind.as_str(), key.namespace.as_str(), key.name.as_str());
        let problems = by_object.remove(&origin).unwrap_or_default();
        objects.push(object(key, None, Some(status), &problems));
    }
    let others: Vec<&Problem> = by_object.into_values().flatten().collect();
    json!({ "objects": objects, "problems": others })
}

fn object(
    key: &ObjectKey,
    generation: Option<i64>,
    status: Option<&ObjectStatus>,
    problems: &[&Problem],
) -> Value {
    json!({
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "generation": generation,
        "parents": status.map(|status| status.parents.as_slice()).unwrap_or_default(),
        "problems": problems,
    })
}

/// Every object as its user wrote it, as a Kubernetes `List`.
pub(super) fn world(push: &Push) -> Value {
    let items: Vec<Value> = push.world().objects().map(|object| object.to_json()).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// Every pod whose proxy is connected, or was in the last five minutes: what it holds and should hold.
pub(crate) fn proxies(push: &Push) -> Value {
    let proxies: Vec<Value> = push.proxies().iter().map(proxy).collect();
    json!({ "proxies": proxies })
}

fn proxy(view: &ProxyView) -> Value {
    let resources: Vec<Value> = view
        .heard
        .resources
        .iter()
        .map(|resource| holding(resource, &view.holds[&(resource.kind, resource.name.clone())]))
        .collect();
    json!({
        "namespace": view.workload.namespace,
        "pod": view.workload.pod,
        "serviceAccount": view.workload.service_account,
        "connected": view.connected,
        "sinceUnixSeconds": seconds(view.since),
        "resources": resources,
    })
}

fn holding(resource: &status::Holding, held: &Held) -> Value {
    let version = |holding: &Holding| match holding {
        Holding::Version(version) => Some(version.clone()),
        Holding::Absent | Holding::Nothing => None,
    };
    let mut value = json!({
        "kind": resource.kind as Kind,
        "name": &resource.name as &Name,
        "held": version(&held.acknowledged),
        "sent": version(&held.sent),
        "absent": held.acknowledged == Holding::Absent,
        "state": match resource.state {
            HoldingState::Current => "current",
            HoldingState::Behind => "behind",
            HoldingState::Refused { .. } => "refused",
            HoldingState::Closed(_) => "closed",
        },
        "origins": &resource.origins,
    });
    match &resource.state {
        HoldingState::Refused { path, problem, origin } => {
            value["rejection"] = json!({ "path": path, "problem": problem, "origin": origin });
        }
        HoldingState::Closed(policies) => value["closed"] = json!(policies),
        HoldingState::Current | HoldingState::Behind => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use gauze_model::listener::Mtls;

    use super::*;

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(settings_in(&Value::Null), MeshSettings::default());
        let said =
            json!({ "mesh": { "trustDomain": "corp", "mtls": "strict", "meshNetworks": ["10.96.0.0/16"] } });
        let expected = MeshSettings {
            trust_domain: "corp".to_owned(),
            mtls: Mtls::Strict,
            mesh_networks: vec!["10.96.0.0/16".parse().unwrap()],
        };
        assert_eq!(settings_in(&said), expected);
    }
}
