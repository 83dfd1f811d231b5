//! `gauze split`: shows TrafficSplits, and moves their weights in the user's own files. In a cluster it changes
//! nothing yet: it names the command that does.

mod cluster; // splits of a cluster
pub(crate) mod edit; // weights, in place

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::files::{self, YamlFile};
use crate::output::{self, Format};
use crate::source::{Place, Source};
use crate::table::Table;
use edit::EditProblem;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show every TrafficSplit, its weights and its file
    List {
        #[command(flatten)]
        output: output::Output,
    },
    /// Change weights in the file of a TrafficSplit: gauze split set cart v1=50 v2=50
    Set {
        /// The split: NAME or NAMESPACE/NAME
        split: String,
        /// BACKEND=WEIGHT; those that are not named keep theirs
        #[arg(required = true, value_parser = parse_weight, value_name = "BACKEND=WEIGHT")]
        weights: Vec<(String, u32)>,
    },
}

fn parse_weight(text: &str) -> Result<(String, u32), String> {
    let form = || format!("`{text}` is not of the form BACKEND=WEIGHT, for example v1=50");
    let (backend, weight) = text.split_once('=').ok_or_else(form)?;
    Ok((backend.to_owned(), weight.parse().map_err(|_| form())?))
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let source = place.source().await?;
    match arguments.command {
        Command::List { output } => {
            let mut found = match &source {
                Source::Directory(directory) => splits(&directory.path)?,
                Source::Cluster(cluster) => cluster::splits(cluster).await?,
            };
            let namespace = place.namespace.as_deref();
            found.retain(|Found { split, .. }| {
                namespace.is_none_or(|namespace| split["metadata"]["namespace"] == namespace)
            });
            list(&found, output.format)
        }
        Command::Set { split, weights } => {
            let (namespace, name) = files::split_name(&split);
            let namespace = namespace.or(place.namespace.as_deref());
            match &source {
                Source::Directory(directory) => set(&directory.path, namespace, name, &weights),
                Source::Cluster(cluster) => {
                    Err(cluster::how_to_set(&cluster::splits(cluster).await?, namespace, name, &weights)
                        .into())
                }
            }
        }
    }
}

/// One split, and the file in which it stands, if it does.
struct Found {
    split: Value,
    file: Option<PathBuf>,
}

fn splits(directory: &Path) -> anyhow::Result<Vec<Found>> {
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

fn list(found: &[Found], format: Format) -> anyhow::Result<Exit> {
    let mut head = vec!["NAMESPACE", "NAME", "SERVICE", "WEIGHTS"];
    if found.iter().any(|found| found.file.is_some()) {
        head.push("FILE");
    }
    let mut table = Table::new(&head);
    for Found { split, file } in found {
        table.push(vec![
            text(&split["metadata"]["namespace"]).into(),
            text(&split["metadata"]["name"]).into(),
            text(&split["spec"]["service"]).into(),
            weights(split).into(),
            file.as_deref().map_or_else(String::new, |file| file.display().to_string()).into(),
        ]);
    }
    let items = found.iter().map(|Found { split, file }| json!({ "split": split, "file": file }));
    output::print(format, &table, &Value::Array(items.collect()), "there is no TrafficSplit here")?;
    Ok(Exit::Fine)
}

/// `cart-v1=90 cart-v2=10`
fn weights(split: &Value) -> String {
    let backend = |backend: &Value| format!("{}={}", text(&backend["service"]), number(&backend["weight"]));
    edit::backends_of(split).iter().map(backend).collect::<Vec<_>>().join(" ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A weight as it stands there: v1alpha1 writes quantities.
fn number(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn set(
    directory: &Path,
    namespace: Option<&str>,
    name: &str,
    weights: &[(String, u32)],
) -> anyhow::Result<Exit> {
    for file in files::read(directory)? {
        match edit::set_weights(&file.text, namespace, name, weights) {
            Ok(changed) => {
                file.write(&changed)?;
                return announce(&file, &changed, name);
            }
            Err(EditProblem::NotHere) => {}
            Err(problem) => return Err(refusal(&file, &problem).into()),
        }
    }
    let names =
        splits(directory)?.iter().map(|found| text(&found.split["metadata"]["name"])).collect::<Vec<_>>();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    bail!(Failure::Usage(format!("no TrafficSplit {name} in {}; there is: {names}", directory.display())))
}

fn announce(file: &YamlFile, changed: &str, name: &str) -> anyhow::Result<Exit> {
    let objects = YamlFile { text: changed.to_owned(), ..file.clone() }.objects()?;
    let is_it = |object: &&Value| object["kind"] == "TrafficSplit" && object["metadata"]["name"] == name;
    let now = objects.iter().find(is_it).map(weights).unwrap_or_default();
    println!("{name}: {now}   ({})", file.path.display());
    Ok(Exit::Fine)
}

fn refusal(file: &YamlFile, problem: &EditProblem) -> Failure {
    let path = file.path.display();
    Failure::Usage(match problem {
        EditProblem::NoBackend { wanted, backends } => {
            format!("the split in {path} has no backend {wanted}; it has {}", backends.join(", "))
        }
        EditProblem::NotHere | EditProblem::NotInPlace => {
            format!(
                "cannot change {path} without changing more than the weights (is a backend without `weight:`?); edit it by hand"
            )
        }
    })
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

    fn weights(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn the_file_changes_and_keeps_its_comments() {
        let directory = directory();
        assert_eq!(
            set(directory.path(), Some("shop"), "cart", &weights(&[("v1", 50), ("v2", 50)])).unwrap(),
            Exit::Fine
        );
        let text = std::fs::read_to_string(directory.path().join("split.yaml")).unwrap();
        assert_eq!(text, SPLIT.replace("90", "50").replace("10}", "50}"));
    }

    #[test]
    fn mistakes_say_what_there_is_instead() {
        let directory = directory();
        for (namespace, split, backend, expected) in [
            (None, "carrot", "v1", "there is: cart"),
            (Some("other"), "cart", "v1", "no TrafficSplit cart"),
            (None, "cart", "v3", "it has cart-v1, cart-v2"),
        ] {
            let error = set(directory.path(), namespace, split, &weights(&[(backend, 1)])).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(parse_weight("v1=50"), Ok(("v1".to_owned(), 50)));
        assert!(parse_weight("v1:50").is_err() && parse_weight("v1=-5").is_err());
    }
}
