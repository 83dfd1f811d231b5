//! What several replicas say, joined. A pod counts once, whatever replica it has or had its stream to.

use std::collections::BTreeMap;

use gauze_model::{Kind, Name};
use serde_json::Value;

use super::{Heard, Holding, HoldingState, Proxy};

/// The proxies of all replicas; `answers` are what each says to `GET /proxies`. A pod counts by its open stream, else by
/// its newest. What cannot be read, of another release, is left out.
pub fn heard_by_all(answers: &[&Value]) -> Heard {
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
    Heard { proxies: proxies.collect(), unheard: Vec::new() }
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

    use gauze_model::Origin;
    use serde_json::json;

    use super::super::programmed;
    use super::*;

    const GENERATION: i64 = 2;

    fn proxy(pod: &str, connected: bool, since: u64, state: &str) -> Value {
        let origin = json!({ "kind": "TrafficSplit", "namespace": "shop", "name": "cart", "path": "spec", "generation": GENERATION });
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
    fn counted(replicas: &[&[Value]], generation: i64, unheard: &[&str]) -> String {
        let answers: Vec<Value> = replicas.iter().map(|proxies| json!({ "proxies": proxies })).collect();
        let unheard = unheard.iter().map(ToString::to_string).collect();
        let heard = Heard { unheard, ..heard_by_all(&answers.iter().collect::<Vec<_>>()) };
        let split = Origin {
            kind: "TrafficSplit".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            generation,
            ..Origin::default()
        };
        let condition = programmed::Counts::of(&heard).count(&split).condition();
        format!("{:?} {} {}", condition.status, condition.reason, condition.message)
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
            assert_eq!(counted(replicas, GENERATION, &[]), expected, "{what}");
        }
    }

    #[test]
    fn without_the_word_of_a_replica_nothing_is_claimed() {
        let one = [proxy("web-0", true, 10, "current")];
        let expected = "Unknown ReplicaUnreachable 1/1 without the proxies of gauze-1, which cannot be asked";
        assert_eq!(counted(&[&one], GENERATION, &["gauze-1"]), expected);
    }

    #[test]
    fn a_replica_that_has_not_seen_the_newest_version_does_not_speak_for_it() {
        let one = [proxy("web-0", true, 10, "current")];
        assert_eq!(counted(&[&one], GENERATION + 1, &[]), "False Reconciling 0/1");
    }
}
