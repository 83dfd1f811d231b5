//! `docs/promises.md` maps what we say to what proves it; this keeps the map true.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::programs::repository;

/// A row's test: `package: path::of::the_test`.
struct Proof {
    line: usize,
    package: String,
    test: String,
}

#[test]
fn every_promise_names_a_test_that_exists_and_runs() {
    let page = fs::read_to_string(repository().join("docs/promises.md")).expect("the page is there");
    let proofs = proofs(&page);
    assert!(proofs.len() > 30, "only {} promises", proofs.len());
    let broken: Vec<String> = proofs.iter().filter_map(problem).collect();
    assert!(broken.is_empty(), "docs/promises.md:\n{}", broken.join("\n"));
}

#[test]
fn a_promise_without_its_test_is_found_out() {
    let page =
        "| promise | proof |\n|---|---|\n| it flies | `gauze-tests: promises::it_flies` |\n| it swims | |\n";
    let problems: Vec<_> = proofs(page).iter().map(problem).collect();
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(Option::is_some));
}

/// The last cell of each row holds one or more proofs in backticks.
fn proofs(page: &str) -> Vec<Proof> {
    let rows = page.lines().enumerate().filter(|(_, line)| line.starts_with("| "));
    let rows = rows.filter(|(_, line)| !line.starts_with("| promise |"));
    rows.flat_map(|(index, line)| {
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or("").to_owned();
        let named: Vec<Proof> = cell
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|proof| {
                let (package, test) = proof.split_once(": ").unwrap_or((proof, ""));
                Proof { line: index + 1, package: package.to_owned(), test: test.to_owned() }
            })
            .collect();
        match named.is_empty() {
            true => vec![Proof { line: index + 1, package: String::new(), test: String::new() }],
            false => named,
        }
    })
    .collect()
}

fn problem(proof: &Proof) -> Option<String> {
    let Proof { line, package, test } = proof;
    let Some(folder) = package.strip_prefix("gauze-").filter(|folder| repository().join(folder).is_dir())
    else {
        return Some(format!("line {line}: names no proof, or no package of ours: `{package}: {test}`"));
    };
    let name = test.rsplit("::").next().unwrap_or(test);
    let sources = sources(&repository().join(folder));
    let found = sources.iter().any(|path| has_test(&fs::read_to_string(path).unwrap_or_default(), name));
    (!found).then(|| format!("line {line}: no running test `{test}` in {package}"))
}

/// A function of this name below a test attribute that is not ignored.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declares = |line: &str| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().enumerate().filter(|(_, line)| declares(line)).any(|(index, _)| {
        let attributes: Vec<_> =
            lines[..index].iter().rev().take_while(|line| line.starts_with("#[")).collect();
        attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
            && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    })
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    here.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}
