//! Property: a world that follows events answers as one made from scratch, and whatever it answers
//! otherwise after an event was touched by it.

use std::collections::BTreeMap;

use gauze_model::Name;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::translate::{Answer, translate};

/// One random event: an object's kind and number, and bits that choose what it says.
type Step = (u8, u8, u64);

const HTTP_ROUTE: u8 = 4;
const GRPC_ROUTE: u8 = 5;
const AUTHORIZATION: u8 = 7;
const ROUTE_GROUP: u8 = 9;
const TLS_ROUTE: u8 = 10;
/// No object: what Nodes and ServiceCIDRs name.
const NETWORKS: u8 = 11;
const NAMESPACES: [&str; 2] = ["a", "b"];
const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
const PODS: [&str; 3] = ["p0", "p1", "p2"];
const GROUPS: [&str; 3] = ["g0", "g1", "g2"];

/// A world in which everything exists, then changes of it: in a sparse one hardly anything hangs together.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let all = (0..NETWORKS).flat_map(|kind| (0..6u8).map(move |number| (kind, number)));
    let beginning: Vec<_> = all.map(|(kind, number)| (Just(kind), Just(number), any::<u64>())).collect();
    let changes = prop::collection::vec((0..=NETWORKS, 0..6u8, any::<u64>()), 1..40);
    (beginning, changes).prop_map(|(beginning, changes)| beginning.into_iter().chain(changes).collect())
}

/// Takes small numbers out of random bits.
struct Bits(u64);

impl Bits {
    fn below(&mut self, bound: u64) -> u64 {
        let number = self.0 % bound;
        self.0 /= bound;
        number
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn event((kind, number, bits): Step) -> Event {
    let mut bits = Bits(bits);
    if kind == NETWORKS {
        let named = [bits.one_of(&["10.1.0.0/24", "198.51.100.0/24", "203.0.113.0/24"])];
        return Event::MeshNetworks(named.iter().filter_map(|network| network.parse().ok()).collect());
    }
    // Routes hide splits: they are seldom there.
    let delete = bits.below(5) < if [HTTP_ROUTE, GRPC_ROUTE, TLS_ROUTE].contains(&kind) { 4 } else { 1 };
    let object = object(kind, number, &mut bits);
    if delete { Event::Delete(object.key()) } else { Event::Apply(object) }
}

fn object(kind: u8, number: u8, bits: &mut Bits) -> Object {
    let namespace = NAMESPACES[usize::from(number % 2)];
    let number = usize::from(number / 2);
    let created = format!("2026-01-01T00:00:0{}Z", bits.below(3));
    let metadata = |name: &str| json!({ "name": name, "namespace": namespace, "creationTimestamp": created });
    match kind {
        0 => Object::Namespace(typed(json!({ "metadata": {
            "name": namespace,
            "annotations": { "gauze.dev/mtls": bits.one_of(&["strict", "permissive", "nonsense"]) },
        }}))),
        1 => Object::Service(typed(json!({
            "metadata": metadata(SERVICES[number]),
            "spec": {
                "clusterIP": bits.one_of(&["10.96.0.1", "10.96.0.2", "10.96.0.1", "None"]),
                "ports": [{ "name": bits.one_of(&["http", "http", "grpc"]), "port": 80 + bits.below(6) / 5 }],
                "selector": { "app": bits.one_of(&["x", "y"]) },
            },
        }))),
        2 => Object::Pod(pod(metadata(PODS[number]), bits)),
        3 => Object::EndpointSlice(typed(json!({
            "metadata": {
                "name": format!("slice-{number}"),
                "namespace": namespace,
                "labels": { "kubernetes.io/service-name": bits.one_of(&SERVICES) },
            },
            "addressType": "IPv4",
            "ports": [{ "name": bits.one_of(&["http", "http", "grpc"]), "port": 8080 }],
            "endpoints": [
                { "addresses": [bits.one_of(&["10.1.0.1", "10.1.0.2"])], "conditions": { "ready": bits.below(2) == 0 } },
                {
                    "addresses": [bits.one_of(&["10.1.0.1", "10.1.0.2"])],
                    "targetRef": { "kind": bits.one_of(&["Pod", "Node"]), "name": bits.one_of(&PODS) },
                },
            ],
        }))),
        HTTP_ROUTE => Object::HttpRoute(typed(route(metadata("route"), bits))),
        GRPC_ROUTE => Object::GrpcRoute(typed(route(metadata("calls"), bits))),
        TLS_ROUTE => Object::TlsRoute(typed(json!({
            "metadata": metadata("names"),
            "spec": {
                "parentRefs": [{ "group": "", "kind": "Service", "name": bits.one_of(&SERVICES), "namespace": bits.one_of(&NAMESPACES) }],
                "hostnames": [bits.one_of(&["a.example", "*.example"])],
                "rules": [{ "backendRefs": [{ "name": bits.one_of(&SERVICES), "namespace": bits.one_of(&NAMESPACES), "port": 80 }] }],
            },
        }))),
        6 => Object::TrafficSplit(typed(json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": metadata(SERVICES[number]),
            "spec": {
                "service": bits.one_of(&SERVICES),
                "backends": [
                    { "service": bits.one_of(&SERVICES), "weight": bits.below(3) },
                    { "service": bits.one_of(&SERVICES), "weight": 1 },
                ],
                "matches": match bits.below(3) {
                    0 => json!([]),
                    _ => json!([{ "kind": "HTTPRouteGroup", "name": bits.one_of(&GROUPS) }]),
                },
            },
        }))),
        ROUTE_GROUP => Object::HttpRouteGroup(typed(json!({
            "metadata": metadata(GROUPS[number]),
            "matches": [{
                "name": "some",
                "pathRegex": bits.one_of(&["/a", "/b", "("]),
                "methods": [bits.one_of(&["GET", "*"])],
                "headers": { "x-beta": bits.one_of(&["1", "2"]) },
            }],
        }))),
        AUTHORIZATION => Object::AuthorizationPolicy(typed(json!({
            "apiVersion": "gauze.dev/v1alpha1", "kind": "AuthorizationPolicy",
            "metadata": metadata(PODS[number]),
            "spec": {
                "targetRefs": match bits.below(4) {
                    0 => Value::Null,
                    1 => json!([{ "kind": "Pod", "selector": { "matchLabels": { "app": bits.one_of(&["x", "y"]) } } }]),
                    2 => json!([{ "kind": "Node", "name": "n" }]),
                    _ => json!([{ "kind": "Service", "name": bits.one_of(&SERVICES) }]),
                },
                "action": bits.one_of(&["Allow", "Deny"]),
                "rules": [{ "from": [{ "namespaces": [bits.one_of(&["a", "b", "A"])] }] }],
            },
        }))),
        _ => Object::TrafficPolicy(typed(json!({
            "apiVersion": "gauze.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": metadata(PODS[number]),
            "spec": {
                "targetRefs": [{ "kind": "Service", "name": bits.one_of(&SERVICES) }],
                "connectTimeout": bits.one_of(&["1s", "2s", "0s"]),
                "timeouts": { "request": bits.one_of(&["0s", "1s"]) },
            },
        }))),
    }
}

fn pod(metadata: Value, bits: &mut Bits) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": metadata,
        "spec": { "containers": [{ "name": "app" }], "hostNetwork": bits.below(6) == 0 },
        "status": {
            "phase": bits.one_of(&["Running", "Running", "Failed"]),
            "podIPs": [{ "ip": bits.one_of(&["10.1.0.1", "10.1.0.2"]) }],
        },
    });
    pod["metadata"]["labels"] = json!({ "app": bits.one_of(&["x", "y"]) });
    if bits.below(3) > 0 {
        pod["spec"]["initContainers"] = json!([{ "name": "gauze-proxy", "restartPolicy": "Always" }]);
    }
    if bits.below(3) == 0 {
        pod["metadata"]["annotations"] = json!({ "gauze.dev/mtls": "strict" });
    }
    typed(pod)
}

fn route(metadata: Value, bits: &mut Bits) -> Value {
    json!({
        "metadata": metadata,
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": bits.one_of(&SERVICES), "namespace": bits.one_of(&NAMESPACES) }],
            "rules": [{ "backendRefs": [
                { "name": bits.one_of(&SERVICES), "namespace": bits.one_of(&NAMESPACES), "port": 80 },
            ]}],
        },
    })
}

fn typed<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

/// Every name that could ever have an answer.
fn names() -> Vec<Name> {
    let mut names = Vec::new();
    for namespace in NAMESPACES {
        names.extend(PODS.map(|pod| format!("inbound/{namespace}/{pod}")));
        for address in ["10.96.0.1:80", "10.96.0.2:81", "10.1.0.1:8080", "10.1.0.2:8080"] {
            names.push(format!("outbound/{namespace}/{address}"));
        }
        for service in SERVICES {
            for port in [80, 81] {
                names.push(format!("cluster/{namespace}/{service}/{port}"));
                names.push(format!("routes/{namespace}/{service}/{port}"));
                names.extend(
                    NAMESPACES.map(|viewer| format!("routes/{namespace}/{service}/{port}/for/{viewer}")),
                );
            }
        }
    }
    names.extend(["10.1.0.1:8080", "10.1.0.2:8080"].map(|address| format!("cluster/pod/{address}")));
    names.iter().map(|name| name.parse().expect("a name")).collect()
}

fn answers(world: &World, names: &[Name]) -> BTreeMap<Name, Answer> {
    names.iter().map(|name| (name.clone(), translate(world, name).answer)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_changed_answer_was_touched_and_no_history_shows(steps in steps()) {
        let names = names();
        let mut world = World::of(MeshSettings::default(), []);
        let mut before = answers(&world, &names);
        for step in steps {
            let event = event(step);
            let touched = world.apply(event.clone());
            let after = answers(&world, &names);
            for name in &names {
                prop_assert!(
                    before[name] == after[name] || touched.contains(name),
                    "{event:?} changed {name} without touching it:\n{:?}\n{:?}", before[name], after[name]
                );
            }
            before = after;
        }
        let scratch = World::of(world.settings().clone(), world.objects().cloned());
        prop_assert_eq!(before, answers(&scratch, &names));
    }
}

#[test]
fn an_object_that_is_applied_again_touches_nothing() {
    let mut world = World::of(MeshSettings::default(), []);
    let service = || Event::Apply(object(1, 0, &mut Bits(7)));
    assert!(!world.apply(service()).is_empty());
    assert!(world.apply(service()).is_empty());
}

#[test]
fn networks_that_a_cluster_names_join_those_that_were_set() {
    let networks = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<IpNet>>();
    let settings = MeshSettings { mesh_networks: networks(&["10.0.0.0/8"]), ..MeshSettings::default() };
    let mut world = World::of(settings, []);
    let touched = world.apply(Event::MeshNetworks(networks(&["10.1.0.0/16", "198.51.100.0/24"])));
    assert_eq!(world.settings().mesh_networks, networks(&["10.0.0.0/8", "198.51.100.0/24"]));
    let touches = |name: &str| touched.contains(&name.parse().expect("a name"));
    assert_eq!((touches("inbound/a/p0"), touches("cluster/a/s0/80")), (true, false));
    assert!(!world.apply(Event::MeshNetworks(Vec::new())).is_empty());
    assert_eq!(world.settings().mesh_networks, networks(&["10.0.0.0/8"]));
    assert!(world.apply(Event::MeshNetworks(networks(&["10.2.0.0/16"]))).is_empty(), "nothing new");
}

#[test]
fn before_everything_was_told_nothing_is_decided_and_nothing_touched() {
    let mut world = World::default();
    let name = &names()[0];
    assert!(world.apply(Event::Apply(object(1, 0, &mut Bits(7)))).is_empty());
    assert_eq!(translate(&world, name).answer, Answer::Undecided);
    assert!(world.apply(Event::Synced).contains(name));
    assert_eq!(translate(&world, name).answer, Answer::Absent);
}
