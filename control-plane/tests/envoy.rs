//! Envoy itself accepts what we make of every golden case (`tests/translate`).

#![allow(clippy::unwrap_used)] // what helps a test is test

#[path = "../../xds/src/envoy.rs"]
mod envoy;

use std::fs;
use std::path::Path;

use gauze_control_plane::source::directory;
use gauze_control_plane::translate::{Answer, translate};
use gauze_control_plane::world::{MeshSettings, World};
use gauze_model::Name;
use gauze_xds::discovery::Resource;
use gauze_xds::to_xds;

#[test]
fn envoy_accepts_every_golden_case() {
    let Some(envoy) = envoy::find() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let cases = cases();
    let all: Vec<Resource> = cases.iter().flat_map(|(_, resources)| resources.clone()).collect();
    assert!(all.len() >= 30, "only {} resources", all.len());
    if envoy::validate(&envoy, scratch.path(), &all).is_ok() {
        return;
    }
    for (case, resources) in &cases {
        envoy::validate(&envoy, scratch.path(), resources)
            .unwrap_or_else(|problem| panic!("{case}: {problem}"));
    }
    panic!("Envoy refuses all cases together, but none alone");
}

/// Each case's name and what its names are on the wire.
fn cases() -> Vec<(String, Vec<Resource>)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate");
    let files = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    let inputs = files.filter(|file| file.to_str().is_some_and(|file| file.ends_with(".in.yaml")));
    inputs.map(|file| (file.display().to_string(), resources(&fs::read_to_string(file).unwrap()))).collect()
}

/// The first document lists the names, the others are the objects.
fn resources(input: &str) -> Vec<Resource> {
    let (header, objects) = input.split_once("\n---\n").unwrap();
    let names = header.lines().filter_map(|line| line.strip_prefix("- "));
    let names = names.map(|name| name.trim_matches(|quote| "'\"".contains(quote)).parse::<Name>().unwrap());
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("objects.yaml"), objects).unwrap();
    let (objects, _) = directory::read(directory.path());
    let world = World::of(MeshSettings::default(), objects);
    names.flat_map(|name| on_the_wire(&world, &name)).collect()
}

fn on_the_wire(world: &World, name: &Name) -> Vec<Resource> {
    match translate(world, name).answer {
        Answer::Known(resources) => resources.iter().map(|resource| to_xds(name, resource)).collect(),
        Answer::Absent | Answer::Undecided => Vec::new(),
    }
}
