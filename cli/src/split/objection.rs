//! Why weights of a split should not be written by hand: somebody else writes them, or nobody reads them.

use serde_json::Value;

use super::{text, wait};

/// In a sentence; `None`: nothing speaks against it.
pub(super) fn of(split: &Value) -> Option<String> {
    let name = format!("{}/{}", text(&split["metadata"]["namespace"]), text(&split["metadata"]["name"]));
    owner(split).map(|owner| owned(&name, &owner)).or_else(|| overridden(&name, split))
}

/// The controller that makes it what it is (`metav1.OwnerReference.controller`): Flagger and Argo Rollouts set it.
fn owner(split: &Value) -> Option<Value> {
    let owners = split["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true).cloned()
}

fn owned(name: &str, owner: &Value) -> String {
    let (kind, owner_name, version) =
        (text(&owner["kind"]), text(&owner["name"]), text(&owner["apiVersion"]));
    let remedy = match version.split('/').next() {
        Some("flagger.app") => "pause it (`spec.suspend: true`) or change its `analysis`".to_owned(),
        Some("argoproj.io") => {
            format!("use `kubectl argo rollouts promote {owner_name}`, or pause and abort there")
        }
        _ => format!("change that {kind}"),
    };
    format!(
        "{kind} {owner_name} ({version}) owns the split {name} and will write its own weights again: {remedy}"
    )
}

/// What the control plane has written into the status, if that is about what stands there now.
fn overridden(name: &str, split: &Value) -> Option<String> {
    let standing = wait::Standing::of_status(split)?;
    let reason = standing.overridden()?;
    Some(format!("weights of the split {name} have no effect: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(owners: Value, status: Value) -> Value {
        json!({
            "metadata": { "name": "cart", "namespace": "shop", "generation": 3, "ownerReferences": owners },
            "status": status,
        })
    }

    fn status(condition: &str, reason: &str, generation: i64) -> Value {
        json!({ "conditions": [{
            "type": condition, "status": "False", "reason": reason, "observedGeneration": generation,
            "message": "spec.service: an HTTPRoute, GRPCRoute or TLSRoute decides at port 80",
        }]})
    }

    #[test]
    fn what_another_writes_or_a_route_decides_is_not_written_by_hand() {
        let owner = |version: &str, kind: &str, controller: bool| json!([{ "apiVersion": version, "kind": kind, "name": "cart", "controller": controller }]);
        for (what, split, expected) in [
            ("nobody's", split(Value::Null, Value::Null), None),
            (
                "Flagger's",
                split(owner("flagger.app/v1beta1", "Canary", true), Value::Null),
                Some("Canary cart (flagger.app/v1beta1) owns the split shop/cart"),
            ),
            (
                "Argo's",
                split(owner("argoproj.io/v1alpha1", "Rollout", true), Value::Null),
                Some("kubectl argo rollouts promote cart"),
            ),
            (
                "some other controller's",
                split(owner("example.org/v1", "Release", true), Value::Null),
                Some("change that Release"),
            ),
            ("an owner that does not write", split(owner("apps/v1", "Deployment", false), Value::Null), None),
            (
                "a route decides",
                split(Value::Null, status("Programmed", "Overridden", 3)),
                Some("have no effect: spec.service: an HTTPRoute"),
            ),
            (
                "a route decided over an earlier version",
                split(Value::Null, status("Programmed", "Overridden", 2)),
                None,
            ),
            ("not live yet", split(Value::Null, status("Programmed", "Reconciling", 3)), None),
        ] {
            let said = of(&split);
            let as_expected = match (&said, expected) {
                (None, None) => true,
                (Some(said), Some(expected)) => said.contains(expected),
                _ => false,
            };
            assert!(as_expected, "{what}: {said:?}");
        }
    }
}
