//! Is the control plane there, does it answer, and does the API server trust its webhooks?

use gauze_model::Code;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};

use super::facts::{Answer, Facts};
use super::report::{Line, counted};
use crate::pod;

/// Days before its end from which the root is a warning, and an error.
const ROOT_SOON: u64 = 60;
const ROOT_VERY_SOON: u64 = 14;
const DAY: u64 = 24 * 3600;

/// Before an installation: what is there already.
pub(super) fn before(facts: &Facts) -> Option<Line> {
    let version = |replicas: &crate::cluster::Replicas| {
        let labels = replicas.deployment.metadata.labels.clone().unwrap_or_default();
        labels.get("app.kubernetes.io/version").cloned().unwrap_or_else(|| "of an unknown release".to_owned())
    };
    let namespace = &facts.system_namespace;
    match facts.control_plane.as_ref().ok()? {
        Some(replicas) => {
            Some(Line::note(format!("gauze {} is installed in {namespace} already", version(replicas))))
        }
        None => Some(Line::fine(format!("nothing of gauze is in namespace {namespace} yet"))),
    }
}

pub(super) fn replicas(facts: &Facts) -> Vec<Line> {
    let replicas = match &facts.control_plane {
        Ok(Some(replicas)) => replicas,
        Ok(None) => {
            let namespace = &facts.system_namespace;
            let what = format!("gauze is not installed in namespace {namespace}");
            return vec![
                Line::error(Code::NOT_INSTALLED, what)
                    .fix(format!("helm install gauze charts/gauze -n {namespace} --create-namespace --wait")),
            ];
        }
        Err(_) => return Vec::new(),
    };
    let deployment = &replicas.deployment;
    let wished = deployment.spec.replicas.unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let leads = replicas.leader.as_deref();
    let leader = replicas.pods.iter().map(pod::name).find(|name| Some(*name) == leads);
    let mut lines = Vec::new();
    if ready < wished || wished == 0 {
        let unready = replicas.pods.iter().filter(|pod| !pod::is_ready(pod));
        let unready = unready.map(|pod| pod::name(pod).to_owned()).collect();
        let what = format!("{ready}/{wished} replicas ready");
        let line = if ready == 0 {
            Line::error(Code::REPLICAS_NOT_READY, what)
        } else {
            Line::warning(Code::REPLICAS_NOT_READY, what)
        };
        let namespace = &facts.system_namespace;
        lines.push(line.with(unready).fix(format!(
            "kubectl -n {namespace} describe pods; kubectl -n {namespace} logs deploy/gauze-control-plane"
        )));
    } else {
        let leader = leader.map_or_else(String::new, |leader| format!(", leader {leader}"));
        lines.push(Line::fine(format!("{ready}/{wished} replicas ready{leader}")));
    }
    if leader.is_none() && ready > 0 {
        let what = match leads {
            Some(name) => format!("the leader {name} is not there"),
            None => "no replica leads".to_owned(),
        };
        lines.push(Line::warning(Code::NO_LEADER, what));
    }
    lines
}

/// Whether each ready replica can be asked, and which release they and this command are.
pub(super) fn answers(facts: &Facts) -> Vec<Line> {
    let silent: Vec<String> = facts
        .answers
        .iter()
        .filter_map(|(pod, answer)| Some(format!("{pod}: {}", answer.as_ref().err()?)))
        .collect();
    let mut lines = Vec::new();
    if !silent.is_empty() {
        let what = format!("{} could not be asked", counted(silent.len(), "replica"));
        lines.push(Line::warning(Code::REPLICA_SILENT, what).with(silent));
    }
    let client = env!("CARGO_PKG_VERSION");
    match facts.version() {
        Some(version) if version == client => {
            lines.push(Line::fine(format!("release {version}, as this command")))
        }
        Some(version) => lines.push(Line::note(format!("release {version}; this command is of {client}"))),
        None => {}
    }
    lines
}

pub(super) fn certificates(facts: &Facts) -> Vec<Line> {
    let root = facts.answered().find_map(|answer| certificate(answer, "rootEnds"));
    let mut lines: Vec<Line> =
        root.into_iter().map(|ends| root_line(ends.saturating_sub(facts.now))).collect();
    let neglected = facts.answers.iter().filter_map(|(pod, answer)| {
        let answer = answer.as_ref().ok()?;
        let left = certificate(answer, "ownEnds")?.saturating_sub(facts.now);
        (left < certificate(answer, "life")? / 4).then(|| format!("{pod}: {} left", duration(left)))
    });
    let neglected: Vec<String> = neglected.collect();
    if !neglected.is_empty() {
        let what = "a certificate of the control plane is not renewed";
        lines.push(Line::error(Code::OWN_CERTIFICATE_NOT_RENEWED, what).with(neglected));
    }
    lines
}

fn root_line(left: u64) -> Line {
    let days = left / DAY;
    let what = format!("the root certificate ends in {}", duration(left));
    match days {
        0..ROOT_VERY_SOON => Line::error(Code::ROOT_ENDS, what),
        ROOT_VERY_SOON..ROOT_SOON => Line::warning(Code::ROOT_ENDS, what),
        _ => Line::fine(what),
    }
}

fn certificate(answer: &Answer, what: &str) -> Option<u64> {
    answer.about["certificates"][what].as_u64()
}

/// `12 days`, `20 h`, `5 min`.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / DAY),
    }
}

pub(super) fn webhook(facts: &Facts) -> Vec<Line> {
    let configuration = match &facts.webhook {
        Ok(Some(configuration)) => configuration,
        Ok(None) => {
            let what = "there is no injection webhook: no pod gets a sidecar";
            return vec![Line::error(Code::WEBHOOK_MISSING, what)];
        }
        Err(_) => return Vec::new(),
    };
    let roots = facts.trust.values().find_map(|roots| roots.as_ref().ok()?.as_deref());
    let mut lines = Vec::new();
    let distrusted = named(configuration, |webhook| !trusts(webhook.client_config.ca_bundle.as_ref(), roots));
    if !distrusted.is_empty() {
        let what = "the API server does not trust the injection webhook: pods that ask for a sidecar are not created";
        lines.push(Line::error(Code::WEBHOOK_ROOTS_DIFFER, what).with(distrusted));
    }
    let lenient = named(configuration, |webhook| webhook.failure_policy.as_deref() == Some("Ignore"));
    if !lenient.is_empty() {
        let what = "pods are created without sidecar while the webhook does not answer";
        lines.push(Line::warning(Code::WEBHOOK_IGNORES_FAILURES, what).with(lenient));
    }
    if lines.is_empty() {
        lines.push(Line::fine("the injection webhook is in force, and trusted by the API server"));
    }
    lines
}

/// TrafficSplits of older versions, if it is our control plane that converts them; said only where something is wrong.
pub(super) fn conversion(facts: &Facts) -> Option<Line> {
    let definition = facts.definitions.as_ref().ok()?.get(SPLITS)?;
    let client = definition.spec.conversion.as_ref()?.webhook.as_ref()?.client_config.as_ref()?;
    let service = client.service.as_ref().filter(|service| service.name == SERVICE)?;
    let roots = facts.trust.values().find_map(|roots| roots.as_ref().ok()?.as_deref());
    if trusts(client.ca_bundle.as_ref(), roots) {
        return None;
    }
    let what = "TrafficSplits can be read and written in v1alpha4 alone: the API server does not trust who converts them";
    let who = format!("{SPLITS}: {}/{SERVICE}", service.namespace);
    Some(Line::error(Code::WEBHOOK_ROOTS_DIFFER, what).with(vec![who]))
}

const SPLITS: &str = "trafficsplits.split.smi-spec.io";
/// Of the control plane.
const SERVICE: &str = "gauze-control-plane";

/// Whether the API server knows our webhook by these roots, or by some if it is not known which they are.
fn trusts(bundle: Option<&ByteString>, roots: Option<&str>) -> bool {
    let bundle = bundle.map_or_else(String::new, |bundle| String::from_utf8_lossy(&bundle.0).into_owned());
    let known = certificates_in(&bundle);
    !known.is_empty() && roots.is_none_or(|roots| certificates_in(roots) == known)
}

/// The names of the webhooks of which `is` holds.
fn named(configuration: &MutatingWebhookConfiguration, is: impl Fn(&MutatingWebhook) -> bool) -> Vec<String> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks.filter(|webhook| is(webhook)).map(|webhook| webhook.name.clone()).collect()
}

/// The certificates of a PEM text, in any order, without what stands between them.
fn certificates_in(pem: &str) -> Vec<String> {
    let mut found: Vec<String> = pem
        .split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|rest| rest.split_once("-----END CERTIFICATE-----"))
        .map(|(body, _)| body.split_whitespace().collect())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The roots in each namespace of the mesh: there, and the same everywhere.
pub(super) fn trust(facts: &Facts) -> Option<Line> {
    let seen = || facts.trust.iter().filter_map(|(namespace, roots)| Some((namespace, roots.as_ref().ok()?)));
    let usual = usual(seen().filter_map(|(_, roots)| roots.as_deref()).map(certificates_in));
    let wrong: Vec<String> = seen()
        .filter_map(|(namespace, roots)| match roots.as_deref().map(certificates_in) {
            None => Some(format!("{namespace}: there is no ConfigMap gauze-trust")),
            Some(found) if Some(&found) != usual.as_ref() => {
                Some(format!("{namespace}: gauze-trust holds other roots than elsewhere"))
            }
            Some(_) => None,
        })
        .collect();
    if !wrong.is_empty() {
        let what = format!("{} without the roots of the mesh", counted(wrong.len(), "namespace"));
        return Some(Line::error(Code::TRUST_MISSING, what).with(wrong));
    }
    let number = seen().count();
    (number > 0).then(|| Line::fine(format!("{} with the roots of the mesh", counted(number, "namespace"))))
}

/// The value that most have.
fn usual(values: impl Iterator<Item = Vec<String>>) -> Option<Vec<String>> {
    let mut counts: std::collections::BTreeMap<Vec<String>, usize> = std::collections::BTreeMap::new();
    for value in values.filter(|value| !value.is_empty()) {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

#[cfg(test)]
mod tests;
