//! `gauze demo`: the real control plane, real sidecars and a small shop as child processes of this one,
//! with load, from a directory of YAML. No root, no cluster, nothing left behind.

pub(crate) mod app; // one app of the shop
mod call; // what the apps say to each other
mod children; // processes that cannot outlive this one
mod client; // a client in three protocols
mod latency; // how many took how long
mod ledger; // what an app received
mod load; // load from outside the mesh
mod objects; // the shop's YAML
mod pods; // what the YAML says about pods

use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Exit;

/// How the demo runs.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where its objects live; edit them while it runs
    #[arg(long, default_value = "gauze-demo")]
    directory: PathBuf,
    /// Write all objects anew, also those that were edited
    #[arg(long)]
    reset: bool,
    /// First two bytes of the pods' loopback addresses, when the objects are written
    #[arg(long, default_value = objects::ADDRESS_BASE, value_parser = objects::parse_address_base)]
    address_base: String,
    /// End after this time (10s, 2m); without it at Ctrl-C
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Requests per second
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Makes the load's mix of protocols repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Life of the sidecars' certificates
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    certificate_life: Duration,
    /// Print one JSON object at the end, and nothing else on stdout
    #[arg(long)]
    json: bool,
}

/// Reads `10s`, `2m`, `24h`, `500ms`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not of the form 30s, 2m or 24h"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("`{text}` is not of the form 30s, 2m or 24h")),
    }
}

/// Runs the demo.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let written = objects::write(&arguments.directory, &arguments.address_base, arguments.reset)?;
    let _ = (
        written,
        arguments.duration,
        arguments.rate,
        arguments.seed,
        arguments.certificate_life,
        arguments.json,
    );
    Ok(Exit::Fine)
}
