//! Whole statuses, as a cluster would hold them.

use std::fs;

use serde_json::json;

use super::*;
use crate::source::directory;
use crate::world::MeshSettings;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.11, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop, generation: 7}
spec:
  parentRefs:
  - {name: a-gateway-of-another-controller}
  - {group: "", kind: Service, name: cart, port: 80}
  rules: [{backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: gauze.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: cart, namespace: shop, generation: 2}
spec:
  targetRefs: [{kind: Service, name: cart}]
  connectTimeout: 2s
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: cart, namespace: shop, generation: 3}
spec: {service: crat, backends: [{service: cart, weight: 1}]}
"#;

/// The statuses of objects, as JSON by object.
fn statuses(objects: &str, heard: &Heard) -> Vec<(String, Value)> {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a.yaml"), objects).expect("writable");
    let (objects, problems) = directory::read(directory.path());
    let world = World::of(MeshSettings::default(), objects);
    let statuses = conditions(&world, &problems, heard);
    let shape = |status: &ObjectStatus| Shape::of(status.object.kind).expect("it has a status");
    let json = |status: &ObjectStatus| Ours::of(status, &[]).to_json(shape(status), &[]);
    statuses.iter().map(|status| (status.object.to_string(), json(status))).collect()
}

fn condition(name: &str, status: &str, reason: &str, message: &str, generation: i64) -> Value {
    json!({ "type": name, "status": status, "reason": reason, "message": message, "observedGeneration": generation })
}

#[test]
fn each_kind_has_the_status_that_its_users_look_for() {
    let origin = Origin {
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "cart".into(),
        generation: 7,
        ..Origin::default()
    };
    let holding = Holding {
        kind: Kind::Routes,
        name: "routes/shop/cart/80".parse().expect("a name"),
        state: HoldingState::Current,
        origins: [origin.at("spec.rules[0]")].into(),
    };
    let proxy = Proxy { namespace: "shop".into(), pod: "web-0".into(), resources: vec![holding] };
    let expected = vec![
        (
            "HTTPRoute/shop/cart".to_owned(),
            json!({ "parents": [{
                "parentRef": { "group": "", "kind": "Service", "name": "cart", "port": 80 },
                "controllerName": "gauze.dev/control-plane",
                "conditions": [
                    condition("Accepted", "True", "Accepted", "accepted", 7),
                    condition("ResolvedRefs", "True", "ResolvedRefs", "all references resolve", 7),
                    condition("Programmed", "True", "Programmed", "1/1", 7),
                ],
            }]}),
        ),
        (
            "TrafficSplit/shop/cart".to_owned(),
            json!({ "split": "cart=1", "accepted": "False", "conditions": [condition(
                "Accepted", "False", "TargetNotFound",
                "spec.service: there is no Service `crat` in namespace `shop`; correct the name, or create the Service (M5001)", 3,
            )]}),
        ),
        (
            "TrafficPolicy/shop/cart".to_owned(),
            json!({ "ancestors": [{
                "ancestorRef": { "group": "", "kind": "Service", "name": "cart" },
                "controllerName": "gauze.dev/control-plane",
                "conditions": [
                    condition("Accepted", "True", "Accepted", "accepted", 2),
                    condition("Programmed", "True", "NotUsedYet", "0/0", 2),
                ],
            }], "targets": "cart", "accepted": "True", "programmed": "0/0" }),
        ),
    ];
    assert_eq!(statuses(OBJECTS, &Heard { proxies: vec![proxy], ..Heard::default() }), expected);
}

#[test]
fn an_object_whose_new_version_cannot_be_used_says_so_and_that_the_old_one_holds() {
    let problem = Problem::new(
        gauze_model::Code::WRONG_TYPE,
        Origin {
            kind: "TrafficPolicy".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            ..Origin::default()
        }
        .at("spec.connectTimeout"),
        "invalid type",
    );
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a.yaml"), OBJECTS).expect("writable");
    let world = World::of(MeshSettings::default(), directory::read(directory.path()).0);
    let statuses = conditions(&world, &[problem], &Heard::default());
    let policy =
        statuses.iter().find(|status| status.object.kind == ObjectKind::TrafficPolicy).expect("its status");
    let accepted = &policy.parents[0].conditions[0];
    assert_eq!(
        (accepted.status, &*accepted.reason, accepted.message.as_str()),
        (
            Truth::False,
            "Invalid",
            "spec.connectTimeout: invalid type (M1003); its last good version stays in force"
        )
    );
}
