//! The TrafficSplits of a directory: changed in the user's own text.

use std::path::Path;

use serde_json::Value;

use super::edit::{self, EditProblem};
use super::{Found, Set, Written, announce, no_backend, not_there, text};
use crate::files::{self, YamlFile};

pub(super) fn splits(directory: &Path) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for file in files::read(directory)? {
        let Ok(objects) = file.objects() else {
            eprintln!("{} is no YAML and is left out", file.path.display());
            continue;
        };
        let splits = objects.into_iter().filter(|object| object["kind"] == "TrafficSplit");
        found.extend(splits.map(|split| Found { split, file: Some(file.path.clone()) }));
    }
    Ok(found)
}

/// Sets weights in the file that holds the split.
///
/// # Errors
/// There is no such split or backend, or the file cannot be changed in place.
pub(super) fn set(
    directory: &Path,
    namespace: Option<&str>,
    name: &str,
    set: &Set,
) -> anyhow::Result<Written> {
    for file in files::read(directory)? {
        match edit::set_weights(&file.text, namespace, name, &set.weights) {
            Ok(changed) => {
                if !set.dry_run {
                    file.write(&changed)?;
                }
                return say(&file, &changed, namespace, name, set.dry_run);
            }
            Err(EditProblem::NotHere) => {}
            Err(problem) => {
                return Err(no_backend(&format!("the split in {}", file.path.display()), &problem).into());
            }
        }
    }
    Err(not_there(name, &directory.display().to_string(), &splits(directory)?).into())
}

fn say(
    file: &YamlFile,
    changed: &str,
    namespace: Option<&str>,
    name: &str,
    dry_run: bool,
) -> anyhow::Result<Written> {
    let split_of = |objects: Vec<Value>| {
        let is_it = |object: &Value| {
            object["kind"] == "TrafficSplit"
                && object["metadata"]["name"] == name
                && namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
        };
        objects.into_iter().find(is_it).unwrap_or_default()
    };
    let after = split_of(YamlFile { text: changed.to_owned(), ..file.clone() }.objects()?);
    let unwritten = if dry_run { "; nothing is written" } else { "" };
    announce(&split_of(file.objects()?), &after, &format!("   ({}{unwritten})", file.path.display()));
    let namespace = text(&after["metadata"]["namespace"]);
    let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
    let backends = after["spec"]["backends"].clone();
    Ok(Written { namespace, name: name.to_owned(), generation: None, backends })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPLIT: &str = "kind: TrafficSplit\nmetadata: {name: cart, namespace: shop}\nspec:\n  service: cart\n  backends:\n  - {service: cart-v1, weight: 90} # most\n  - {service: cart-v2, weight: 10}\n";

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("split.yaml"), SPLIT).unwrap();
        directory
    }

    fn wish(weights: &[(&str, u32)], dry_run: bool) -> Set {
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        Set { split: "cart".into(), weights, dry_run, wait: false, timeout: 60, force: false }
    }

    #[test]
    fn the_file_changes_and_keeps_its_comments_and_a_dry_run_leaves_it() {
        let directory = directory();
        let read = || std::fs::read_to_string(directory.path().join("split.yaml")).unwrap();
        for (dry_run, expected) in
            [(true, SPLIT.to_owned()), (false, SPLIT.replace("90", "50").replace("10}", "50}"))]
        {
            let wish = wish(&[("v1", 50), ("v2", 50)], dry_run);
            set(directory.path(), Some("shop"), "cart", &wish).unwrap();
            assert_eq!(read(), expected);
        }
    }

    #[test]
    fn mistakes_say_what_there_is_instead() {
        let directory = directory();
        for (namespace, split, backend, expected) in [
            (None, "carrot", "v1", "there is: cart"),
            (Some("other"), "cart", "v1", "no TrafficSplit cart"),
            (None, "cart", "v3", "it has cart-v1, cart-v2"),
        ] {
            let error = set(directory.path(), namespace, split, &wish(&[(backend, 1)], false)).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
