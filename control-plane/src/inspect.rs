//! What is wrong with objects that have no status (pods, Services, slices, namespaces), counted and logged now and
//! then: whoever looks at neither `gauze get` nor `gauze check` learns of it by metric and log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::push::Push;
use crate::translate::check;

/// How long objects rest between two looks: a look goes over all of them.
const PAUSE: Duration = Duration::from_secs(10);
/// Lines that one look logs; a broken rollout has one for each pod.
const LINES_MAX: usize = 20;

/// Looks after changes, for ever.
pub(crate) async fn keep(push: Arc<Push>, metrics: Arc<Metrics>) {
    let mut changes = push.changes();
    let mut known = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        let world = push.world();
        // It must not hold up the streams.
        let Ok(problems) = tokio::task::spawn_blocking(move || check(&world)).await else { return };
        count(&problems, &metrics);
        known = tell(&problems, &known);
        sleep(PAUSE).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn count(problems: &[Problem], metrics: &Metrics) {
    let mut by_code: BTreeMap<String, i64> = BTreeMap::new();
    for problem in problems {
        *by_code.entry(problem.code.to_string()).or_default() += 1;
    }
    metrics.object_problems.reset();
    for (code, count) in by_code {
        metrics.object_problems.with_label_values(&[&code]).set(count);
    }
}

/// Tells each problem once; returns all that there are.
fn tell(problems: &[Problem], known: &BTreeSet<String>) -> BTreeSet<String> {
    let now: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
    let new = problems.iter().filter(|problem| !known.contains(&problem.to_string()));
    let more = new.clone().count().saturating_sub(LINES_MAX);
    for Problem { code, origin, message, .. } in new.take(LINES_MAX) {
        warn!(%code, %origin, "{message}");
    }
    if more > 0 {
        warn!("and {more} more problems of objects: `gauze get` shows all");
    }
    let gone = known.difference(&now).count();
    if gone > 0 {
        info!("{gone} problems of objects are gone, {} are left", now.len());
    }
    now
}

#[cfg(test)]
mod tests {
    use gauze_model::{Code, Origin};

    use super::*;

    #[test]
    fn problems_are_counted_by_code_and_those_that_are_gone_no_longer() {
        let metrics = Metrics::default();
        let problem =
            |code, name: &str| Problem::new(code, Origin { name: name.to_owned(), ..Origin::default() }, "x");
        let outside = problem(Code::OUTSIDE_MESH_NETWORKS, "a");
        let first =
            [outside.clone(), problem(Code::OUTSIDE_MESH_NETWORKS, "b"), problem(Code::ADDRESS_SHARED, "a")];
        let counts = || {
            let text = String::from_utf8(metrics.encode()).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("gauze_control_plane_object_problems{"));
            lines.filter_map(|line| line.split_once('{')).map(|(_, rest)| rest.to_owned()).collect::<Vec<_>>()
        };
        count(&first, &metrics);
        assert_eq!(counts(), ["code=\"M1008\"} 1", "code=\"M1009\"} 2"]);
        count(std::slice::from_ref(&outside), &metrics);
        assert_eq!(counts(), ["code=\"M1009\"} 1"]);
        let known = tell(&first, &BTreeSet::new());
        assert_eq!(tell(&[outside], &known).len(), 1);
    }
}
