//! What every step of the story works with: the mesh, the load, the split's file, and the upstreams' counts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::demo::load::{Load, Tally};
use crate::demo::mesh::Mesh;
use crate::demo::{objects, wait};
use crate::files;
use crate::split::edit;

/// The mesh, the load, and the runs of the step that is being told.
pub(crate) struct Stage<'s> {
    pub(crate) mesh: &'s mut Mesh,
    pub(crate) load: &'s Load,
    step: &'static str,
    runs: Vec<String>,
    rate: u32,
    /// The user asked for no rate.
    rate_is_free: bool,
    split_file: PathBuf,
    /// What stood there before the story.
    split_before: String,
}

/// What a step wanted and saw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) ok: bool,
    pub(crate) wanted: Value,
    pub(crate) seen: Value,
}

/// The load is never less than this, in requests per second.
const RATE_MIN: u32 = 200;
/// The rates that are tried beyond it.
const RATES: [u32; 2] = [350, 500];
/// Above this latency the machine is busier than the story needs it.
const AT_EASE_MS: f64 = 100.0;
/// Above this latency it does not keep up.
const TOO_SLOW_MS: f64 = 1000.0;
/// How long requests in flight may take to come to an end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The share of cart's requests that v2 received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) v1: u64,
    pub(crate) v2: u64,
}

impl Share {
    pub(crate) fn requests(self) -> u64 {
        self.v1 + self.v2
    }

    /// Percent that reached v2, to a hundredth.
    pub(crate) fn percent(self) -> f64 {
        (10_000.0 * self.v2 as f64 / self.requests().max(1) as f64).round() / 100.0
    }

    pub(crate) fn is_near(self, wanted: f64, tolerance: f64) -> bool {
        (self.percent() - wanted).abs() <= tolerance
    }
}

impl<'s> Stage<'s> {
    pub(crate) fn new(mesh: &'s mut Mesh, load: &'s Load, rate_is_free: bool) -> anyhow::Result<Stage<'s>> {
        let split_file = mesh.directory.join(objects::SPLIT_FILE);
        let split_before = std::fs::read_to_string(&split_file)
            .with_context(|| format!("cannot read {}", split_file.display()))?;
        let rate = load.rate();
        Ok(Stage { mesh, load, step: "", runs: Vec::new(), rate, rate_is_free, split_file, split_before })
    }

    /// Finds a rate that this machine carries with ease: the story is shorter at a higher one, but what is
    /// promised is not how fast it is. The first try is repeated: it also wakes everything up.
    pub(crate) async fn warm_up(&mut self) -> anyhow::Result<()> {
        self.open("warm up");
        for rate in [RATE_MIN, RATE_MIN].into_iter().chain(RATES) {
            let p99_ms = self.probe(rate).await?;
            if p99_ms <= AT_EASE_MS {
                self.rate = rate;
            } else if rate > RATE_MIN {
                eprintln!("  at {rate} requests per second 99 of 100 take up to {p99_ms:.0} ms here");
                break;
            }
        }
        self.resume();
        Ok(())
    }

    /// Lets everything come to an end between two steps, and goes on slower if the last one was too much
    /// for this machine.
    pub(crate) async fn rest(&mut self) -> anyhow::Result<()> {
        let p99_ms = self.tally().latencies().quantile_ms(0.99);
        self.pause().await?;
        if self.rate_is_free && p99_ms > TOO_SLOW_MS && self.rate > RATE_MIN {
            self.rate = (self.rate / 2).max(RATE_MIN);
            eprintln!(
                "  99 of 100 took up to {p99_ms:.0} ms: going on with {} requests per second",
                self.rate
            );
        }
        self.resume();
        Ok(())
    }

    /// Loads the mesh for a second, waits for all answers, and returns the latency that one in a hundred exceeds.
    async fn probe(&mut self, rate: u32) -> anyhow::Result<f64> {
        let run = self.begin(&format!("{}", self.runs.len()));
        self.load.set_rate(rate);
        self.sent(&run, u64::from(rate)).await?;
        self.pause().await?;
        Ok(self.load.tally(&run).latencies().quantile_ms(0.99))
    }

    /// A new step begins.
    pub(crate) fn open(&mut self, step: &'static str) {
        self.step = step;
        self.runs.clear();
    }

    /// What became of the step's requests; those that follow belong to no step.
    pub(crate) fn close(&mut self) -> Tally {
        self.load.begin("between");
        self.tally()
    }

    /// How many of the step's requests failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.tally().failed
    }

    fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.runs.iter().for_each(|run| all.merge(&self.load.tally(run)));
        all
    }

    /// From now on the load's requests belong to this part of the step.
    pub(crate) fn begin(&mut self, part: &str) -> String {
        let run = format!("{}/{part}", self.step);
        self.load.begin(&run);
        self.runs.push(run.clone());
        run
    }

    /// Waits until `run` has sent so many requests.
    pub(crate) async fn sent(&mut self, run: &str, requests: u64) -> anyhow::Result<()> {
        let limit = Duration::from_secs(10 + 4 * requests / u64::from(self.rate.max(1)));
        let (load, mesh) = (self.load, &mut *self.mesh);
        wait::until(&format!("{requests} requests"), limit, async || {
            mesh.check().map_err(|error| format!("{error:#}"))?;
            let sent = load.tally(run).sent;
            if sent >= requests { Ok(()) } else { Err(format!("{sent} were sent")) }
        })
        .await
    }

    /// Ends `run` and waits until each of its requests has come to an end.
    pub(crate) async fn settle(&self, run: &str) -> anyhow::Result<()> {
        self.load.begin("between");
        wait::until("the answers to all requests", SETTLE_TIMEOUT, async || {
            match self.load.tally(run).in_flight() {
                0 => Ok(()),
                waiting => Err(format!("{waiting} are missing")),
            }
        })
        .await
    }

    /// Sends `requests` requests, and returns where cart's upstreams counted them.
    pub(crate) async fn share_of(&mut self, part: &str, requests: u64) -> anyhow::Result<Share> {
        let run = self.begin(part);
        self.sent(&run, requests).await?;
        self.settle(&run).await?;
        self.mesh.read().await?;
        let count = |version: &str| anyhow::Ok(self.mesh.pod("cart", version)?.reading.ledger.requests(&run));
        Ok(Share { v1: count("v1")?, v2: count("v2")? })
    }

    /// Lets time pass, and notices if a process ends meanwhile.
    pub(crate) async fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            self.mesh.check()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Stops the load and waits until nothing is in flight.
    pub(crate) async fn pause(&mut self) -> anyhow::Result<()> {
        self.load.set_rate(0);
        let runs: Vec<String> = self.load.tallies().into_keys().collect();
        for run in runs {
            self.settle(&run).await?;
        }
        Ok(())
    }

    pub(crate) fn resume(&self) {
        self.load.set_rate(self.rate);
    }

    /// Edits the split's file, as `gauze split set` does.
    pub(crate) fn set_split(&self, v1: u32, v2: u32) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.split_file)?;
        let weights = [("cart-v1".to_owned(), v1), ("cart-v2".to_owned(), v2)];
        let text = edit::set_weights(&text, None, "cart", &weights)
            .map_err(|problem| anyhow::anyhow!("cannot edit {}: {problem:?}", self.split_file.display()))?;
        files::write_whole(&self.split_file, &text)
    }
}

impl Drop for Stage<'_> {
    /// Puts the split's file back as it was, however the story ends.
    fn drop(&mut self) {
        if let Err(error) = files::write_whole(&self.split_file, &self.split_before) {
            eprintln!("cannot put {} back as it was: {error:#}", self.split_file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_near_within_its_tolerance_and_not_beyond() {
        let share = Share { v1: 880, v2: 120 };
        assert_eq!((share.requests(), share.percent()), (1000, 12.0));
        assert!(share.is_near(10.0, 2.0));
        assert!(!share.is_near(10.0, 1.9));
        assert!(!Share { v1: 0, v2: 0 }.is_near(10.0, 2.0), "nothing received is no share");
    }
}
