//! The endpoint that keeps failing is ejected: after that it is left alone.

use std::time::Duration;

use serde_json::json;

use super::faulty_v2::{self, FaultyV2};
use super::retry;
use super::stage::{Seen, Stage};
use crate::admin::Endpoint;
use crate::demo::{events, wait};

pub(super) const PROMISE: &str =
    "the endpoint that fails is ejected: from then on nothing reaches it, none failed";

/// Ejection as it is by default: after five gateway failures in a row.
const BY_DEFAULT: &str = "{}";
const EJECTED_TIMEOUT: Duration = Duration::from_secs(20);
const REQUESTS: u64 = 500;

/// Adds the failing endpoint, waits until web's sidecar has ejected it, and counts what still reaches it.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    stage.begin("switch on");
    stage.set_split(50, 50)?;
    let faulty = FaultyV2::switch_on(stage, BY_DEFAULT).await?;
    let seen = watch(stage).await;
    stage.begin("switch off");
    faulty.switch_off(stage).await?;
    seen
}

async fn watch(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    let admin = Endpoint::Tcp(stage.mesh.pod("web", "v1")?.card.admin);
    let ejected = wait::until("the failing endpoint to be ejected", EJECTED_TIMEOUT, async || {
        let clusters = admin.get_json("/clusters").await.map_err(|error| format!("{error:#}"))?;
        let of_it = events::ejected(&clusters).into_iter().find(|ejected| ejected.pod == faulty_v2::POD);
        of_it.ok_or_else(|| format!("web's sidecar says {clusters}"))
    });
    let ejected = ejected.await?;
    let run = stage.begin("ejected");
    stage.sent(&run, REQUESTS).await?;
    stage.settle(&run).await?;
    let fate = faulty_v2::fate(stage, &run).await?;
    let (sent, failed) = (stage.load.tally(&run).sent, stage.failed());
    Ok(Seen {
        ok: failed == 0 && fate.refused == 0,
        wanted: json!({ "ejected": faulty_v2::POD, "reached_it_then": 0, "failed": 0 }),
        seen: json!({
            "ejected": ejected.pod,
            "because": ejected.reason,
            "reached_it_then": fate.refused,
            "failed": failed,
            "success_percent": retry::success(sent, failed),
        }),
    })
}
