//! A small world that changes: few names, so that what is said about them often collides.

use std::sync::Arc;

use fastrand::Rng;
use gauze_control_plane::world::{Event, Object, ObjectKey, ObjectKind};
use gauze_model::Name;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) const PODS: u8 = 5;
const SERVICES: u8 = 4;
const NAMESPACE: &str = "shop";

/// One change of one object.
pub(crate) fn change(random: &mut Rng) -> Event {
    let (service, pod) = (random.u8(..SERVICES), random.u8(..PODS));
    let (kind, name) = match random.u8(..7) {
        0 => (ObjectKind::Pod, format!("p{pod}")),
        1 => (ObjectKind::Service, format!("s{service}")),
        2 | 3 => (ObjectKind::EndpointSlice, format!("s{service}")),
        4 => (ObjectKind::TrafficSplit, format!("s{service}")),
        5 => (ObjectKind::HttpRoute, format!("s{service}")),
        _ => (ObjectKind::TrafficPolicy, format!("s{service}")),
    };
    if random.u8(..4) == 0 {
        return Event::Delete(ObjectKey::new(kind, NAMESPACE, name));
    }
    Event::Apply(match kind {
        ObjectKind::Pod => Object::Pod(of(self::pod(random, pod))),
        ObjectKind::Service => Object::Service(of(self::service(random, service))),
        ObjectKind::EndpointSlice => Object::EndpointSlice(of(slice(random, service))),
        ObjectKind::TrafficSplit => Object::TrafficSplit(of(split(random, service))),
        ObjectKind::TrafficPolicy => Object::TrafficPolicy(of(policy(random, service))),
        _ => Object::HttpRoute(of(route(random, service))),
    })
}

/// How the pod of a proxy accepts.
pub(crate) fn inbound(pod: u8) -> Name {
    Name::Inbound { namespace: NAMESPACE.to_owned(), pod: format!("p{pod}") }
}

/// Some address that may be dialled: a Service's, a pod's, or nobody's.
pub(crate) fn dialled(random: &mut Rng) -> Name {
    let address = match random.u8(..4) {
        0 => format!("10.1.0.{}:8080", random.u8(..PODS + 1)),
        _ => format!("10.96.0.{}:80", random.u8(..SERVICES + 1)),
    };
    Name::Outbound { viewer: NAMESPACE.to_owned(), address: address.parse().unwrap() }
}

fn of<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn metadata(name: &str) -> Value {
    json!({ "namespace": NAMESPACE, "name": name })
}

fn pod(random: &mut Rng, number: u8) -> Value {
    let mut metadata = metadata(&format!("p{number}"));
    if random.bool() {
        metadata["annotations"] = json!({ "gauze.dev/mtls": "strict" });
    }
    let sidecar = json!({ "name": "gauze-proxy", "restartPolicy": "Always" });
    let sidecars = if random.u8(..4) == 0 { json!([]) } else { json!([sidecar]) };
    json!({
        "metadata": metadata,
        "spec": { "containers": [], "initContainers": sidecars, "serviceAccountName": format!("a{}", random.u8(..2)) },
        "status": { "podIPs": [{ "ip": format!("10.1.0.{number}") }] },
    })
}

fn service(random: &mut Rng, number: u8) -> Value {
    let mut port = json!({ "port": 80, "targetPort": 8080 });
    if random.bool() {
        port["appProtocol"] = json!(["http", "kubernetes.io/h2c", "grpc", "tcp"][random.usize(..4)]);
    }
    json!({
        "metadata": metadata(&format!("s{number}")),
        "spec": { "clusterIP": format!("10.96.0.{number}"), "ports": [port] },
    })
}

fn slice(random: &mut Rng, number: u8) -> Value {
    let name = format!("s{number}");
    let mut metadata = metadata(&name);
    metadata["labels"] = json!({ "kubernetes.io/service-name": name });
    let pods = (0..PODS).filter(|_| random.bool());
    let endpoints: Vec<Value> = pods.map(|pod| json!({ "addresses": [format!("10.1.0.{pod}")] })).collect();
    json!({
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "port": 8080 }],
    })
}

/// Of all Services, existing or not.
fn backends(random: &mut Rng) -> Vec<(String, u8)> {
    let number = random.u8(1..4);
    (0..number).map(|_| (format!("s{}", random.u8(..SERVICES)), random.u8(..3))).collect()
}

fn split(random: &mut Rng, number: u8) -> Value {
    let name = format!("s{number}");
    let backends: Vec<Value> = backends(random)
        .into_iter()
        .map(|(service, weight)| json!({ "service": service, "weight": weight }))
        .collect();
    json!({ "metadata": metadata(&name), "spec": { "service": name, "backends": backends } })
}

fn route(random: &mut Rng, number: u8) -> Value {
    let name = format!("s{number}");
    let backends: Vec<Value> = backends(random)
        .into_iter()
        .map(|(service, weight)| json!({ "name": service, "port": 80, "weight": weight }))
        .collect();
    let parent = json!({ "group": "", "kind": "Service", "name": name });
    let path = json!({ "path": { "type": "PathPrefix", "value": format!("/{}", random.u8(..3)) } });
    json!({
        "metadata": metadata(&name),
        "spec": { "parentRefs": [parent], "rules": [{ "matches": [path], "backendRefs": backends }] },
    })
}

fn policy(random: &mut Rng, number: u8) -> Value {
    let name = format!("s{number}");
    let target = json!({ "group": "", "kind": "Service", "name": name });
    let limits = json!({ "connections": random.u32(1..9) });
    json!({ "metadata": metadata(&name), "spec": { "targetRefs": [target], "limits": limits } })
}
