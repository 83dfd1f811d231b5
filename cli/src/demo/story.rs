//! `gauze demo --story`: the promises, one after another. Each step acts on the real files and processes,
//! waits for its effect, and believes only what the upstreams counted.

mod bad_object; // a broken object costs only itself
mod control_plane_outage; // traffic does not need the control plane
mod denial; // who may not call is refused, and told why
mod ejection; // an endpoint that keeps failing is left alone
mod faulty_v2; // an endpoint that fails, for some steps
mod mtls; // every edge is encrypted, both sides known
mod retry; // what an endpoint refuses, another one does
mod rotation; // certificates change under load
mod split_90_10; // a split holds
mod split_change; // a file is edited, the traffic follows
mod stage; // what every step works with
mod written; // a file that does not outlive its step

use std::time::Duration;

use serde_json::json;

use super::load::Load;
use super::mesh::Mesh;
use super::screen::Screen;
use super::summary::Step;
use crate::terminal;
use stage::{Seen, Stage};

/// Every step, in order.
pub(crate) const STEPS: [&str; 9] = [
    "mtls",
    "split_90_10",
    "split_change",
    "bad_object",
    "retry",
    "ejection",
    "denial",
    "control_plane_outage",
    "rotation",
];

/// Files that a story leaves in the directory only when it is killed.
pub(crate) const FILES: [&str; 5] =
    [bad_object::FILE, faulty_v2::FILES[0], faulty_v2::FILES[1], faulty_v2::FILES[2], denial::FILE];

/// What is told, and how long the two long steps last.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Only these steps; none named: all.
    pub(crate) steps: Vec<String>,
    /// The user asked for no rate: one is chosen that this machine carries.
    pub(crate) rate_is_free: bool,
    /// How long the control plane is away.
    pub(crate) outage: Duration,
    /// How long certificates rotate at least.
    pub(crate) rotation: Duration,
}

/// The life of certificates before the rotation: longer than any outage.
pub(crate) use rotation::LONG_LIFE;

/// Tells the story; a step that fails does not keep the others from being told.
pub(crate) async fn tell(
    mesh: &mut Mesh,
    load: &Load,
    screen: &mut Screen,
    plan: &Plan,
) -> anyhow::Result<Vec<Step>> {
    let mut stage = Stage::new(mesh, load, plan.rate_is_free)?;
    stage.set_split(90, 10)?;
    if plan.rate_is_free {
        go_on(stage.warm_up().await, screen);
    }
    let mut steps = Vec::new();
    for name in STEPS.into_iter().filter(|name| plan.is_told(name)) {
        screen.say(&format!("  {name:<22}{}", promise(name)));
        stage.open(name);
        let seen = act(name, &mut stage, plan).await;
        let step = close(&mut stage, name, seen);
        screen.say(&verdict(&step));
        steps.push(step);
        go_on(stage.rest().await, screen);
    }
    Ok(steps)
}

/// What went wrong between two steps is said, and shows in the next: every step has its line in the end.
fn go_on(outcome: anyhow::Result<()>, screen: &mut Screen) {
    if let Err(error) = outcome {
        screen.say(&format!("  {error:#}"));
    }
}

impl Plan {
    fn is_told(&self, step: &str) -> bool {
        self.steps.is_empty() || self.steps.iter().any(|told| told == step)
    }
}

/// What a step promises.
fn promise(step: &str) -> &'static str {
    match step {
        "mtls" => mtls::PROMISE,
        "split_90_10" => split_90_10::PROMISE,
        "split_change" => split_change::PROMISE,
        "bad_object" => bad_object::PROMISE,
        "retry" => retry::PROMISE,
        "ejection" => ejection::PROMISE,
        "denial" => denial::PROMISE,
        "control_plane_outage" => control_plane_outage::PROMISE,
        _ => rotation::PROMISE,
    }
}

async fn act(step: &str, stage: &mut Stage<'_>, plan: &Plan) -> anyhow::Result<Seen> {
    match step {
        "mtls" => mtls::step(stage).await,
        "split_90_10" => split_90_10::step(stage).await,
        "split_change" => split_change::step(stage).await,
        "bad_object" => bad_object::step(stage).await,
        "retry" => retry::step(stage).await,
        "ejection" => ejection::step(stage).await,
        "denial" => denial::step(stage).await,
        "control_plane_outage" => control_plane_outage::step(stage, plan.outage).await,
        _ => rotation::step(stage, plan.rotation).await,
    }
}

/// Makes a step of what was seen: it is ok if all that was wanted was seen, and nothing failed.
fn close(stage: &mut Stage<'_>, name: &'static str, seen: anyhow::Result<Seen>) -> Step {
    let tally = stage.close();
    let (requests, failed) = (tally.sent, tally.failed);
    if failed > 0 {
        eprintln!("  failures: {}", tally.worst());
    }
    match seen {
        Ok(seen) => {
            Step { name, ok: seen.ok && failed == 0, wanted: seen.wanted, seen: seen.seen, requests, failed }
        }
        Err(error) => Step {
            name,
            ok: false,
            wanted: json!("no error"),
            seen: json!(format!("{error:#}")),
            requests,
            failed,
        },
    }
}

fn verdict(step: &Step) -> String {
    let style = terminal::errors();
    let word = if step.ok { style.green("ok") } else { style.red("failed") };
    let failures = if step.failed > 0 { format!(", {} failed", step.failed) } else { String::new() };
    format!("  {word:<22}wanted {}, seen {} ({} requests{failures})", step.wanted, step.seen, step.requests)
}
