//! Certificates that live ten seconds change several times under load.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::stage::{Seen, Stage};

pub(super) const PROMISE: &str = "certificates live 10 s and change at least three times: nothing fails";

/// The life of certificates before the rotation: longer than any outage.
pub(crate) const LONG_LIFE: Duration = Duration::from_secs(24 * 3600);
const SHORT_LIFE: Duration = Duration::from_secs(10);
const ROTATIONS: u64 = 3;
/// They change at half of their life; this is slow.
const ROTATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts control plane and sidecars anew with short lives, and loads them until all have renewed often enough.
pub(super) async fn step(stage: &mut Stage<'_>, at_least: Duration) -> anyhow::Result<Seen> {
    stage.pause().await?;
    stage.mesh.kill_control_plane().await?;
    stage.mesh.start_control_plane(SHORT_LIFE).await?;
    stage.mesh.restart_sidecars().await?;
    let before = renewals(stage).await?;
    let run = stage.begin("rotation");
    stage.resume();
    let begin = Instant::now();
    let mut rotations = 0;
    while rotations < ROTATIONS || begin.elapsed() < at_least {
        anyhow::ensure!(
            begin.elapsed() < at_least + ROTATION_TIMEOUT,
            "{rotations} of {ROTATIONS} rotations in {} s",
            begin.elapsed().as_secs()
        );
        stage.pass(Duration::from_millis(500)).await?;
        let now = renewals(stage).await?;
        rotations =
            now.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before)).min().unwrap_or(0);
    }
    stage.settle(&run).await?;
    Ok(Seen {
        ok: true,
        wanted: json!({ "failed": 0, "rotations": ROTATIONS }),
        seen: json!({ "failed": stage.failed(), "rotations": rotations }),
    })
}

/// How often each sidecar got a certificate so far.
async fn renewals(stage: &mut Stage<'_>) -> anyhow::Result<Vec<u64>> {
    stage.mesh.read().await?;
    let count = |counters: &crate::metrics::Counters| {
        counters.totals("gauze_certificate_renewals_total").map(|sample| sample.value as u64).sum()
    };
    Ok(stage.mesh.readings().map(|reading| count(&reading.counters)).collect())
}
