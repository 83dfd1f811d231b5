//! The Gateway API's own conformance suite for meshes, as upstream releases it, against the mesh under test. What it asks
//! is in `docs/conformance/options.yaml`, and what it answers beside it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::harness::cluster::{Cluster, demo_app, make_images};
use crate::harness::objects;
use crate::harness::programs::repository;
use crate::harness::tools::Tools;

/// All mesh tests of the suite's release. A new release's are added here: none comes, goes or is skipped unseen.
const TESTS: [&str; 22] = [
    "MeshBasic",
    "MeshConsumerRoute",
    "MeshFrontend",
    "MeshFrontendHostname",
    "MeshGRPCRouteWeight",
    "MeshHTTPRoute303Redirect",
    "MeshHTTPRoute307Redirect",
    "MeshHTTPRoute308Redirect",
    "MeshHTTPRouteBackendRequestHeaderModifier",
    "MeshHTTPRouteMatching",
    "MeshHTTPRouteNamedRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectHostAndStatus",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRequestHeaderModifier",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "MeshHTTPRouteSimpleSameNamespace",
    "MeshHTTPRouteWeight",
    "MeshPorts",
    "MeshTrafficSplit",
];

/// What the suite waits for a ready pod in, and only makes itself where a gateway is tested.
const EXPECTED_NAMESPACES: [&str; 2] = ["gateway-conformance-app-backend", "gateway-conformance-web-backend"];

/// Where a report for a channel of the Gateway API is kept, as upstream keeps it.
fn kept(channel: &str) -> String {
    format!("docs/conformance/v1.6/gauze/{channel}-v0.1.0-default-report.yaml")
}

#[tokio::test]
async fn the_mesh_passes_every_mesh_test_of_the_gateway_apis_conformance_suite() {
    let Some(tools) = Tools::find(&["gateway-conformance", "echo-advanced"]) else { return };
    let Some(cluster) = Cluster::with_gateway_api().await else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    prepare(cluster, &tools, folder.path()).await;
    let report = folder.path().join("report.yaml");
    let said = run(cluster, &tools, &report).await;
    let expected = TESTS.map(ToOwned::to_owned).into();
    assert_eq!(passed(&said), expected, "{said}");
    let mut made = read(&std::fs::read_to_string(&report).expect("the suite writes it"));
    // The run has the experimental channel; in the standard one nothing else is different.
    for channel in ["experimental", "standard"] {
        let path = repository().join(kept(channel));
        let kept = std::fs::read_to_string(&path).expect("it is kept");
        made["gatewayAPIChannel"] = channel.into();
        assert_eq!(read(&kept), made, "{} is not what the suite makes", path.display());
    }
}

/// The image of the suite's pods, and the pods that it expects.
async fn prepare(cluster: &Cluster, tools: &Tools, folder: &Path) {
    let echo = tools.path_of("echo-advanced");
    for image in make_images("conformance-images.json", &echo, folder) {
        cluster.load(&image).await;
    }
    for namespace in EXPECTED_NAMESPACES {
        let yaml = objects::namespace(namespace, &[]) + &demo_app(namespace, "placeholder", &[]);
        cluster.apply(&yaml).await;
    }
}

/// All that the suite says.
///
/// # Panics
/// If it fails.
async fn run(cluster: &Cluster, tools: &Tools, report: &Path) -> String {
    let suite = tools.path_of("gateway-conformance");
    let options = repository().join("docs/conformance/options.yaml");
    let arguments = [
        "-test.v".to_owned(),
        "-test.timeout=20m".to_owned(),
        format!("-conformance-options-file={}", options.display()),
        format!("-report-output={}", report.display()),
    ];
    let suite = suite.to_str().expect("a path of text");
    let said = cluster.ask(suite, &arguments.each_ref().map(String::as_str)).await;
    said.unwrap_or_else(|said| panic!("the suite fails:\n{said}"))
}

/// The names of the suite's tests that passed: a skipped one did not.
fn passed(said: &str) -> BTreeSet<String> {
    let names = said.lines().filter_map(|line| line.strip_prefix("    --- PASS: TestConformance/"));
    names.map(|rest| rest.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// What a report says without the time of its run, and its profiles in order: the suite writes them in any.
fn read(report: &str) -> Value {
    let mut report: Value = serde_saphyr::from_str(report).expect("a report is YAML");
    report.as_object_mut().expect("a report is an object").remove("date");
    let profiles = report["profiles"].as_array_mut().expect("a report has profiles");
    profiles.sort_by_key(|profile| profile["name"].to_string());
    report
}

#[test]
fn only_what_passed_counts_and_neither_a_part_of_a_test_nor_a_skipped_one() {
    let said = "--- PASS: TestConformance (1.00s)\n    --- PASS: TestConformance/MeshBasic (0.20s)\n        \
                --- PASS: TestConformance/MeshBasic/GET (0.10s)\n    --- SKIP: TestConformance/MeshPorts (0.00s)\n";
    assert_eq!(passed(said), BTreeSet::from(["MeshBasic".to_owned()]));
}

#[test]
fn reports_are_equal_whenever_they_were_made_and_however_their_profiles_are_ordered() {
    let first = "date: one\nprofiles: [{name: MESH-GRPC, failed: 0}, {name: MESH-HTTP, failed: 0}]\n";
    let second = "date: two\nprofiles: [{name: MESH-HTTP, failed: 0}, {name: MESH-GRPC, failed: 0}]\n";
    assert_eq!(read(first), read(second));
    assert_ne!(read(first), read(&second.replace("HTTP, failed: 0", "HTTP, failed: 1")));
}
