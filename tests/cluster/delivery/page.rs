//! docs/progressive-delivery.md: its YAML is what these tests use.

use serde_json::Value;

use crate::harness::programs::repository;

/// The namespace that the page writes everywhere.
const NAMESPACE: &str = "test";

/// All documents of the page's YAML blocks, as if written for this namespace.
fn documents(namespace: &str) -> Vec<Value> {
    let page = repository().join("docs/progressive-delivery.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let documents = blocks.flat_map(|block| block.split("---\n"));
    documents
        .map(|document| {
            let own = format!("namespace: {namespace}");
            let document = document.replace(&format!("namespace: {NAMESPACE}"), &own);
            serde_saphyr::from_str(&document).unwrap_or_else(|error| panic!("{error}\n{document}"))
        })
        .collect()
}

/// What the page writes at this place: the first value that is there.
pub(super) fn value(namespace: &str, pointer: &str) -> Value {
    let documents = documents(namespace);
    let mut found = documents.iter().filter_map(|document| document.pointer(pointer));
    found.next().unwrap_or_else(|| panic!("docs/progressive-delivery.md has no {pointer}")).clone()
}

/// The page's first object of this kind.
pub(super) fn object(namespace: &str, kind: &str) -> Value {
    let mut found = documents(namespace).into_iter().filter(|document| document["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("docs/progressive-delivery.md has no {kind}"))
}

/// The series that its templates for Flagger ask for, as `(metric, a label's beginning)`, with the variables filled in as Flagger does.
pub(super) fn series(namespace: &str, target: &str) -> Vec<(String, String)> {
    let templates = documents(namespace).into_iter().filter(|document| document["kind"] == "MetricTemplate");
    let queries = templates.filter_map(|template| template["spec"]["query"].as_str().map(ToOwned::to_owned));
    let filled = queries
        .map(|query| query.replace("{{ namespace }}", namespace).replace("{{ target }}", target))
        .collect::<String>();
    let metrics = filled.match_indices("gauze_").map(|(at, _)| {
        let (metric, rest) = filled[at..].split_once('{').expect("a selector");
        let cluster = rest.split_once("cluster=~\"").expect("the backend").1;
        let begin = cluster.split("[0-9]+").next().unwrap_or_default();
        (metric.to_owned(), format!("cluster=\"{begin}"))
    });
    metrics.collect()
}
