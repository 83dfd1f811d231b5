//! Has every pod the sidecar that it should have, and does each follow the control plane?

mod owners; // what a pod belongs to, and how it is made anew

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;
use gauze_control_plane::inject::{self, Action, Asked, InjectionSettings, Injector, Rule};
use gauze_model::Code;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::facts::{Answer, Facts};
use super::report::{Line, counted};
use crate::pod;

/// A control plane serves sidecars of its own and of so many minor releases before.
const SKEW_MAX: u64 = 3;

/// The flags of injection as they are without any; a pod's wishes are only read, not rendered.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    settings: InjectionSettings,
}

pub(super) fn sidecars_missing(facts: &Facts) -> Vec<Line> {
    let (Ok(namespaces), Ok(_)) = (&facts.namespaces, &facts.pods) else { return Vec::new() };
    let asked: BTreeMap<&str, Asked> = namespaces
        .iter()
        .filter_map(|namespace| Some((namespace.metadata.name.as_deref()?, Asked::by(namespace))))
        .collect();
    let injector = injector(facts);
    let excluded = excluded(facts);
    let (mut missing, mut declined, mut apart) = (Vec::new(), 0, 0);
    for pod in facts.live_pods().filter(|pod| !pod::has_live_sidecar(pod)) {
        let namespace = pod::namespace(pod);
        let Some(asked) = asked.get(namespace).filter(|_| !excluded.contains(namespace)) else { continue };
        let decision = inject::decide(pod, asked, &injector);
        let asks_itself = matches!(decision.rule, Rule::PodLabel | Rule::PodAnnotation);
        match (&decision.action, decision.rule) {
            (Action::Inject(_), _) => missing.push((pod, decision.reason())),
            (Action::Refuse(_), _) => missing.push((pod, format!("would be refused: {}", decision.reason()))),
            (Action::Leave, Rule::HostNetwork | Rule::Windows) => apart += 1,
            (Action::Leave, _) => declined += usize::from(asks_itself),
        }
    }
    let mut lines = Vec::new();
    lines.extend(missing_line(&missing));
    if apart > 0 {
        lines.push(Line::note(format!(
            "{} on the network of the node, or of Windows: left alone",
            counted(apart, "pod")
        )));
    }
    if declined > 0 {
        lines.push(Line::note(format!(
            "{} opted out ({}: disabled)",
            counted(declined, "pod"),
            inject::INJECT
        )));
    }
    lines
}

fn missing_line(missing: &[(&Pod, String)]) -> Option<Line> {
    if missing.is_empty() {
        return None;
    }
    let details = missing.iter().map(|(pod, why)| {
        format!(
            "{}/{}   {why}; the pod is older, or injection was not in force",
            pod::namespace(pod),
            pod::name(pod)
        )
    });
    let what = format!("{} should have a sidecar and no sidecar is there", counted(missing.len(), "pod"));
    let fix = owners::restart(missing.iter().map(|(pod, _)| *pod));
    Some(Line::error(Code::SIDECAR_MISSING, what).with(details.collect()).fix(fix))
}

/// What the pure decision needs; the mesh's own settings do not matter to it.
pub(crate) fn injector(facts: &Facts) -> Injector {
    let about = facts.answered().next().map_or(&Value::Null, |answer| &answer.about);
    let mesh = gauze_control_plane::admin::views::settings_in(about);
    Injector {
        settings: Defaults::parse_from(["gauze"]).settings,
        trust_domain: mesh.trust_domain,
        system_namespace: facts.system_namespace.clone(),
        mesh_networks: mesh.mesh_networks,
    }
}

/// Namespaces that the webhook never sees.
fn excluded(facts: &Facts) -> BTreeSet<&str> {
    let configurations = facts.webhook.iter().flatten();
    let webhooks = configurations.flat_map(|configuration| configuration.webhooks.iter().flatten());
    let selectors = webhooks.filter_map(|webhook| webhook.namespace_selector.as_ref());
    let terms = selectors.flat_map(|selector| selector.match_expressions.iter().flatten());
    let by_name = terms.filter(|term| term.key == "kubernetes.io/metadata.name" && term.operator == "NotIn");
    by_name.flat_map(|term| term.values.iter().flatten()).map(String::as_str).collect()
}

/// What the control plane knows of the sidecars' streams.
pub(super) fn connections(facts: &Facts) -> Vec<Line> {
    if facts.pods.is_err() || !facts.all_answered() {
        return Vec::new();
    }
    let count = Count::of(facts.sidecars(), facts.answered());
    let mut lines = Vec::new();
    if !count.unconnected.is_empty() {
        let what =
            format!("{} not connected to the control plane", counted(count.unconnected.len(), "sidecar"));
        lines.push(Line::warning(Code::SIDECAR_NOT_CONNECTED, what).with(count.unconnected.clone()));
    }
    if count.meshed == 0 {
        lines.push(Line::note(
            "no pod has a sidecar yet: kubectl label namespace NAME gauze.dev/inject=enabled, then restart its workloads",
        ));
    } else {
        lines.push(Line::fine(format!(
            "{}/{} sidecars connected, {} up to date",
            count.connected, count.meshed, count.current
        )));
    }
    lines
}

/// The sidecars of the cluster, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Pods with a sidecar.
    pub(crate) meshed: usize,
    /// Of these: those with an open stream to some replica.
    pub(crate) connected: usize,
    /// Of these: those that hold all that they should.
    pub(crate) current: usize,
    /// Pods that run and have no stream.
    pub(crate) unconnected: Vec<String>,
}

impl Count {
    pub(crate) fn of<'a>(
        sidecars: impl Iterator<Item = &'a Pod>,
        answers: impl Iterator<Item = &'a Answer>,
    ) -> Count {
        let mut streams: BTreeMap<String, bool> = BTreeMap::new();
        for proxy in proxies(answers).filter(|proxy| proxy["connected"] == true) {
            let current = list(&proxy["resources"]).all(|resource| resource["state"] == "current");
            streams.insert(name_of(proxy), current);
        }
        let mut count = Count::default();
        for pod in sidecars {
            let name = format!("{}/{}", pod::namespace(pod), pod::name(pod));
            count.meshed += 1;
            match streams.get(&name) {
                Some(current) => {
                    count.connected += 1;
                    count.current += usize::from(*current);
                }
                // One that is still starting is not late yet.
                None if pod::is_ready(pod) => count.unconnected.push(name),
                None => {}
            }
        }
        count
    }
}

/// Every stream of every replica.
fn proxies<'a>(answers: impl Iterator<Item = &'a Answer>) -> impl Iterator<Item = &'a Value> {
    answers.flat_map(|answer| list(&answer.proxies["proxies"]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn name_of(proxy: &Value) -> String {
    format!("{}/{}", text(&proxy["namespace"]), text(&proxy["pod"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Configuration that a sidecar does not take.
pub(super) fn refusals(facts: &Facts) -> Option<Line> {
    let refusals = refused(facts.answered());
    (!refusals.is_empty()).then(|| {
        let what = format!("{} of configuration by sidecars", counted(refusals.len(), "refusal"));
        Line::error(Code::CONFIGURATION_REFUSED, what).with(refusals)
    })
}

/// `shop/web-0 closes AuthorizationPolicy/shop/admin: metadata.policies[0]: …`
fn closed(proxy: &Value) -> impl Iterator<Item = String> {
    let policies = list(&proxy["resources"]).flat_map(|resource| list(&resource["closed"]));
    policies.map(move |policy| {
        let origin = &policy["origin"];
        let [kind, namespace, name] = ["kind", "namespace", "name"].map(|part| text(&origin[part]));
        let (path, problem) = (text(&policy["path"]), text(&policy["problem"]));
        format!("{} closes {kind}/{namespace}/{name}: {path}: {problem}", name_of(proxy))
    })
}

/// `shop/web-0 refuses routes/shop/cart/80: spec.rules[0]: …`
pub(crate) fn refused<'a>(answers: impl Iterator<Item = &'a Answer>) -> Vec<String> {
    let connected = proxies(answers).filter(|proxy| proxy["connected"] == true);
    let mut all: Vec<String> = connected
        .flat_map(|proxy| {
            let refused = list(&proxy["resources"]).filter(|resource| resource["state"] == "refused");
            let refused = refused.map(move |resource| {
                let rejection = &resource["rejection"];
                format!(
                    "{} refuses {}: {}: {}",
                    name_of(proxy),
                    text(&resource["name"]),
                    text(&rejection["path"]),
                    text(&rejection["problem"])
                )
            });
            refused.chain(closed(proxy))
        })
        .collect();
    all.sort();
    all
}

/// Sidecars of other releases than the control plane's.
pub(super) fn releases(facts: &Facts) -> Vec<Line> {
    let Some(serving) = facts.version().and_then(release) else { return Vec::new() };
    let (mut old, mut too_old) = (Vec::new(), Vec::new());
    for pod in facts.sidecars() {
        let Some(of_pod) = injected_by(pod).and_then(release) else { continue };
        if of_pod.0 < serving.0 || serving.1 > of_pod.1 + SKEW_MAX {
            too_old.push(pod);
        } else if of_pod < serving {
            old.push(pod);
        }
    }
    let line = |code: Code, what: &str, pods: &[&Pod]| {
        let details = pods.iter().map(|pod| {
            format!("{}/{}   {}", pod::namespace(pod), pod::name(pod), injected_by(pod).unwrap_or_default())
        });
        let what = format!("{} {what}", counted(pods.len(), "sidecar"));
        let line =
            if code == Code::SIDECAR_OLD { Line::warning(code, what) } else { Line::error(code, what) };
        line.with(details.collect()).fix(owners::restart(pods.iter().copied()))
    };
    let mut lines = Vec::new();
    if !too_old.is_empty() {
        lines.push(line(Code::SIDECAR_TOO_OLD, "too old for the control plane", &too_old));
    }
    if !old.is_empty() {
        lines.push(line(Code::SIDECAR_OLD, "older than the control plane", &old));
    }
    lines
}

/// The release that injected the pod: the annotation ends with `by gauze X.Y.Z`.
fn injected_by(pod: &Pod) -> Option<&str> {
    let annotation = pod.metadata.annotations.as_ref()?.get(inject::INJECTED)?;
    annotation.rsplit_once("by gauze ").map(|(_, version)| version.trim())
}

/// Major, minor, patch.
fn release(version: &str) -> Option<(u64, u64, u64)> {
    let numbers = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut numbers = numbers.split('.').map(str::parse::<u64>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Services and pods with addresses that sidecars do not ask about.
pub(super) fn outside_mesh_networks(facts: &Facts) -> Option<Line> {
    let answer = facts.answered().next()?;
    let outside = answer.problems.iter().filter(|problem| problem["code"] == "M1009");
    let outside: Vec<String> = outside
        .map(|problem| {
            let origin = &problem["origin"];
            let [kind, namespace, name] = ["kind", "namespace", "name"].map(|key| text(&origin[key]));
            format!("{kind}/{namespace}/{name}   {}", text(&problem["message"]))
        })
        .collect();
    (!outside.is_empty()).then(|| {
        let what = format!("{} outside the mesh networks", counted(outside.len(), "address"));
        let fix = "add the network to the chart's value meshNetworks";
        Line::error(Code::OUTSIDE_MESH_NETWORKS, what).with(outside).fix(fix)
    })
}

/// After an uninstallation: pods that have their sidecars still.
pub(super) fn left_behind(facts: &Facts) -> Option<Line> {
    let pods: Vec<&Pod> = facts.sidecars().collect();
    if pods.is_empty() || facts.control_plane.is_err() {
        return None;
    }
    let details = pods.iter().map(|pod| format!("{}/{}", pod::namespace(pod), pod::name(pod))).collect();
    let what = format!("{} with a sidecar, and no control plane", counted(pods.len(), "pod"));
    Some(Line::warning(Code::SIDECAR_LEFT_BEHIND, what).with(details).fix(owners::restart(pods.into_iter())))
}

#[cfg(test)]
mod tests;
