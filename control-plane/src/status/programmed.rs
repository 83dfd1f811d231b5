//! `Programmed n/m`: how many of the pods that an object concerns hold what it says now (DESIGN, "Is it live").

use std::collections::{BTreeSet, HashMap};

use gauze_model::Origin;

use super::conditions::condition;
use super::{ClosedPolicy, Condition, Heard, Holding, HoldingState, Proxy, Truth};

/// Pods that one condition names; of more it says how many.
const PODS_MAX: usize = 3;

/// How far an object has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Pods that hold it as it is now.
    current: usize,
    /// Pods that hold or should hold it.
    concerned: usize,
    /// Who refused it, and why.
    refusals: Vec<String>,
    /// Replicas whose pods are not counted.
    unheard: Vec<String>,
}

/// Who holds what of which object: made once, asked for each.
pub(super) struct Counts<'h> {
    unheard: &'h [String],
    /// By kind, namespace and name of the object: each proxy that it concerns, with what that holds of it.
    concerned: HashMap<(&'h str, &'h str, &'h str), Vec<Concerned<'h>>>,
}

/// A proxy, and what it holds of one object.
type Concerned<'h> = (&'h Proxy, Vec<&'h Holding>);

impl<'h> Counts<'h> {
    pub(super) fn of(heard: &'h Heard) -> Counts<'h> {
        let mut counts = Counts { unheard: &heard.unheard, concerned: HashMap::new() };
        for proxy in &heard.proxies {
            for holding in &proxy.resources {
                let objects: BTreeSet<_> = holding.origins.iter().map(Origin::object).collect();
                objects.into_iter().for_each(|object| counts.add(object, proxy, holding));
            }
        }
        counts
    }

    /// All holdings of one proxy come in a row.
    fn add(&mut self, object: (&'h str, &'h str, &'h str), proxy: &'h Proxy, holding: &'h Holding) {
        let concerned = self.concerned.entry(object).or_default();
        match concerned.last_mut().filter(|(last, _)| std::ptr::eq(*last, proxy)) {
            Some((_, holdings)) => holdings.push(holding),
            None => concerned.push((proxy, vec![holding])),
        }
    }

    /// Counts the pods by an object; each pod once, whatever number of resources it holds of it.
    pub(super) fn count(&self, origin: &Origin) -> Count {
        let mut count = Count { unheard: self.unheard.to_vec(), ..Count::default() };
        for (proxy, holdings) in self.concerned.get(&origin.object()).into_iter().flatten() {
            count.concerned += 1;
            if holdings.iter().all(|holding| is_current(holding, origin)) {
                count.current += 1;
            }
            count.refusals.extend(holdings.iter().find_map(|holding| refusal(proxy, &holding.state, origin)));
        }
        count
    }
}

/// Whether it is what this version of the object yields: the replica that says so may not have seen that one yet. A
/// policy that is closed takes nothing from the others beside it.
fn is_current(holding: &Holding, origin: &Origin) -> bool {
    let of_object = holding.origins.iter().filter(|of| of.object() == origin.object());
    let newest = of_object.map(|of| of.generation).max().unwrap_or_default();
    let is_held = match &holding.state {
        HoldingState::Current => true,
        HoldingState::Closed(policies) => {
            policies.iter().all(|policy| policy.origin.object() != origin.object())
        }
        HoldingState::Behind | HoldingState::Refused { .. } => false,
    };
    is_held && newest >= origin.generation
}

fn refusal(proxy: &Proxy, state: &HoldingState, object: &Origin) -> Option<String> {
    if let HoldingState::Closed(policies) = state {
        let ClosedPolicy { path, problem, .. } =
            policies.iter().find(|policy| policy.origin.object() == object.object())?;
        return Some(format!("{}/{} closed it: {path}: {problem}", proxy.namespace, proxy.pod));
    }
    let HoldingState::Refused { path, problem, origin } = state else { return None };
    let because = match origin {
        Some(origin) if origin.object() == object.object() && !origin.path.is_empty() => origin.path.clone(),
        Some(origin) if origin.object() != object.object() => format!("of {origin}"),
        _ => path.clone(),
    };
    Some(format!("{}/{} refused it: {because}: {problem}", proxy.namespace, proxy.pod))
}

impl Count {
    pub(super) fn condition(&self) -> Condition {
        let Count { current, concerned, refusals, unheard } = self;
        if !unheard.is_empty() {
            let who = unheard.join(", ");
            let message =
                format!("{current}/{concerned} without the proxies of {who}, which cannot be asked");
            return condition("Programmed", Truth::Unknown, "ReplicaUnreachable", message);
        }
        let (status, reason) = match (current == concerned, concerned, refusals.is_empty()) {
            (_, 0, _) => (Truth::True, "NotUsedYet"),
            (true, ..) => (Truth::True, "Programmed"),
            (false, _, true) => (Truth::False, "Reconciling"),
            (false, _, false) => (Truth::False, "PartiallyProgrammed"),
        };
        let mut parts = vec![format!("{current}/{concerned}")];
        parts.extend(refusals.iter().take(PODS_MAX).cloned());
        if refusals.len() > PODS_MAX {
            parts.push(format!("and {} more", refusals.len() - PODS_MAX));
        }
        condition("Programmed", status, reason, parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use gauze_model::{Kind, Name};

    use super::*;

    fn split(name: &str) -> Origin {
        Origin {
            kind: "TrafficSplit".into(),
            namespace: "shop".into(),
            name: name.into(),
            ..Origin::default()
        }
    }

    fn proxy(pod: &str, holdings: &[(HoldingState, &str)]) -> Proxy {
        let name = Name::Pod(SocketAddr::from(([10, 0, 0, 1], 80)));
        let resources = holdings.iter().map(|(state, origin)| Holding {
            kind: Kind::Routes,
            name: name.clone(),
            state: state.clone(),
            origins: [split(origin).at("spec.backends")].into(),
        });
        Proxy { namespace: "shop".into(), pod: pod.into(), resources: resources.collect() }
    }

    fn refused(path: &str, origin: Option<Origin>) -> HoldingState {
        HoldingState::Refused { path: path.into(), problem: "is too large".into(), origin }
    }

    fn closed(policy: &str) -> HoldingState {
        let (path, problem) = ("metadata.policies[1]".into(), "requires what it does not have".into());
        HoldingState::Closed(vec![ClosedPolicy { origin: split(policy), path, problem }])
    }

    #[test]
    fn a_pod_counts_once_and_only_if_it_holds_all_of_it() {
        use HoldingState::{Behind, Current};
        for (what, proxies, status, reason, message) in [
            ("no proxy at all", vec![], Truth::True, "NotUsedYet", "0/0"),
            (
                "a proxy that holds another object",
                vec![proxy("web-0", &[(Behind, "other")])],
                Truth::True,
                "NotUsedYet",
                "0/0",
            ),
            (
                "two resources of one pod",
                vec![proxy("web-0", &[(Current, "cart"), (Current, "cart")])],
                Truth::True,
                "Programmed",
                "1/1",
            ),
            (
                "one of two resources is behind",
                vec![
                    proxy("web-0", &[(Current, "cart"), (Behind, "cart")]),
                    proxy("web-1", &[(Current, "cart")]),
                ],
                Truth::False,
                "Reconciling",
                "1/2",
            ),
            (
                "a refusal for a field of this object",
                vec![proxy("web-0", &[(refused("x", Some(split("cart").at("spec.backends[1]"))), "cart")])],
                Truth::False,
                "PartiallyProgrammed",
                "0/1; shop/web-0 refused it: spec.backends[1]: is too large",
            ),
            (
                "a refusal for another object in the same resource",
                vec![proxy("web-0", &[(refused("x", Some(split("other").at("spec.backends"))), "cart")])],
                Truth::False,
                "PartiallyProgrammed",
                "0/1; shop/web-0 refused it: of TrafficSplit/shop/other spec.backends: is too large",
            ),
            (
                "a policy that a proxy could not read and closed",
                vec![proxy("web-0", &[(closed("cart"), "cart")]), proxy("web-1", &[(Current, "cart")])],
                Truth::False,
                "PartiallyProgrammed",
                "1/2; shop/web-0 closed it: metadata.policies[1]: requires what it does not have",
            ),
            (
                "another policy that a proxy closed beside it",
                vec![proxy("web-0", &[(closed("other"), "cart")])],
                Truth::True,
                "Programmed",
                "1/1",
            ),
            (
                "a refusal without origin",
                vec![proxy("web-0", &[(refused("rules[0]", None), "cart")])],
                Truth::False,
                "PartiallyProgrammed",
                "0/1; shop/web-0 refused it: rules[0]: is too large",
            ),
        ] {
            let heard = Heard { proxies, ..Heard::default() };
            let condition = Counts::of(&heard).count(&split("cart")).condition();
            assert_eq!(
                (condition.status, &*condition.reason, condition.message.as_str()),
                (status, reason, message),
                "{what}"
            );
        }
    }
}
