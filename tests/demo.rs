//! `gauze demo`: what a new user sees first works, and cleans up after itself.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::programs::program;

/// The steps that the story must take, in this order.
const STEPS: [&str; 9] = [
    "mtls",
    "split_90_10",
    "split_change",
    "bad_object",
    "retry",
    "ejection",
    "denial",
    "control_plane_outage",
    "rotation",
];

#[test]
fn the_story_of_the_demo_keeps_each_of_its_promises() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(program("gauze"))
        .args(["demo", "--story", "--json"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("gauze runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let start = stdout.rfind("\n{\"ok\"").map_or(0, |at| at + 1);
    let last = stdout.get(start..).unwrap_or_default();
    let story: Value = serde_json::from_str(last)
        .unwrap_or_else(|error| panic!("{error} in `{last}`\n{}", String::from_utf8_lossy(&output.stderr)));
    println!("{story:#}");
    assert!(output.status.success() && story["ok"] == true, "{}", String::from_utf8_lossy(&output.stderr));
    let steps: Vec<_> =
        story["steps"].as_array().expect("steps").iter().map(|step| step["name"].as_str()).collect();
    assert_eq!(steps, STEPS.map(Some));
    for edge in story["edges"].as_array().expect("edges") {
        assert_eq!((&edge["mtls"], &edge["failed"]), (&Value::Bool(true), &Value::from(0)), "{edge}");
        for identity in ["from_identity", "to_identity"] {
            assert!(edge[identity].as_str().is_some_and(|id| id.starts_with("spiffe://")), "{edge}");
        }
    }
    assert!(story["edges"].as_array().is_some_and(|edges| edges.len() >= 3), "{}", story["edges"]);
    let outside = story["outside"].as_array().expect("outside");
    let denied = outside.iter().filter(|edge| edge["to"] == "cart" && edge["denied"].as_u64() > Some(0));
    assert_eq!(denied.count(), 3, "in each protocol: {outside:#?}");
}
