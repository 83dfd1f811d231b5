//! What several replicas say, joined: each knows only the proxies that have a stream to it, so the count of
//! `Programmed` is right only over all of them. The command line joins; in the cluster the leader will.

use std::collections::BTreeMap;

use gauze_model::{Kind, Name, Origin};
use serde_json::{Value, json};

use crate::status::{self, Heard, Holding, HoldingState, Proxy};

/// The proxies of all replicas; `answers` are what each says to `GET /proxies`. A pod counts once: by its open stream,
/// else by its newest. What cannot be read, of another release, is left out.
pub fn heard_by_all(answers: &[Value]) -> Heard {
    let mut newest: BTreeMap<(String, String), (bool, u64, &Value)> = BTreeMap::new();
    for proxy in answers.iter().flat_map(|answer| list(&answer["proxies"])) {
        let pod = (text(&proxy["namespace"]), text(&proxy["pod"]));
        let connected = proxy["connected"] == true;
        let since = proxy["sinceUnixSeconds"].as_u64().unwrap_or_default();
        let known = newest.get(&pod).map(|(connected, since, _)| (*connected, *since));
        if known.is_none_or(|known| known < (connected, since)) {
            newest.insert(pod, (connected, since, proxy));
        }
    }
    let proxies = newest.into_iter().map(|((namespace, pod), (_, _, proxy))| Proxy {
        namespace,
        pod,
        resources: list(&proxy["resources"]).filter_map(holding).collect(),
    });
    Heard { proxies: proxies.collect() }
}

fn holding(value: &Value) -> Option<Holding> {
    let state = match value["state"].as_str()? {
        "current" => HoldingState::Current,
        "refused" => {
            let rejection = &value["rejection"];
            HoldingState::Refused {
                path: text(&rejection["path"]),
                problem: text(&rejection["problem"]),
                origin: read(&rejection["origin"]),
            }
        }
        "closed" => HoldingState::Closed(read(&value["closed"])?),
        _ => HoldingState::Behind,
    };
    let (kind, name): (Kind, Name) = (read(&value["kind"])?, read(&value["name"])?);
    Some(Holding { kind, name, state, origins: read(&value["origins"])? })
}

/// Counts `Programmed` again in what one replica says to `GET /objects`. Where the condition says something else than
/// a count, that stays.
pub fn count_again(objects: &mut Value, heard: &Heard) {
    for object in objects["objects"].as_array_mut().into_iter().flatten() {
        let origin = Origin {
            kind: text(&object["kind"]),
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            ..Origin::default()
        };
        let parents = object["parents"].as_array_mut().into_iter().flatten();
        let conditions = parents.flat_map(|parent| parent["conditions"].as_array_mut().into_iter().flatten());
        for condition in conditions.filter(|condition| is_count(condition)) {
            let counted = status::programmed(heard, &origin);
            condition["status"] = json!(counted.status);
            condition["reason"] = json!(counted.reason);
            condition["message"] = json!(counted.message);
        }
    }
}

fn is_count(condition: &Value) -> bool {
    let counts = ["NotUsedYet", "Programmed", "Reconciling", "PartiallyProgrammed"];
    condition["type"] == "Programmed"
        && condition["reason"].as_str().is_some_and(|reason| counts.contains(&reason))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn proxy(pod: &str, connected: bool, since: u64, state: &str) -> Value {
        let origin = json!({ "kind": "TrafficSplit", "namespace": "shop", "name": "cart", "path": "spec" });
        let rejection = json!({ "path": "spec.backends[0]", "problem": "is too large", "origin": null });
        json!({
            "namespace": "shop", "pod": pod, "connected": connected, "sinceUnixSeconds": since,
            "resources": [{
                "kind": "routes", "name": "routes/shop/cart/80", "state": state, "origins": [origin],
                "rejection": if state == "refused" { rejection } else { Value::Null },
            }],
        })
    }

    /// Status, reason and message of the split's `Programmed`, over these replicas.
    fn counted(replicas: &[&[Value]]) -> String {
        let answers: Vec<Value> = replicas.iter().map(|proxies| json!({ "proxies": proxies })).collect();
        let condition = |kind: &str, reason: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": "1/1" });
        let mut objects = json!({ "objects": [{
            "kind": "TrafficSplit", "namespace": "shop", "name": "cart",
            "parents": [{ "conditions": [condition("Accepted", "Accepted"), condition("Programmed", "Programmed")] }],
        }] });
        count_again(&mut objects, &heard_by_all(&answers));
        let conditions = &objects["objects"][0]["parents"][0]["conditions"];
        assert_eq!(conditions[0]["message"], "1/1", "only Programmed is counted again");
        let programmed = &conditions[1];
        format!(
            "{} {} {}",
            text(&programmed["status"]),
            text(&programmed["reason"]),
            text(&programmed["message"])
        )
    }

    #[test]
    fn a_pod_counts_once_whatever_replica_it_has_its_stream_to() {
        let one = proxy("web-0", true, 10, "current");
        let other = proxy("web-1", true, 20, "current");
        for (what, replicas, expected) in [
            ("one replica", &[&[one.clone()][..]][..], "True Programmed 1/1"),
            ("each has one", &[from_ref(&one), from_ref(&other)], "True Programmed 2/2"),
            (
                "the pod moved: its open stream counts",
                &[from_ref(&one), &[proxy("web-0", false, 30, "behind")]],
                "True Programmed 1/1",
            ),
            (
                "both are gone: the newest counts",
                &[&[proxy("web-0", false, 10, "current")], &[proxy("web-0", false, 30, "behind")]],
                "False Reconciling 0/1",
            ),
            (
                "only the other replica heard the refusal",
                &[from_ref(&one), &[proxy("web-1", true, 20, "refused")]],
                "False PartiallyProgrammed 1/2; shop/web-1 refused it: spec.backends[0]: is too large",
            ),
            ("nobody is there", &[&[], &[]], "True NotUsedYet 0/0"),
        ] {
            assert_eq!(counted(replicas), expected, "{what}");
        }
    }
}
