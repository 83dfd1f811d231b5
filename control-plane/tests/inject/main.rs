//! Golden cases of injection: `NAME.in.yaml` holds what the case shows, then a pod; `NAME.out.yaml` what it becomes.
//! A new case is one file; `UPDATE=1 cargo test -p gauze-control-plane --test inject` writes the second.
//! Each case is also injected again, alone and after other webhooks had their turn.

mod others;

use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::Parser;
use gauze_control_plane::inject::{Action, Asked, InjectionSettings, Injector, decide, inject};
use serde::Deserialize;
use serde_json::Value;

/// The first document of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// In a sentence, what the case shows.
    #[serde(rename = "shows")]
    _shows: String,
    /// Flags of the control plane.
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    injection: InjectionSettings,
}

/// A pod, and how it is to be injected.
struct Case {
    pod: Value,
    injector: Injector,
}

const WORD: &str = "0123456789abcdef";

#[test]
fn every_case_comes_out_as_it_is_written() {
    let update = env::var_os("UPDATE").is_some();
    let mut failed = Vec::new();
    for (name, case) in cases() {
        let output = directory().join(format!("{name}.out.yaml"));
        let now = serde_saphyr::to_string(&case.injected(&case.pod)).expect("a value is YAML");
        let now = now.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        if update {
            fs::write(&output, &now).expect("writable");
        } else if fs::read_to_string(&output).unwrap_or_default() != now {
            failed.push(format!("=== {name}, now:\n{now}"));
        }
    }
    assert!(failed.is_empty(), "{}\nUPDATE=1 rewrites the .out.yaml files", failed.join("\n"));
}

#[test]
fn an_injected_pod_comes_out_equal_when_the_api_server_asks_again() {
    for (name, case) in cases() {
        let once = case.injected(&case.pod);
        assert_eq!(case.injected(&once), once, "{name}");
    }
}

#[test]
fn what_other_webhooks_do_in_between_stays_and_is_brought_into_the_mesh() {
    for (name, case) in cases() {
        for (what, change) in others::CHANGES {
            let mut changed = case.injected(&case.pod);
            change(&mut changed);
            let again = case.injected(&changed);
            others::check(&changed, &again, &format!("{name}: {what}"));
            assert_eq!(case.injected(&again), again, "{name}: {what}: a third time");
        }
    }
}

#[test]
fn the_apps_own_containers_stay_as_they_are_but_for_probes_and_hooks() {
    let bare = |container: &Value| {
        let mut container = container.clone();
        for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            container.as_object_mut().expect("a container").remove(field);
        }
        container
    };
    let bare_all = |list: &Value| list.as_array().into_iter().flatten().map(bare).collect::<Vec<_>>();
    for (name, case) in cases() {
        let injected = case.injected(&case.pod);
        let (before, after) = (&case.pod["spec"], &injected["spec"]);
        assert_eq!(bare_all(&after["containers"]), bare_all(&before["containers"]), "{name}");
        assert_eq!(bare_all(&after["initContainers"])[2..], bare_all(&before["initContainers"]), "{name}");
        for (field, value) in before.as_object().expect("a spec") {
            let is_ours = ["containers", "initContainers", "volumes"].contains(&field.as_str());
            assert!(is_ours || after[field] == *value, "{name}: {field}");
        }
    }
}

#[test]
fn the_patch_makes_of_the_one_pod_the_other() {
    for (name, case) in cases() {
        let injected = case.injected(&case.pod);
        let mut patched = case.pod.clone();
        json_patch::patch(&mut patched, &json_patch::diff(&case.pod, &injected)).expect("it fits");
        assert_eq!(patched, injected, "{name}");
    }
}

impl Case {
    fn injected(&self, pod: &Value) -> Value {
        let typed = serde_json::from_value(pod.clone()).expect("a pod");
        let namespace = Asked { namespace: "shop".to_owned(), label: Some("enabled".to_owned()) };
        let decision = decide(&typed, &namespace, &self.injector);
        let Action::Inject(wishes) = &decision.action else { panic!("{decision:?}") };
        inject(pod, decision.rule, &decision.reason(), wishes, &self.injector, WORD)
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject")
}

fn cases() -> Vec<(String, Case)> {
    let files = fs::read_dir(directory()).expect("the cases").map(|entry| entry.expect("an entry").path());
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".in.yaml")?.to_owned());
    let mut names: Vec<String> = files.filter_map(name).collect();
    names.sort();
    assert!(names.len() >= 6, "only {} cases found", names.len());
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

fn read(name: &str) -> Case {
    let text = fs::read_to_string(directory().join(format!("{name}.in.yaml"))).expect("readable");
    let (header, pod) = text.split_once("\n---\n").expect("what it shows, then a pod");
    let header: Header = serde_saphyr::from_str(header).expect(name);
    let flags = ["program".to_owned()].into_iter().chain(header.flags);
    let injector = Injector {
        settings: Flags::try_parse_from(flags).unwrap_or_else(|error| panic!("{name}: {error}")).injection,
        trust_domain: "cluster.local".to_owned(),
        system_namespace: "gauze-system".to_owned(),
        mesh_networks: vec!["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("a network")],
    };
    Case { pod: serde_saphyr::from_str(pod).expect(name), injector }
}
