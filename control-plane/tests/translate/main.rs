//! Golden cases of translation: `NAME.in.yaml` holds, first, the names to translate and then the
//! objects; `NAME.out.yaml` the resources, problems and conditions that come of them. A new case is
//! two files and no code; `UPDATE=1 cargo test -p gauze-control-plane --test translate` writes the second.

mod view;

use std::path::{Path, PathBuf};
use std::{env, fs};

use gauze_control_plane::source::directory;
use gauze_control_plane::status::{self, Heard};
use gauze_control_plane::translate::{check, translate};
use gauze_control_plane::world::{MeshSettings, World};
use gauze_model::listener::Mtls;
use serde::Deserialize;

use view::{Golden, Lines};

/// The first document of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// In a sentence, what the case shows.
    #[serde(rename = "shows")]
    _shows: String,
    names: Vec<String>,
    /// The mesh's default.
    #[serde(default)]
    mtls: Mtls,
}

#[test]
fn every_case_comes_out_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate");
    let update = env::var_os("UPDATE").is_some();
    let mut failed = Vec::new();
    let cases = cases(&directory);
    assert!(cases.len() >= 30, "only {} cases found in {}", cases.len(), directory.display());
    for case in cases {
        let input = fs::read_to_string(directory.join(format!("{case}.in.yaml"))).expect("readable");
        let output = directory.join(format!("{case}.out.yaml"));
        let now = run(&case, &input);
        if update {
            fs::write(&output, &now).expect("writable");
        } else if fs::read_to_string(&output).unwrap_or_default() != now {
            failed.push(format!("=== {case}, now:\n{now}"));
        }
    }
    assert!(failed.is_empty(), "{}\nUPDATE=1 rewrites the .out.yaml files", failed.join("\n"));
}

fn cases(directory: &Path) -> Vec<String> {
    let files =
        fs::read_dir(directory).expect("the directory of cases").map(|entry| entry.expect("an entry").path());
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".in.yaml")?.to_owned());
    let mut cases: Vec<String> = files.filter_map(name).collect();
    cases.sort();
    cases
}

fn run(case: &str, input: &str) -> String {
    let (header, objects) = input.split_once("\n---\n").expect("a document of names, then objects");
    let header: Header = serde_saphyr::from_str(header).expect(case);
    // Blank lines in place of the header, so that problems name the lines of the file.
    let blank = "\n".repeat(input.matches('\n').count() - objects.matches('\n').count());
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("in.yaml"), blank + objects).expect("writable");
    let (objects, source_problems) = directory::read(directory.path());

    let settings = MeshSettings { mtls: header.mtls, ..MeshSettings::default() };
    let world = World::of(settings, objects);
    let mut golden = Golden::default();
    for name in &header.names {
        let translation = translate(&world, &name.parse().expect(name));
        golden.resources.push((name.clone(), view::answer(&translation.answer)));
        golden.problems.extend(translation.problems.iter().map(ToString::to_string));
    }
    golden.problems.extend(check(&world).iter().map(ToString::to_string));
    golden.problems.extend(source_problems.iter().map(ToString::to_string));
    golden.problems.sort();
    golden.problems.dedup();
    golden.conditions = view::conditions(&status::conditions(&world, &source_problems, &Heard::default()));
    Lines::of(&golden)
}
