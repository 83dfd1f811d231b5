//! What is shipped, as far as files tell: the images say the same in the Dockerfile as in the rig, every value of
//! the chart is explained and in its schema, and all carry one version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::harness::programs::repository;

/// One image, as `tests/rig/images.json` describes it: a program at `/NAME`, and nothing else.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Image {
    name: String,
    binary: String,
    user: String,
    labels: BTreeMap<String, String>,
}

#[test]
fn the_dockerfile_makes_the_images_that_the_rig_makes() {
    let described: Vec<Image> =
        serde_json::from_str(&read("tests/rig/images.json")).expect("a list of images");
    let built: Vec<Image> = stages(&read("Dockerfile"));
    assert_eq!(built, described);
}

#[test]
fn a_stage_with_one_file_more_is_found_out() {
    let stage = "FROM scratch AS app\nCOPY --from=build /programs/app /app\nCOPY --from=build /etc/passwd /etc/passwd\nUSER 1:1\nENTRYPOINT [\"/app\"]\n";
    assert!(std::panic::catch_unwind(|| stages(stage)).is_err());
}

/// The final stages of a Dockerfile.
fn stages(dockerfile: &str) -> Vec<Image> {
    dockerfile
        .split("\nFROM ")
        .filter_map(|stage| stage.trim_start_matches("FROM ").strip_prefix("scratch AS "))
        .map(stage)
        .collect()
}

fn stage(text: &str) -> Image {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let name = lines.next().expect("a stage has a name").to_owned();
    let mut image = Image { binary: name.clone(), user: String::new(), labels: BTreeMap::new(), name };
    let program = format!("/{}", image.name);
    for line in lines {
        let (instruction, rest) = line.split_once(' ').expect("an instruction and its arguments");
        match instruction {
            "COPY" => assert_eq!(rest, format!("--from=build /programs{program} {program}")),
            "ENTRYPOINT" => assert_eq!(rest, format!("[\"{program}\"]")),
            "USER" => rest.clone_into(&mut image.user),
            "LABEL" => {
                let (key, value) = rest.split_once('=').expect("KEY=VALUE");
                image.labels.insert(key.to_owned(), value.trim_matches('"').to_owned());
            }
            _ => panic!("{}: the rig's images know no {instruction}", image.name),
        }
    }
    image
}

#[test]
fn everything_that_is_shipped_carries_one_version() {
    let workspace = read("Cargo.toml");
    let version = line_value(&workspace, "version = ").trim_matches('"');
    let chart = read("charts/gauze/Chart.yaml");
    assert_eq!((line_value(&chart, "version: "), line_value(&chart, "appVersion: ")), (version, version));
    let images: Vec<Image> = serde_json::from_str(&read("tests/rig/images.json")).expect("a list of images");
    for image in images {
        assert_eq!(image.labels["org.opencontainers.image.version"], version, "{}", image.name);
    }
    let toolchain = read("rust-toolchain.toml");
    let channel = line_value(&toolchain, "channel = ").trim_matches('"');
    assert!(
        read("Dockerfile").contains(&format!("FROM rust:{channel}-")),
        "the Dockerfile compiles with Rust {channel}"
    );
}

fn line_value<'t>(text: &'t str, key: &str) -> &'t str {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no line begins with {key}"))
}

#[test]
fn every_value_of_the_chart_is_explained_and_in_its_schema() {
    let text = read("charts/gauze/values.yaml");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let schema: Value = serde_json::from_str(&read("charts/gauze/values.schema.json")).expect("JSON");
    let mut differences = Vec::new();
    compare(&schema, &schema, &values, "", &mut differences);
    differences.extend(unexplained(&text));
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Walks schema and values side by side: both name the same keys, and no object lets in others.
fn compare(root: &Value, schema: &Value, values: &Value, path: &str, differences: &mut Vec<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).expect("a definition"),
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] != Value::Bool(false) {
        differences.push(format!("{path}: a typo would pass"));
    }
    let known: BTreeSet<&String> = properties.keys().collect();
    // What Kubernetes names inside `resources` need not all have a default; `global` is Helm's own.
    let optional = |key: &str| matches!(key, "global" | "claims");
    let set: BTreeSet<&String> = values.as_object().map(|values| values.keys().collect()).unwrap_or_default();
    let odd = known.symmetric_difference(&set).filter(|key| !optional(key));
    differences.extend(odd.map(|key| format!("{path}.{key}: only in one of schema and values")));
    for (key, schema) in properties {
        compare(root, schema, &values[key], &format!("{path}.{key}"), differences);
    }
}

/// Keys of the chart's values without a `# -- …` above them, neither at themselves nor at what contains them.
fn unexplained(text: &str) -> Vec<String> {
    let mut explained_at: Option<usize> = None;
    let mut comment = false;
    let mut missing = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let depth = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if line.starts_with('#') || line.is_empty() {
            comment |= line.starts_with("# -- ");
            continue;
        }
        if explained_at.is_some_and(|above| depth <= above) {
            explained_at = None;
        }
        if comment {
            explained_at = explained_at.or(Some(depth));
        }
        // A key with an object below it may leave the explaining to that object's keys.
        let opens = line.ends_with(':') && lines.get(index + 1).is_some_and(|next| !next.trim().is_empty());
        if explained_at.is_none() && !opens {
            missing.push(format!("values.yaml:{}: `{line}` is not explained", index + 1));
        }
        comment = false;
    }
    missing
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
