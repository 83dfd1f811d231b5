use super::super::facts::example::{self, DAY, HOUR, NOW, ROOTS, VERSION, object};
use super::super::report::Severity;
use super::*;
use serde_json::json;

/// What is said: how bad, and which code.
fn said(lines: impl IntoIterator<Item = Line>) -> Vec<(Severity, Option<Code>)> {
    lines.into_iter().map(|line| (line.severity, line.code)).collect()
}

const FINE: (Severity, Option<Code>) = (Severity::Fine, None);

fn warning(code: Code) -> (Severity, Option<Code>) {
    (Severity::Warning, Some(code))
}

fn error(code: Code) -> (Severity, Option<Code>) {
    (Severity::Error, Some(code))
}

#[test]
fn replicas_must_be_there_ready_and_led() {
    let installed = |wished, ready| Facts {
        control_plane: Ok(Some(example::replicas(wished, ready))),
        ..example::well()
    };
    let led_by = |leader: Option<&str>| {
        let replicas =
            crate::cluster::Replicas { leader: leader.map(str::to_owned), ..example::replicas(1, 1) };
        Facts { control_plane: Ok(Some(replicas)), ..example::well() }
    };
    for (what, facts, expected) in [
        ("one of one", installed(1, 1), vec![FINE]),
        ("one of two", installed(2, 1), vec![warning(Code::REPLICAS_NOT_READY)]),
        ("none of one", installed(1, 0), vec![error(Code::REPLICAS_NOT_READY)]),
        ("scaled to nothing", installed(0, 0), vec![error(Code::REPLICAS_NOT_READY)]),
        ("nobody leads", led_by(None), vec![FINE, warning(Code::NO_LEADER)]),
        ("who leads is gone", led_by(Some("gauze-control-plane-old")), vec![FINE, warning(Code::NO_LEADER)]),
        (
            "not installed",
            Facts { control_plane: Ok(None), ..example::well() },
            vec![error(Code::NOT_INSTALLED)],
        ),
        ("not to be seen", Facts { control_plane: Err("no".to_owned()), ..example::well() }, vec![]),
    ] {
        assert_eq!(said(replicas(&facts)), expected, "{what}");
    }
    let fine = &replicas(&example::well())[0].what;
    assert_eq!(fine, "1/1 replicas ready, leader gauze-control-plane-6f9c-x2v1p");
}

#[test]
fn before_an_installation_what_is_there_already_is_named() {
    let there = before(&example::well()).unwrap();
    assert_eq!(there.what, format!("gauze {VERSION} is installed in gauze-system already"));
    let nothing = before(&Facts { control_plane: Ok(None), ..example::well() }).unwrap();
    assert_eq!(nothing, Line::fine("nothing of gauze is in namespace gauze-system yet"));
}

fn certified(root: u64, own: u64) -> Facts {
    let mut answer = example::answer(Vec::new());
    answer.about["certificates"] = json!({ "rootEnds": NOW + root, "ownEnds": NOW + own, "life": DAY });
    Facts { answers: vec![("replica".to_owned(), Ok(answer))], ..example::well() }
}

#[test]
fn certificates_are_told_before_they_end() {
    for (what, facts, expected) in [
        ("years and hours", certified(3650 * DAY, 20 * HOUR), vec![FINE]),
        ("the root in 60 days", certified(60 * DAY, 20 * HOUR), vec![FINE]),
        ("the root in 59 days", certified(59 * DAY, 20 * HOUR), vec![warning(Code::ROOT_ENDS)]),
        ("the root in 13 days", certified(13 * DAY, 20 * HOUR), vec![error(Code::ROOT_ENDS)]),
        (
            "less than a quarter",
            certified(3650 * DAY, 5 * HOUR),
            vec![FINE, error(Code::OWN_CERTIFICATE_NOT_RENEWED)],
        ),
        ("over", certified(0, 0), vec![error(Code::ROOT_ENDS), error(Code::OWN_CERTIFICATE_NOT_RENEWED)]),
        ("nobody answered", Facts { answers: Vec::new(), ..example::well() }, vec![]),
    ] {
        assert_eq!(said(certificates(&facts)), expected, "{what}");
    }
    assert_eq!(certificates(&certified(3650 * DAY, DAY))[0].what, "the root certificate ends in 3650 days");
}

#[test]
fn the_webhook_must_be_there_trusted_and_strict() {
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let bundle = |pem: &str| {
        let bytes = k8s_openapi::ByteString(pem.as_bytes().to_vec());
        serde_json::to_value(bytes).unwrap().as_str().unwrap().to_owned()
    };
    let with = |bundle: &str, policy: &str| Facts {
        webhook: Ok(Some(example::webhook(bundle, policy))),
        ..example::well()
    };
    for (what, facts, expected) in [
        ("all is well", example::well(), vec![FINE]),
        ("roots without the last line end", with(&bundle(ROOTS.trim_end()), "Fail"), vec![FINE]),
        ("no caBundle", with("", "Fail"), vec![error(Code::WEBHOOK_ROOTS_DIFFER)]),
        ("another root", with(&bundle(&pem("BBBB")), "Fail"), vec![error(Code::WEBHOOK_ROOTS_DIFFER)]),
        (
            "failures are ignored",
            with(&bundle(ROOTS), "Ignore"),
            vec![warning(Code::WEBHOOK_IGNORES_FAILURES)],
        ),
        (
            "all of it",
            with("", "Ignore"),
            vec![error(Code::WEBHOOK_ROOTS_DIFFER), warning(Code::WEBHOOK_IGNORES_FAILURES)],
        ),
        ("none", Facts { webhook: Ok(None), ..example::well() }, vec![error(Code::WEBHOOK_MISSING)]),
        ("not to be seen", Facts { webhook: Err("no".to_owned()), ..example::well() }, vec![]),
    ] {
        assert_eq!(said(webhook(&facts)), expected, "{what}");
    }
}

#[test]
fn who_converts_splits_must_be_trusted_if_it_is_ours() {
    let with = |service: &str, bundle: Option<&str>| {
        let mut facts = example::well();
        let bundle = bundle.map(|pem| k8s_openapi::ByteString(pem.as_bytes().to_vec()));
        let client =
            json!({ "service": { "name": service, "namespace": "gauze-system" }, "caBundle": bundle });
        let webhook = json!({ "clientConfig": client, "conversionReviewVersions": ["v1"] });
        let conversion = json!({ "strategy": "Webhook", "webhook": webhook });
        let split = facts.definitions.as_mut().unwrap().get_mut("trafficsplits.split.smi-spec.io").unwrap();
        split.spec.conversion = Some(serde_json::from_value(conversion).unwrap());
        facts
    };
    for (what, facts, expected) in [
        ("nothing is converted", example::well(), vec![]),
        ("our roots", with("gauze-control-plane", Some(ROOTS)), vec![]),
        ("none", with("gauze-control-plane", None), vec![error(Code::WEBHOOK_ROOTS_DIFFER)]),
        (
            "those of another mesh",
            with("gauze-control-plane", Some(&ROOTS.replace("AAAA", "BBBB"))),
            vec![error(Code::WEBHOOK_ROOTS_DIFFER)],
        ),
        ("somebody else converts", with("another", None), vec![]),
    ] {
        assert_eq!(said(conversion(&facts)), expected, "{what}");
    }
}

#[test]
fn every_namespace_of_the_mesh_has_its_roots() {
    let other = ROOTS.replace("AAAA", "BBBB");
    let trusting = |more: Option<&str>| {
        let mut facts = example::well();
        facts.trust.insert("blog".to_owned(), Ok(Some(ROOTS.to_owned())));
        facts.trust.insert("bank".to_owned(), Ok(more.map(str::to_owned)));
        facts
    };
    assert_eq!(trust(&trusting(Some(ROOTS))), Some(Line::fine("3 namespaces with the roots of the mesh")));
    for (roots, expected) in [
        (None, "bank: there is no ConfigMap gauze-trust"),
        (Some(other.as_str()), "bank: gauze-trust holds other roots than elsewhere"),
    ] {
        let line = trust(&trusting(roots)).unwrap();
        assert_eq!((line.code, line.details), (Some(Code::TRUST_MISSING), vec![expected.to_owned()]));
    }
}

#[test]
fn a_replica_that_does_not_answer_is_a_warning_and_another_release_a_note() {
    let silent =
        vec![("a".to_owned(), Err("no".to_owned())), ("b".to_owned(), Ok(example::answer(Vec::new())))];
    let lines = answers(&Facts { answers: silent, ..example::well() });
    assert_eq!(said(lines.clone()), [warning(Code::REPLICA_SILENT), FINE]);
    assert_eq!(lines[0].details, ["a: no"]);
    let about = object(json!({ "version": "9.9.9" }));
    let other = vec![("a".to_owned(), Ok(Answer { about, ..Answer::default() }))];
    let lines = answers(&Facts { answers: other, ..example::well() });
    assert_eq!(said(lines), [(Severity::Note, None)]);
}
