//! Can this cluster carry a mesh, and may you do what is asked?

use gauze_model::Code;
use k8s_openapi::api::core::v1::Namespace;

use super::facts::{Facts, asks, label};
use super::report::{Line, counted};

/// The first minor release of Kubernetes 1 whose native sidecars can be relied on.
const KUBERNETES_MIN: u32 = 30;
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn version(facts: &Facts) -> Vec<Line> {
    let version = &facts.kubernetes;
    let answered = format!("API answers in {} ms", facts.answered.as_millis());
    match minor(version) {
        Some(minor) if minor >= KUBERNETES_MIN => {
            vec![Line::fine(format!("Kubernetes {}, {answered}", version.trim_start_matches('v')))]
        }
        Some(_) => vec![Line::error(
            Code::KUBERNETES_TOO_OLD,
            format!("Kubernetes {version} is older than 1.{KUBERNETES_MIN}"),
        )],
        None => vec![Line::note(format!("Kubernetes calls itself `{version}`, {answered}"))],
    }
}

/// `v1.36.4+k3s1`: 36.
fn minor(version: &str) -> Option<u32> {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next()?.parse::<u32>().ok()?, parts.next()?);
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    let minor = minor[..digits].parse().ok()?;
    Some(if major > 1 { u32::MAX } else { minor })
}

/// What could not be looked at; before an installation, what it will need.
pub(super) fn permissions(facts: &Facts, pre: bool) -> Vec<Line> {
    let refused: Vec<String> =
        facts.permissions.iter().filter(|(_, allowed)| !allowed).map(|(what, _)| what.clone()).collect();
    if pre && !refused.is_empty() {
        return vec![
            Line::error(Code::PERMISSION_MISSING, "you may not install the chart: these are not allowed")
                .with(refused),
        ];
    }
    let unseen = unseen(facts);
    if unseen.is_empty() {
        let what = if pre {
            "you may create what the chart creates"
        } else {
            "you may read what this command needs"
        };
        return vec![Line::fine(what)];
    }
    vec![Line::warning(Code::PERMISSION_MISSING, "not everything could be looked at").with(unseen)]
}

fn unseen(facts: &Facts) -> Vec<String> {
    let mut unseen: Vec<String> = [
        facts.definitions.as_ref().err(),
        facts.cilium.as_ref().err(),
        facts.namespaces.as_ref().err(),
        facts.pods.as_ref().err(),
        facts.control_plane.as_ref().err(),
        facts.webhook.as_ref().err(),
    ]
    .into_iter()
    .flatten()
    .cloned()
    .collect();
    unseen.extend(facts.trust.values().filter_map(|roots| roots.as_ref().err()).cloned());
    unseen.dedup();
    unseen
}

/// Cilium's load balancing at the socket, which is on whenever it replaces kube-proxy.
pub(super) fn socket_load_balancing(facts: &Facts) -> Option<Line> {
    let config = facts.cilium.as_ref().ok()?.as_ref()?;
    let is =
        |key: &str, values: &[&str]| config.get(key).is_some_and(|value| values.contains(&value.as_str()));
    let replaces = is("kube-proxy-replacement", &["true", "strict"]);
    let at_sockets = is("bpf-lb-sock", &["true"]) || (replaces && !is("bpf-lb-sock", &["false"]));
    if !at_sockets || is("bpf-lb-sock-hostns-only", &["true"]) {
        return Some(Line::fine("Cilium leaves ClusterIPs to the pods"));
    }
    let what = "Cilium replaces ClusterIPs inside the pods (socket load balancing)";
    Some(
        Line::error(Code::SOCKET_LOAD_BALANCING, what)
            .fix("cilium config set bpf-lb-sock-hostns-only true   (Helm: socketLB.hostNamespaceOnly=true)"),
    )
}

/// Namespaces that ask for injection, and whose pods may not have NET_ADMIN.
pub(super) fn pod_security(facts: &Facts) -> Option<Line> {
    let forbids =
        |namespace: &Namespace| matches!(label(namespace, ENFORCE), Some("baseline" | "restricted"));
    let asking = || facts.namespaces.iter().flatten().filter(|namespace| asks(namespace));
    let forbidding: Vec<String> = asking()
        .filter(|namespace| forbids(namespace))
        .filter_map(|namespace| {
            let level = label(namespace, ENFORCE).unwrap_or_default();
            Some(format!("{} enforces {level}", namespace.metadata.name.as_deref()?))
        })
        .collect();
    if forbidding.is_empty() {
        let number = asking().count();
        return (number > 0).then(|| {
            Line::fine(format!("pod security lets sidecars into {}", counted(number, "namespace")))
        });
    }
    let names: Vec<&str> = forbidding.iter().filter_map(|text| text.split(' ').next()).collect();
    let fix = format!("kubectl label namespace {} {ENFORCE}=privileged --overwrite", names.join(" "));
    let what = format!("{} ask for sidecars and forbid NET_ADMIN", counted(forbidding.len(), "namespace"));
    Some(Line::error(Code::POD_SECURITY_FORBIDS_REDIRECT, what).with(forbidding).fix(fix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::facts::example;
    use super::*;

    /// What is said: code and words.
    fn said(lines: impl IntoIterator<Item = Line>) -> Vec<(Option<Code>, String)> {
        lines.into_iter().map(|line| (line.code, line.what)).collect()
    }

    #[test]
    fn kubernetes_must_be_1_30_or_later_however_it_is_called() {
        for (version, expected) in [
            ("v1.36.4", None),
            ("v1.30.0-eks-1234", None),
            ("v1.31+", None),
            ("v2.0.0", None),
            ("v1.29.14", Some(Code::KUBERNETES_TOO_OLD)),
            ("v1.9.0", Some(Code::KUBERNETES_TOO_OLD)),
            ("unknown", None),
        ] {
            let facts = Facts { kubernetes: version.to_owned(), ..example::well() };
            assert_eq!(super::version(&facts)[0].code, expected, "{version}");
        }
        let line = super::version(&example::well());
        assert_eq!(said(line), [(None, "Kubernetes 1.36.4, API answers in 41 ms".to_owned())]);
    }

    #[test]
    fn cilium_must_leave_cluster_ips_to_the_pods() {
        for (what, config, expected) in [
            ("it does not replace kube-proxy", json!({ "kube-proxy-replacement": "false" }), false),
            ("it replaces kube-proxy", json!({ "kube-proxy-replacement": "true" }), true),
            (
                "it replaces kube-proxy but for sockets",
                json!({ "kube-proxy-replacement": "true", "bpf-lb-sock": "false" }),
                false,
            ),
            ("it balances at sockets", json!({ "bpf-lb-sock": "true" }), true),
            (
                "only those of the host",
                json!({ "bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "true" }),
                false,
            ),
        ] {
            let facts = Facts { cilium: Ok(Some(example::object(config))), ..example::well() };
            let code = socket_load_balancing(&facts).expect("Cilium is there").code;
            assert_eq!(code, expected.then_some(Code::SOCKET_LOAD_BALANCING), "{what}");
        }
        assert_eq!(socket_load_balancing(&example::well()), None);
    }

    #[test]
    fn a_namespace_that_asks_and_forbids_is_named_with_the_command_that_helps() {
        let namespaces = vec![
            example::namespace("shop", json!({ "gauze.dev/inject": "enabled", ENFORCE: "restricted" })),
            example::namespace("blog", json!({ "gauze.dev/inject": "enabled", ENFORCE: "privileged" })),
            example::namespace("bank", json!({ ENFORCE: "restricted" })),
        ];
        let line = pod_security(&Facts { namespaces: Ok(namespaces), ..example::well() }).unwrap();
        assert_eq!(
            (line.code, line.details),
            (Some(Code::POD_SECURITY_FORBIDS_REDIRECT), vec!["shop enforces restricted".to_owned()])
        );
        assert_eq!(
            line.fix.unwrap(),
            format!("kubectl label namespace shop {ENFORCE}=privileged --overwrite")
        );
    }

    #[test]
    fn what_may_not_be_seen_is_a_warning_and_what_may_not_be_created_an_error() {
        let facts = Facts { pods: Err("you may not list pods".to_owned()), ..example::well() };
        let line = &permissions(&facts, false)[0];
        assert_eq!(
            (line.severity, &line.details),
            (super::super::report::Severity::Warning, &vec!["you may not list pods".to_owned()])
        );
        let wanted = vec![("create namespaces".to_owned(), false), ("create services".to_owned(), true)];
        let line = &permissions(&Facts { permissions: wanted, ..example::well() }, true)[0];
        assert_eq!(
            (line.severity, &line.details),
            (super::super::report::Severity::Error, &vec!["create namespaces".to_owned()])
        );
    }
}
