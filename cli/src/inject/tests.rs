use clap::Parser;

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    inject: Arguments,
}

/// The objects after injection, and for each pod what was decided.
fn injected(yaml: &str, flags: &[&str]) -> (Vec<Value>, Vec<String>) {
    let program =
        Program::try_parse_from(["program", "-"].iter().chain(flags)).unwrap_or_else(|e| panic!("{e}"));
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let decided = inject_all(&mut objects, program.inject, &program.place).unwrap();
    let said = decided.iter().map(|decided| {
        let warnings: String =
            decided.decision.warnings.iter().map(|finding| format!(" {}", finding.code)).collect();
        format!(
            "{}: {} {}{warnings}",
            decided.object,
            outcome(&decided.decision.action).0,
            decided.decision.rule
        )
    });
    let said = said.collect();
    (objects, said)
}

fn workload(kind: &str, labels: &str) -> String {
    let template =
        format!("{{metadata: {{labels: {{{labels}}}}}, spec: {{containers: [{{name: a, image: a}}]}}}}");
    let spec = match kind {
        "CronJob" => format!("{{jobTemplate: {{spec: {{template: {template}}}}}}}"),
        _ => format!("{{template: {template}}}"),
    };
    format!("{{kind: {kind}, metadata: {{name: web, namespace: shop}}, spec: {spec}}}")
}

const ASKS: &str = "gauze.dev/inject: enabled";

#[test]
fn pods_are_found_in_everything_that_makes_pods() {
    let kinds = [
        ("Deployment", "/spec/template"),
        ("StatefulSet", "/spec/template"),
        ("DaemonSet", "/spec/template"),
        ("ReplicaSet", "/spec/template"),
        ("ReplicationController", "/spec/template"),
        ("Job", "/spec/template"),
        ("Rollout", "/spec/template"),
        ("CronJob", "/spec/jobTemplate/spec/template"),
    ];
    for (kind, path) in kinds {
        let (objects, said) = injected(&workload(kind, ASKS), &[]);
        assert_eq!(said, [format!("{kind} shop/web: yes pod-label")]);
        let pod = objects[0].pointer(path).unwrap();
        assert_eq!(pod["spec"]["initContainers"][1]["name"], "gauze-proxy", "{kind}");
        assert!(objects[0].pointer("/spec/initContainers").is_none(), "{kind}");
    }
}

#[test]
fn a_list_and_several_documents_are_read_and_what_has_no_pods_stays() {
    let service = "{kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}";
    let pod = "{kind: Pod, metadata: {name: one, annotations: {gauze.dev/inject: enabled}}, spec: {containers: [{name: a}]}}";
    let yaml = format!("{service}\n---\n{{kind: List, items: [{pod}, {}]}}\n", workload("Deployment", ""));
    let (objects, said) = injected(&yaml, &["-n", "test"]);
    assert_eq!(said, ["Pod test/one: yes pod-annotation", "Deployment shop/web: no not-asked"]);
    assert_eq!(objects[0], serde_saphyr::from_str::<Value>(service).unwrap());
    assert_eq!(objects[1]["items"][0]["spec"]["initContainers"][0]["name"], "gauze-redirect");
}

#[test]
fn labels_of_namespaces_come_from_the_file_or_a_flag() {
    let flag = ["--namespace-label", "gauze.dev/inject=enabled"];
    let deployment = workload("Deployment", "");
    let namespace =
        |labels: &str| format!("{{kind: Namespace, metadata: {{name: shop, labels: {{{labels}}}}}}}");
    for (shows, yaml, flags, expected) in [
        ("nobody says anything", deployment.clone(), &[][..], "no not-asked"),
        ("the flag", deployment.clone(), &flag[..], "yes namespace-label"),
        ("the file", format!("{}\n---\n{deployment}", namespace(ASKS)), &[][..], "yes namespace-label"),
        (
            "the file counts before the flag",
            format!("{deployment}\n---\n{}", namespace("")),
            &flag[..],
            "no not-asked",
        ),
    ] {
        assert_eq!(injected(&yaml, flags).1, [format!("Deployment shop/web: {expected}")], "{shows}");
    }
}

#[test]
fn a_label_beside_the_template_has_no_effect_and_is_reported() {
    let yaml =
        workload("Deployment", "").replace("name: web,", "name: web, labels: {gauze.dev/inject: enabled},");
    assert_eq!(injected(&yaml, &[]).1, ["Deployment shop/web: no not-asked M2014"]);
}

#[test]
fn a_pod_that_cannot_be_injected_stays_as_it_is() {
    let yaml = workload("Deployment", ASKS).replace("image: a", "securityContext: {runAsUser: 1337}");
    let (objects, said) = injected(&yaml, &[]);
    assert_eq!(said, ["Deployment shop/web: refused proxy-user"]);
    assert_eq!(objects[0], serde_saphyr::from_str::<Value>(&yaml).unwrap());
}

#[test]
fn injecting_what_was_injected_changes_nothing() {
    let (once, _) = injected(&workload("Deployment", ASKS), &[]);
    let (twice, _) = injected(&serde_saphyr::to_string(&once[0]).unwrap(), &[]);
    assert_eq!(once, twice);
}

#[test]
fn a_file_that_is_not_there_is_wrong_usage() {
    let error = read("/nowhere/at/all.yaml").unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Failure::Usage(_))), "{error}");
}
