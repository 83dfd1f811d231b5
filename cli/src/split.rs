//! `gauze split`: shows TrafficSplits, and moves their weights: in the user's own files, or in a cluster.

mod cluster; // splits of a cluster, read and written
pub(crate) mod edit; // weights, in place
mod files; // splits of a directory
mod objection; // why weights should not be written
mod wait; // until every proxy holds them

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::files::split_name;
use crate::output::{self, Format};
use crate::source::{Place, Source};
use crate::table::Table;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show every TrafficSplit: its weights, the requests it is for, and whether it is live
    List {
        #[command(flatten)]
        output: output::Output,
    },
    /// Change weights of a TrafficSplit: gauze split set cart v1=50 v2=50
    ///
    /// In a directory the numbers change in the user's own file. In a cluster the list of backends is written anew,
    /// and only if nobody else has changed the split meanwhile. Refused is what would have no effect (a route decides
    /// in place of the split) or would not last (a controller, for example of Flagger or Argo Rollouts, owns it).
    Set(Set),
}

#[derive(clap::Args)]
pub(crate) struct Set {
    /// The split: NAME or NAMESPACE/NAME
    split: String,
    /// BACKEND=WEIGHT; those that are not named keep theirs
    #[arg(required = true, value_parser = parse_weight, value_name = "BACKEND=WEIGHT")]
    weights: Vec<(String, u32)>,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Return when every proxy that uses the split holds the new weights
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long --wait waits
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "wait")]
    timeout: u64,
    /// Write also what a route overrides, or a controller will undo
    #[arg(long)]
    force: bool,
}

fn parse_weight(text: &str) -> Result<(String, u32), String> {
    let form = || format!("`{text}` is not of the form BACKEND=WEIGHT, for example v1=50");
    let (backend, weight) = text.split_once('=').ok_or_else(form)?;
    Ok((backend.to_owned(), weight.parse().map_err(|_| form())?))
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let source = place.source().await?;
    let namespace = place.namespace.as_deref();
    match arguments.command {
        Command::List { output } => {
            let mut found = match &source {
                Source::Directory(directory) => files::splits(&directory.path)?,
                Source::Cluster(cluster) => cluster::splits(cluster, namespace).await?,
            };
            found.retain(|Found { split, .. }| {
                namespace.is_none_or(|namespace| split["metadata"]["namespace"] == namespace)
            });
            list(&found, output.format)
        }
        Command::Set(set) => {
            let (in_name, name) = split_name(&set.split);
            let namespace = in_name.or(namespace);
            let key = match &source {
                Source::Directory(directory) => files::set(&directory.path, namespace, name, &set)?,
                Source::Cluster(cluster) => cluster::set(cluster, namespace, name, &set).await?,
            };
            match set.wait {
                false => Ok(Exit::Fine),
                true => wait::until_live(&source, &key, Duration::from_secs(set.timeout)).await,
            }
        }
    }
}

/// One split, and the file in which it stands, if it does.
struct Found {
    split: Value,
    file: Option<PathBuf>,
}

/// A split as it was written.
struct Written {
    namespace: String,
    name: String,
    /// Which version it is; none in a directory.
    generation: Option<i64>,
    backends: Value,
}

impl Found {
    fn name(&self) -> String {
        text(&self.split["metadata"]["name"])
    }
}

fn list(found: &[Found], format: Format) -> anyhow::Result<Exit> {
    let mut head = vec!["NAMESPACE", "NAME", "SERVICE", "WEIGHTS"];
    // What is said of none has no column.
    type Column = (&'static str, fn(&Found) -> String);
    let more: [Column; 3] = [("MATCHES", matches), ("PROGRAMMED", programmed), ("FILE", file)];
    let more: Vec<Column> =
        more.into_iter().filter(|(_, of)| found.iter().any(|found| !of(found).is_empty())).collect();
    head.extend(more.iter().map(|(name, _)| *name));
    let mut table = Table::new(&head);
    for one in found {
        let mut row = vec![
            text(&one.split["metadata"]["namespace"]).into(),
            one.name().into(),
            text(&one.split["spec"]["service"]).into(),
            weights(&one.split).into(),
        ];
        row.extend(more.iter().map(|(_, of)| of(one).into()));
        table.push(row);
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

/// The groups of requests that it is for.
fn matches(found: &Found) -> String {
    let groups = found.split["spec"]["matches"].as_array().into_iter().flatten();
    groups.map(|group| text(&group["name"])).collect::<Vec<_>>().join(" ")
}

/// What the cluster says of it, if that is about what stands there now.
fn programmed(found: &Found) -> String {
    let standing = wait::Standing::of_status(&found.split);
    standing.map(|standing| standing.to_string()).unwrap_or_default()
}

fn file(found: &Found) -> String {
    found.file.as_deref().map_or_else(String::new, |file| file.display().to_string())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A weight as it stands there: v1alpha1 writes quantities.
fn number(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What to say where a split has no such backend, or two of that name.
fn no_backend(place: &str, problem: &edit::EditProblem) -> Failure {
    Failure::Usage(match problem {
        edit::EditProblem::NoBackend { wanted, backends } => {
            format!("{place} has no backend {wanted}; it has {}", backends.join(", "))
        }
        edit::EditProblem::NamedTwice { backend } => {
            format!(
                "{place} names {backend} twice, so it is not clear which weight is meant; edit it by hand"
            )
        }
        edit::EditProblem::NotHere | edit::EditProblem::NotInPlace => format!(
            "{place} cannot be changed without changing more than the weights (is a backend without `weight:`?); edit it by hand"
        ),
    })
}

/// `shop/cart: cart-v1=90 cart-v2=10 -> cart-v1=50 cart-v2=50`, and what that may not have been meant to be.
fn announce(before: &Value, after: &Value, more: &str) {
    let key = match text(&after["metadata"]["namespace"]).as_str() {
        "" => text(&after["metadata"]["name"]),
        namespace => format!("{namespace}/{}", text(&after["metadata"]["name"])),
    };
    let (was, is) = (weights(before), weights(after));
    match was == is {
        true => println!("{key}: {is}, as before{more}"),
        false => println!("{key}: {was} -> {is}{more}"),
    }
    if edit::backends_of(after).iter().all(|backend| backend["weight"].as_f64() == Some(0.0)) {
        let root = text(&after["spec"]["service"]);
        eprintln!("all weights are 0: requests go to the endpoints of {root} itself (gauze docs M5105)");
    }
}

/// What there is in place of a split that is not there.
fn not_there(name: &str, place: &str, found: &[Found]) -> Failure {
    let names: Vec<String> = found.iter().map(Found::name).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Failure::Usage(format!("no TrafficSplit {name} in {place}; there is: {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_whole_numbers_of_backends() {
        assert_eq!(parse_weight("v1=50"), Ok(("v1".to_owned(), 50)));
        assert!(parse_weight("v1:50").is_err() && parse_weight("v1=-5").is_err());
    }
}
