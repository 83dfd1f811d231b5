//! `gauze proxy`: what one sidecar holds, how its backends fare, what it counts, and how loud it logs.

mod sidecar; // which one, and how it is asked
mod stats; // its counters

use serde_json::Value;

use crate::exit::Exit;
use crate::output;
use crate::source::Place;
use crate::table::{Cell, Table, Tone};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show all configuration that a sidecar holds, with the objects behind it
    Config(Asked),
    /// Show the backends that a sidecar uses, and their live state
    Clusters(Asked),
    /// Show what a sidecar has counted since it started
    Stats(stats::Arguments),
    /// Show the end of a sidecar's log, or change its level
    Log {
        #[command(flatten)]
        asked: Asked,
        /// Log from now on: error, warn, info, debug, trace
        #[arg(long)]
        level: Option<String>,
        /// Lines to show
        #[arg(long, default_value_t = 20)]
        lines: usize,
    },
}

#[derive(clap::Args)]
struct Asked {
    /// The pod, or the only one of an app: web-0, web, shop/web
    pod: String,
    #[command(flatten)]
    output: output::Output,
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    match arguments.command {
        Command::Config(asked) => {
            let value = sidecar::find(place, &asked.pod).await?.admin().get_json("/config_dump").await?;
            output::print(
                asked.output.format,
                &config_table(&value),
                &value,
                "this sidecar holds nothing yet",
            )?;
        }
        Command::Clusters(asked) => {
            let value = sidecar::find(place, &asked.pod).await?.admin().get_json("/clusters").await?;
            output::print(
                asked.output.format,
                &clusters_table(&value),
                &value,
                "this sidecar uses no backend yet",
            )?;
        }
        Command::Stats(arguments) => stats::run(&arguments, place).await?,
        Command::Log { asked, level, lines } => log(&asked, place, level.as_deref(), lines).await?,
    }
    Ok(Exit::Fine)
}

async fn log(asked: &Asked, place: &Place, level: Option<&str>, lines: usize) -> anyhow::Result<()> {
    let sidecar = sidecar::find(place, &asked.pod).await?;
    if let Some(level) = level {
        let said = sidecar.orders().post(&format!("/logging?level={level}")).await?;
        println!("{}: {}", sidecar.pod, said.trim());
        return Ok(());
    }
    let text = sidecar.log(lines).await?;
    let all: Vec<&str> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("{line}");
    }
    Ok(())
}

fn config_table(dump: &Value) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "ORIGIN", "STATE"]);
    for (field, kind) in
        [("listeners", "listener"), ("routes", "routes"), ("clusters", "cluster"), ("endpoints", "endpoints")]
    {
        for (name, value) in dump[field].as_object().into_iter().flatten() {
            let state = Cell::new("held", Tone::Good);
            table.push(vec![kind.into(), name.clone().into(), origin(value).into(), state]);
        }
    }
    for name in dump["absent"].as_array().into_iter().flatten() {
        let state = Cell::new("known not to exist", Tone::Quiet);
        table.push(vec!["".into(), text(name).into(), "".into(), state]);
    }
    for refused in dump["refused"].as_array().into_iter().flatten() {
        let state = format!("refused: {} {}", text(&refused["path"]), text(&refused["problem"]));
        let state = Cell::new(state, Tone::Bad);
        table.push(vec!["".into(), text(&refused["name"]).into(), origin(refused).into(), state]);
    }
    table
}

/// The user's object behind a resource; a listener says it one level deeper.
fn origin(value: &Value) -> String {
    let inner = ["inbound", "outbound"].iter().find_map(|variant| value.get(variant));
    let origin = &inner.unwrap_or(value)["origin"];
    let Some(kind) = origin["kind"].as_str() else { return String::new() };
    let path = text(&origin["path"]);
    format!("{kind}/{}/{} {path}", text(&origin["namespace"]), text(&origin["name"])).trim_end().to_owned()
}

fn clusters_table(clusters: &Value) -> Table {
    let mut table =
        Table::new(&["CLUSTER", "ENDPOINT", "POD", "VERSION", "TRANSPORT", "IN FLIGHT", "LATENCY", "STATE"]);
    for (name, cluster) in clusters.as_object().into_iter().flatten() {
        let endpoints = cluster["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        if endpoints.is_empty() {
            table.push(vec![name.clone().into(), Cell::new("none is ready", Tone::Bad)]);
        }
        for endpoint in endpoints {
            let workload = &endpoint["workload"];
            table.push(vec![
                name.clone().into(),
                text(&endpoint["address"]).into(),
                text(&workload["pod"]).into(),
                text(&workload["version"]).into(),
                transport(&endpoint["transport"]),
                number(&endpoint["requests"]).into(),
                latency(&endpoint["latency_ms"]).into(),
                state(endpoint),
            ]);
        }
    }
    table
}

/// Whether an endpoint gets traffic; if it does not, why, until when, and for the how-manieth time.
fn state(endpoint: &Value) -> Cell {
    let ejection = &endpoint["ejection"];
    let (reason, times) = (text(&ejection["reason"]), number(&ejection["times"]));
    match ejection["state"].as_str() {
        Some("probing") => Cell::new(format!("probed after {reason}, ejection {times}"), Tone::Doubtful),
        Some(state) => {
            let until = text(&ejection["until"]);
            Cell::new(format!("{state} until {until}: {reason}, ejection {times}"), Tone::Bad)
        }
        None => match endpoint["failures_in_a_row"].as_u64() {
            None | Some(0) => Cell::new("in", Tone::Good),
            Some(failures) => Cell::new(format!("in, {failures} failed in a row"), Tone::Doubtful),
        },
    }
}

fn transport(value: &Value) -> Cell {
    match value["mesh"].as_str() {
        Some(identity) => Cell::new(format!("mesh {identity}"), Tone::Good),
        None => Cell::new("plain", Tone::Doubtful),
    }
}

/// What the balancer believes; nothing before it has measured.
fn latency(value: &Value) -> String {
    match value.as_f64() {
        Some(measured) if measured > 0.0 => format!("{measured:.1} ms"),
        _ => String::new(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::terminal::Style;

    #[test]
    fn backends_are_shown_with_their_live_state() {
        let clusters = json!({ "cluster/shop/cart-v1/80": { "endpoints": [{
            "address": "127.1.2.1:8080", "requests": 2, "latency_ms": 1.5,
            "transport": { "mesh": "spiffe://cluster.local/ns/shop/sa/cart" },
            "workload": { "pod": "cart-v1-0", "version": "v1" },
        }] } });
        let shown = clusters_table(&clusters).render(Style::PLAIN);
        for part in ["cluster/shop/cart-v1/80", "127.1.2.1:8080", "cart-v1-0", "mesh spiffe://", "1.5 ms"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn the_state_of_an_endpoint_says_why_until_when_and_how_often() {
        let ejection = |state: &str, at: &str| {
            json!({ "ejection": {
            "state": state, "reason": "consecutive_gateway_failure", at: "2026-01-01T00:00:30.000Z", "times": 2,
        } })
        };
        for (endpoint, wanted) in [
            (json!({ "ejection": null, "failures_in_a_row": 0 }), "in"),
            (json!({}), "in"), // of an older proxy
            (json!({ "ejection": null, "failures_in_a_row": 4 }), "in, 4 failed in a row"),
            (
                ejection("ejected", "until"),
                "ejected until 2026-01-01T00:00:30.000Z: consecutive_gateway_failure, ejection 2",
            ),
            (ejection("probing", "since"), "probed after consecutive_gateway_failure, ejection 2"),
        ] {
            let mut table = Table::new(&["STATE"]);
            table.push(vec![state(&endpoint)]);
            assert_eq!(table.render(Style::PLAIN).lines().last().map(str::trim), Some(wanted));
        }
    }

    #[test]
    fn held_absent_and_refused_are_told_apart() {
        let origin =
            json!({ "kind": "Service", "namespace": "shop", "name": "cart", "path": "spec.ports[0]" });
        let dump = json!({
            "listeners": { "outbound/shop/10.96.0.12:80": { "outbound": { "origin": origin } } },
            "absent": ["cluster/shop/cart-v3/80"],
            "refused": [{ "name": "routes/shop/cart/80", "path": "a.b", "problem": "no", "origin": origin }],
        });
        let shown = config_table(&dump).render(Style::PLAIN);
        for part in ["Service/shop/cart spec.ports[0]  held", "known not to exist", "refused: a.b no"] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}
