use serde_json::json;

use super::super::facts::example::{self, VERSION, answer, injected, object, proxy};
use super::super::report::Severity;
use super::*;

/// What is said: how bad, which code, and of whom.
fn said(lines: impl IntoIterator<Item = Line>) -> Vec<(Severity, Option<Code>, usize)> {
    lines.into_iter().map(|line| (line.severity, line.code, line.details.len())).collect()
}

fn with_pods(pods: Vec<Value>) -> Facts {
    Facts { pods: Ok(pods.into_iter().map(object).collect()), ..example::well() }
}

fn labelled(mut pod: Value, value: &str) -> Value {
    pod["metadata"]["labels"]["gauze.dev/inject"] = json!(value);
    pod
}

#[test]
fn a_pod_without_the_sidecar_that_it_should_have_is_told_from_one_that_should_not() {
    let plain = example::pod;
    let host_network = |mut pod: Value| {
        pod["spec"]["hostNetwork"] = json!(true);
        pod
    };
    let ended = |mut pod: Value| {
        pod["status"]["phase"] = json!("Succeeded");
        pod
    };
    let missing = vec![(Severity::Error, Some(Code::SIDECAR_MISSING), 1)];
    let note = vec![(Severity::Note, None, 0)];
    for (what, pods, expected) in [
        ("it has one", vec![injected("shop/web-0", VERSION)], vec![]),
        ("its namespace asks", vec![plain("shop/web-1")], missing.clone()),
        ("it asks itself", vec![labelled(plain("blog/web-1"), "enabled")], missing.clone()),
        ("nobody asks", vec![plain("blog/web-1")], vec![]),
        ("it opted out", vec![labelled(plain("shop/web-1"), "disabled")], note.clone()),
        ("it is on the node's network", vec![host_network(plain("shop/web-1"))], note),
        ("it has ended", vec![ended(plain("shop/import-1"))], vec![]),
        ("it is of the system", vec![labelled(plain("kube-system/dns"), "enabled")], vec![]),
        ("the webhook never sees its namespace", vec![labelled(plain("legacy/web"), "enabled")], vec![]),
        ("its namespace is not known", vec![labelled(plain("gone/web"), "enabled")], vec![]),
    ] {
        let mut facts = with_pods(pods);
        for name in ["blog", "kube-system", "legacy"] {
            facts.namespaces.as_mut().unwrap().push(example::namespace(name, json!({})));
        }
        assert_eq!(said(sidecars_missing(&facts)), expected, "{what}");
    }
    let line = sidecars_missing(&with_pods(vec![plain("shop/web-1")])).remove(0);
    assert_eq!(line.fix.as_deref(), Some("kubectl -n shop rollout restart deployment/web"));
    assert!(
        line.details[0].starts_with("shop/web-1   label gauze.dev/inject of the namespace is enabled"),
        "{line:?}"
    );
}

#[test]
fn what_cannot_be_seen_is_not_judged() {
    let unseen = Facts { pods: Err("no".to_owned()), answers: Vec::new(), ..example::well() };
    assert_eq!(said(sidecars_missing(&unseen)), []);
    assert_eq!(said(connections(&unseen)), []);
    let silent = Facts { answers: vec![("a".to_owned(), Err("no".to_owned()))], ..example::well() };
    assert_eq!(said(connections(&silent)), []);
}

#[test]
fn sidecars_are_counted_over_all_replicas() {
    let starting = |mut pod: Value| {
        pod["status"]["conditions"][0]["status"] = json!("False");
        pod
    };
    let pods = vec![
        injected("shop/web-0", VERSION),
        injected("shop/web-1", VERSION),
        injected("shop/web-2", VERSION),
        starting(injected("shop/web-3", VERSION)),
    ];
    let one = answer(vec![proxy("shop/web-0", true, "current"), proxy("shop/web-2", false, "current")]);
    let other = answer(vec![proxy("shop/web-1", true, "behind"), proxy("shop/gone", true, "current")]);
    let answers = vec![("a".to_owned(), Ok(one)), ("b".to_owned(), Ok(other))];
    let facts = Facts { answers, ..with_pods(pods) };
    let expected = Count { meshed: 4, connected: 2, current: 1, unconnected: vec!["shop/web-2".to_owned()] };
    assert_eq!(Count::of(facts.sidecars(), facts.answered()), expected);
    let lines = connections(&facts);
    assert_eq!(
        said(lines.clone()),
        [(Severity::Warning, Some(Code::SIDECAR_NOT_CONNECTED), 1), (Severity::Fine, None, 0)]
    );
    assert_eq!(lines[1].what, "2/4 sidecars connected, 1 up to date");
    assert!(connections(&with_pods(Vec::new()))[0].what.starts_with("no pod has a sidecar yet"));
}

#[test]
fn a_refusal_names_pod_resource_field_and_problem() {
    let mut refusing = proxy("shop/web-0", true, "refused");
    refusing["resources"][0]["rejection"] = json!({ "path": "spec.rules[0]", "problem": "is too large" });
    let answers = vec![("a".to_owned(), Ok(answer(vec![refusing])))];
    let line = refusals(&Facts { answers, ..example::well() }).unwrap();
    assert_eq!(line.details, ["shop/web-0 refuses routes/shop/cart/80: spec.rules[0]: is too large"]);
    assert_eq!(refusals(&example::well()), None);
}

#[test]
fn a_sidecar_may_be_three_minor_releases_older() {
    let old = (Severity::Warning, Some(Code::SIDECAR_OLD), 1);
    let too_old = (Severity::Error, Some(Code::SIDECAR_TOO_OLD), 1);
    for (serving, sidecar, expected) in [
        ("0.5.2", "0.5.2", vec![]),
        ("0.5.2", "0.5.1", vec![old]),
        ("0.5.2", "0.2.0", vec![old]),
        ("0.5.2", "0.1.9", vec![too_old]),
        ("1.0.0", "0.9.0", vec![too_old]),
        ("0.5.2", "0.6.0", vec![]),
        ("0.5.2-rc.1", "0.5.1", vec![old]),
        ("0.5.2", "nonsense", vec![]),
    ] {
        let mut serves = answer(Vec::new());
        serves.about["version"] = json!(serving);
        let answers = vec![("a".to_owned(), Ok(serves))];
        let facts = Facts { answers, ..with_pods(vec![injected("shop/web-0", sidecar)]) };
        assert_eq!(said(releases(&facts)), expected, "{sidecar} under {serving}");
    }
}

#[test]
fn addresses_outside_the_mesh_networks_are_named_with_their_objects() {
    let mut said = answer(Vec::new());
    said.problems = vec![json!({
        "code": "M1009", "message": "1.2.3.4 lies outside the mesh networks",
        "origin": { "kind": "Service", "namespace": "shop", "name": "cart" },
    })];
    let line = outside_mesh_networks(&Facts { answers: vec![("a".to_owned(), Ok(said))], ..example::well() });
    assert_eq!(line.unwrap().details, ["Service/shop/cart   1.2.3.4 lies outside the mesh networks"]);
    assert_eq!(outside_mesh_networks(&example::well()), None);
}

#[test]
fn after_an_uninstallation_the_pods_that_keep_their_sidecars_are_named() {
    let uninstalled = Facts { control_plane: Ok(None), ..example::well() };
    let line = left_behind(&uninstalled).unwrap();
    assert_eq!((line.code, line.details), (Some(Code::SIDECAR_LEFT_BEHIND), vec!["shop/web-0".to_owned()]));
    assert_eq!(line.fix.as_deref(), Some("kubectl -n shop rollout restart deployment/web"));
    assert_eq!(left_behind(&Facts { control_plane: Ok(None), ..with_pods(Vec::new()) }), None);
}
