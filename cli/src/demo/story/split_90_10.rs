//! A split of 90 to 10 sends one request in ten to the new version.

use serde_json::json;

use super::stage::{Seen, Stage};

pub(super) const PROMISE: &str = "of 5,000 requests 10 % (±2) reach cart v2, as the TrafficSplit says";

const REQUESTS: u64 = 5_000;
const WANTED: f64 = 10.0;
const TOLERANCE: f64 = 2.0;

/// Sends requests and reads the ledgers of both versions.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    let share = stage.share_of("split", REQUESTS).await?;
    Ok(Seen {
        ok: share.is_near(WANTED, TOLERANCE) && share.requests() >= REQUESTS,
        wanted: json!(WANTED),
        seen: json!(share.percent()),
    })
}
