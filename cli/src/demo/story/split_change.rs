//! Somebody edits the file, and the traffic follows within a second.

use std::time::Duration;

use serde_json::json;

use super::stage::{Seen, Stage};

pub(super) const PROMISE: &str = "the file is edited to 50/50: a second later 50 % (±4) reach v2, none fails";

const LIVE_AFTER: Duration = Duration::from_secs(1);
const REQUESTS: u64 = 2_500;
const WANTED: f64 = 50.0;
const TOLERANCE: f64 = 4.0;

/// Edits the split, lets a second pass, and counts what is sent from then on.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    stage.begin("edit");
    stage.set_split(50, 50)?;
    stage.pass(LIVE_AFTER).await?;
    let share = stage.share_of("live", REQUESTS).await?;
    Ok(Seen {
        ok: share.is_near(WANTED, TOLERANCE) && share.requests() >= REQUESTS,
        wanted: json!(WANTED),
        seen: json!(share.percent()),
    })
}
