//! Are the kinds defined that gauze reads?

use gauze_model::Code;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::facts::Facts;
use super::report::Line;

/// The definitions that the chart brings, and the version that is read of each.
pub(super) const OURS: [(&str, &str); 3] = [
    ("trafficsplits.split.smi-spec.io", "v1alpha4"),
    ("trafficpolicies.gauze.dev", "v1alpha1"),
    ("authorizationpolicies.gauze.dev", "v1alpha1"),
];
/// Those of Gateway API that are read where they are there.
pub(super) const GATEWAY_API: [(&str, &str); 2] =
    [("httproutes.gateway.networking.k8s.io", "v1"), ("grpcroutes.gateway.networking.k8s.io", "v1")];
const VERSION: &str = "app.kubernetes.io/version";

/// Definitions of the chart: there, serving what is read, and of the release that runs.
pub(super) fn ours(facts: &Facts) -> Vec<Line> {
    let Ok(definitions) = &facts.definitions else { return Vec::new() };
    let missing: Vec<String> = OURS
        .iter()
        .filter(|(name, version)| !definitions.get(*name).is_some_and(|found| serves(found, version)))
        .map(|(name, version)| format!("{name}, version {version}"))
        .collect();
    if !missing.is_empty() {
        return vec![Line::error(Code::DEFINITION_MISSING, "kinds of gauze are not defined").with(missing)];
    }
    let running =
        facts.control_plane.iter().flatten().find_map(|replicas| release(&replicas.deployment.metadata));
    let others: Vec<String> = OURS
        .iter()
        .filter_map(|(name, _)| {
            // Another owner's definition has another version of its own; that it serves ours is enough.
            let metadata = &definitions.get(*name)?.metadata;
            let release = release(metadata).filter(|_| is_charts(metadata))?;
            (Some(release) != running).then(|| format!("{name} is of {release}"))
        })
        .collect();
    if running.is_some() && !others.is_empty() {
        let what = format!("definitions are not of the release that runs ({})", running.unwrap_or_default());
        return vec![Line::warning(Code::DEFINITION_OTHER_VERSION, what).with(others)];
    }
    vec![Line::fine("TrafficSplit, TrafficPolicy and AuthorizationPolicy are defined")]
}

type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn release(metadata: &Metadata) -> Option<&str> {
    metadata.labels.as_ref()?.get(VERSION).map(String::as_str)
}

fn is_charts(metadata: &Metadata) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.get("app.kubernetes.io/name").is_some_and(|name| name == "gauze"))
}

fn serves(definition: &CustomResourceDefinition, version: &str) -> bool {
    definition.spec.versions.iter().any(|served| served.name == version && served.served)
}

/// Gateway API is used where it is there; nothing is wrong without it.
pub(super) fn gateway_api(facts: &Facts) -> Option<Line> {
    let definitions = facts.definitions.as_ref().ok()?;
    let there =
        |(name, version): &(&str, &str)| definitions.get(*name).is_some_and(|found| serves(found, version));
    Some(match GATEWAY_API.iter().filter(|kind| there(kind)).count() {
        0 => Line::note(
            "Gateway API is not installed: splits work, HTTPRoute and GRPCRoute are not there to be used",
        ),
        2 => Line::fine("Gateway API is installed: HTTPRoute and GRPCRoute are read"),
        _ => Line::note(
            "Gateway API is installed in part: a kind that is not defined (version v1) is not read",
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::facts::example;
    use super::*;

    fn facts(change: impl FnOnce(&mut BTreeMap<String, CustomResourceDefinition>)) -> Facts {
        let mut facts = example::well();
        change(facts.definitions.as_mut().unwrap());
        facts
    }

    #[test]
    fn definitions_must_be_there_serve_what_is_read_and_fit_the_release() {
        let split = OURS[0].0;
        for (what, facts, expected) in [
            ("all is well", example::well(), None),
            ("one is missing", facts(|all| drop(all.remove(split))), Some(Code::DEFINITION_MISSING)),
            (
                "one serves another version",
                facts(|all| all.extend([example::definition(split, "v1alpha2")])),
                Some(Code::DEFINITION_MISSING),
            ),
            (
                "one is of another release",
                facts(|all| {
                    let labels = all.get_mut(split).unwrap().metadata.labels.as_mut().unwrap();
                    labels.insert(VERSION.to_owned(), "0.0.9".to_owned());
                }),
                Some(Code::DEFINITION_OTHER_VERSION),
            ),
            ("one is another owner's", facts(|all| all.get_mut(split).unwrap().metadata.labels = None), None),
        ] {
            assert_eq!(ours(&facts)[0].code, expected, "{what}");
        }
    }

    #[test]
    fn without_gateway_api_nothing_is_wrong() {
        let facts = facts(|all| all.retain(|name, _| !name.contains("gateway")));
        let line = gateway_api(&facts).unwrap();
        assert_eq!((line.code, line.what.contains("not installed")), (None, true));
        assert!(gateway_api(&example::well()).unwrap().what.contains("are read"));
    }
}
