//! The control plane is killed under load, comes back, and catches up.

use std::time::Duration;

use serde_json::json;

use super::rotation::LONG_LIFE;
use super::stage::{Seen, Stage};

pub(super) const PROMISE: &str =
    "the control plane is killed: nothing fails, and a change made meanwhile is live 2 s after its return";

const LIVE_AFTER: Duration = Duration::from_secs(2);
const REQUESTS: u64 = 1_500;
const WANTED: f64 = 80.0;
const TOLERANCE: f64 = 4.0;

/// Kills the control plane for `outage`, edits the split meanwhile, and counts from 2 s after its return.
pub(super) async fn step(stage: &mut Stage<'_>, outage: Duration) -> anyhow::Result<Seen> {
    stage.begin("outage");
    stage.mesh.kill_control_plane().await?;
    stage.pass(outage / 2).await?;
    stage.set_split(20, 80)?;
    stage.pass(outage / 2).await?;
    stage.mesh.start_control_plane(LONG_LIFE).await?;
    stage.pass(LIVE_AFTER).await?;
    let share = stage.share_of("returned", REQUESTS).await?;
    Ok(Seen {
        ok: share.is_near(WANTED, TOLERANCE),
        wanted: json!({ "failed": 0, "v2_percent": WANTED, "outage_seconds": outage.as_secs() }),
        seen: json!({ "failed": stage.failed(), "v2_percent": share.percent(), "outage_seconds": outage.as_secs() }),
    })
}
