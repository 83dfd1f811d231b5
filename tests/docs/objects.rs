//! Every object of the pages is one that the control plane understands and the API server takes.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::apiserver::ApiServer;
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::Mesh;
use crate::harness::objects;
use crate::harness::programs::repository;

/// What the control plane reads, and the Kubernetes that it stands on.
const VERSIONS: [&str; 5] = [
    "apiVersion: gateway.networking.k8s.io/",
    "apiVersion: split.smi-spec.io/",
    "apiVersion: specs.smi-spec.io/",
    "apiVersion: gauze.dev/",
    "apiVersion: v1\n",
];

/// One object of a page.
struct Shown {
    page: String,
    kind: String,
    name: String,
    yaml: String,
}

impl Shown {
    fn of(page: &str, document: &str) -> Shown {
        let field = |name: &str| {
            let (_, rest) = document.split_once(&format!("{name}: ")).expect("kind and name");
            rest.split(['\n', ',', '}']).next().unwrap_or_default().trim().to_owned()
        };
        Shown {
            page: page.to_owned(),
            kind: field("kind"),
            name: field("name"),
            yaml: format!("{document}\n"),
        }
    }
}

/// Every object in a `yaml` block of our pages, but those that a page shows as broken.
fn shown() -> Vec<Shown> {
    let docs = fs::read_dir(repository().join("docs")).expect("docs/ is there");
    let pages = docs.filter_map(|entry| Some(entry.ok()?.path()));
    let pages = pages.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut shown = Vec::new();
    for page in pages.chain([repository().join("README.md")]) {
        let text = fs::read_to_string(&page).expect("a page");
        let page = page.file_stem().expect("a file").to_string_lossy();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0));
        let documents = blocks.flat_map(|block| block.split("---\n"));
        // Others are parts of an object, or objects of other tools.
        let ours = documents.filter(|document| VERSIONS.iter().any(|version| document.contains(version)));
        shown.extend(ours.map(|document| Shown::of(&page, document)));
    }
    shown.retain(|object| !object.name.starts_with("broken"));
    for kind in ["HTTPRoute", "GRPCRoute", "TLSRoute", "TrafficPolicy", "AuthorizationPolicy", "Pod"] {
        assert!(shown.iter().any(|object| object.kind == kind), "no page shows a {kind}");
    }
    shown
}

#[tokio::test]
async fn the_control_plane_accepts_every_object_of_the_pages() {
    let mesh = Mesh::start().await;
    let http =
        ["cart", "cart-v1", "cart-v2", "store", "web"].map(|name| (name, mesh.service_address(), "http"));
    let at_443 = || SocketAddr::new(mesh.service_address().ip(), 443);
    let tls = ["vault", "vault-v1", "vault-v2"].map(|name| (name, at_443(), "tls"));
    for (service, address, port_name) in http.into_iter().chain(tls) {
        let yaml = objects::service("shop", service, address, port_name);
        mesh.apply(&format!("service-{service}.yaml"), &yaml);
    }
    // The examples of splits.md belong together, and some show what is refused: `splits_page` compares each. Those of
    // progressive-delivery.md have a test of their own, with the tools that write them.
    let alone = |object: &&Shown| {
        object.kind != "Namespace" && !["splits", "progressive-delivery"].contains(&object.page.as_str())
    };
    for Shown { page, kind, name, yaml } in shown().iter().filter(alone) {
        let object = async || {
            let said = mesh.ask("/objects").await;
            let mut objects = said["objects"].as_array().into_iter().flatten();
            objects.find(|object| object["kind"] == *kind && object["name"] == *name).cloned()
        };
        // Each for itself: pages show the same names with other contents.
        mesh.apply("shown.yaml", yaml);
        eventually(&format!("{page}.md: {kind} {name}"), async || {
            let object = object().await.unwrap_or_default();
            holds(is_accepted(&object), object.to_string())
        })
        .await;
        mesh.remove("shown.yaml");
        eventually("it is gone", async || holds(object().await.is_none(), "it is still there")).await;
    }
}

/// Nothing is wrong with it but what a page leaves to its reader: endpoints.
fn is_accepted(object: &Value) -> bool {
    let parents = object["parents"].as_array().into_iter().flatten();
    let mut conditions = parents.flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
    let is_there = object["kind"].is_string();
    let is_right = |condition: &Value| match condition["type"].as_str() {
        Some("Accepted") => condition["status"] == "True",
        Some("ResolvedRefs") => condition["status"] == "True" || condition["reason"] == "NoEndpoints",
        Some("PartiallyInvalid") => false,
        _ => true,
    };
    is_there && conditions.all(is_right) && object["problems"].as_array().is_none_or(Vec::is_empty)
}

/// Level 2: by server-side dry run, which checks all and stores nothing.
pub(crate) async fn the_api_server_takes_every_object(server: &ApiServer) {
    let namespace = server.namespace("docs").await;
    let own = format!("namespace: {}", namespace.name);
    // A Service without ports of its own is no Service; splits.md shows only what makes it special.
    for Shown { page, kind, name, yaml } in shown().iter().filter(|object| object.kind != "Service") {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), yaml.replace("namespace: shop", &own).replace("namespace: test", &own))
            .expect("writable");
        let path = file.path().to_str().expect("a path of text");
        let taken = server.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", path]).await;
        taken.unwrap_or_else(|error| panic!("{page}.md: {kind} {name}: {error}"));
    }
}
