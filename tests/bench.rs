//! The bench beside the peers runs, and says what it measured. How fast anything is, is not judged here: a machine that
//! runs tests has other things to do (`tests/bench/README.md`).

use std::process::Command;

use serde_json::Value;

use crate::harness::programs::{program, repository};

#[test]
fn the_bench_measures_gauze_beside_its_peers_and_names_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("bench.json");
    let programs = program("gauze-proxy");
    let output = Command::new(repository().join("tests/bench/run"))
        .args(["--quick", "--peers", "gauze,haproxy", "--protocols", "http2", "--programs"])
        .arg(programs.parent().expect("a folder"))
        .arg("--out")
        .arg(&out)
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    if problem.starts_with("the bench needs") {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{problem}");
        return println!("skipped: {problem}");
    }
    assert!(output.status.success(), "{said}\n{problem}");
    let written: Value = serde_json::from_slice(&std::fs::read(&out).expect("it was written")).expect("JSON");
    let measured = |peer: &str| {
        written["runs"].as_array().is_some_and(|runs| runs.iter().any(|run| run["peer"] == peer))
    };
    // A load that ends by time may cut off its last requests.
    for run in written["runs"].as_array().expect("runs") {
        let max = &run["http2"]["max"];
        let is_whole = max["failed"]
            .as_f64()
            .zip(max["rate"].as_f64())
            .is_some_and(|(failed, rate)| failed < rate / 100.0);
        assert!(is_whole, "{}: {max}\n{said}", run["peer"]);
    }
    assert!(measured("direct") && measured("gauze"), "{said}");
    assert!(measured("haproxy") || said.contains("haproxy is missing"), "{said}");
    assert!(said.contains("| http, http2: CPU per request, closed loop |"), "{said}");
}
