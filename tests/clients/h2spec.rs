//! h2spec, which asks a server of HTTP/2 what RFC 7540 wants of it in 145 cases, each a misuse or a corner: at the port
//! where an app is its client, and at the port where a client without a sidecar is. Where a case is not passed,
//! `docs/conformance/h2spec.md` says why, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use super::{Between, run};
use crate::harness::App;
use crate::harness::programs::repository;
use crate::harness::tools::Tools;

/// How many cases the suite has.
const CASES: usize = 145;

/// Seconds that a case waits for an answer: only a case that fails takes so long.
const TIMEOUT: &str = "20";

#[tokio::test]
async fn each_case_of_h2spec_passes_at_both_ports_or_is_explained() {
    let Some(tools) = Tools::find(&["h2spec"]) else { return };
    let app = App::start("app").await;
    let between = Between::start(app.address, "http", 80).await;
    let explained = explained();
    for (port, address) in [("outbound", between.dial()), ("inbound", between.outside())] {
        let missed = missed(&tools, address).await;
        let empty = BTreeSet::new();
        let wanted = explained.get(port).unwrap_or(&empty);
        assert_eq!(&missed, wanted, "the {port} port: what does not pass (left), what is explained (right)");
    }
}

/// The cases that do not pass: `http2/6.9.1: what it is called`.
async fn missed(tools: &Tools, address: SocketAddr) -> BTreeSet<String> {
    let report = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = report.path().to_str().expect("a plain path");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    // An answer longer than a few bytes, since flow control of a short one cannot be looked at.
    let arguments = ["--host", &host, "--port", &port, "--path", "/bytes/64", "--timeout", TIMEOUT];
    let arguments = [&arguments[..], &["--junit-report", path]].concat();
    let said = run(&tools.path_of("h2spec"), &arguments).await;
    let (count, missed) = read(&fs::read_to_string(path).expect("a report"));
    assert_eq!(count, CASES, "{}\n{}", said.out, said.err);
    if !missed.is_empty() {
        println!("{}", said.out);
    }
    missed
}

/// How many cases a report in JUnit's form has, and those that did not pass: failed, in error or skipped.
fn read(report: &str) -> (usize, BTreeSet<String>) {
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    let attribute = |case: &str, name: &str| {
        let value = case.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        value.map(|(value, _)| value.to_owned()).unwrap_or_default()
    };
    let missed = cases
        .iter()
        .filter(|case| !case.split_once('>').is_some_and(|(_, rest)| rest.starts_with("</testcase>")));
    let named =
        missed.map(|case| format!("{}: {}", attribute(case, "package"), attribute(case, "classname")));
    (cases.len(), named.collect())
}

/// By port, the cases that the page explains.
fn explained() -> BTreeMap<String, BTreeSet<String>> {
    let page =
        fs::read_to_string(repository().join("docs/conformance/h2spec.md")).expect("the page is there");
    let mut explained: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let case = cells[1].trim_matches('`').to_owned();
        for port in cells[2].split(", ") {
            explained.entry(port.to_owned()).or_default().insert(case.clone());
        }
    }
    explained
}
