//! The Kubernetes API server as a source: a watch for each kind of object. Kinds that a cluster may lack
//! (Gateway API, TrafficSplit, our own) are watched as soon and as long as it serves them.
//!
//! While the API server is away everything stays as it was last read, and that is a problem to be seen.

mod known; // what is known of the cluster
mod read; // an object, and no more of it than is used
mod standing; // the statuses that stand there
mod watched; // what is watched, and where it is served
mod watching; // one watch

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Update;
use crate::metrics::Metrics;
use known::Known;
pub use standing::{Standing, Stands, Statuses};
use watched::Watched;
use watching::{Said, Watch};

/// Updates that wait for their reader.
const UPDATES: usize = 16;
/// What watches say and nobody has taken up yet; most are objects of which thousands may change at once.
const SAID: usize = 4_096;
/// How often it is looked whether a watch fails for too long.
const LOOK: Duration = Duration::from_secs(1);

/// Reads all objects, now and after every change; ends when the receiver is dropped.
/// Whenever `reconnect` changes, all connections are made anew. What stands in statuses goes to `standing`.
pub fn watch(
    client: &Client,
    reconnect: &watch::Receiver<u64>,
    standing: Standing,
    metrics: &Arc<Metrics>,
) -> mpsc::Receiver<Update> {
    let (updates, receiver) = mpsc::channel(UPDATES);
    let (said, heard) = mpsc::channel(SAID);
    let mut watches = JoinSet::new();
    for watched in Watched::ALL {
        let watch = Watch {
            client: client.clone(),
            watched,
            said: said.clone(),
            reconnect: reconnect.clone(),
            metrics: Arc::clone(metrics),
        };
        watches.spawn(watch.run());
    }
    let metrics = Arc::clone(metrics);
    tokio::spawn(async move {
        follow(heard, updates, &standing, &metrics).await;
        watches.shutdown().await;
    });
    receiver
}

/// Makes updates of what watches say: of all that was said since the last one was taken.
async fn follow(
    mut heard: mpsc::Receiver<(Watched, Said)>,
    updates: mpsc::Sender<Update>,
    standing: &Standing,
    metrics: &Metrics,
) {
    let mut known = Known::nothing_of(&Watched::ALL);
    let mut told = Vec::new();
    loop {
        let mut said = Vec::new();
        let heard = timeout(LOOK, heard.recv_many(&mut said, SAID)).await;
        if heard == Ok(0) {
            return;
        }
        standing.hear(&mut said);
        let update = known.hear(said, Instant::now());
        count(&known, metrics);
        if update.events.is_empty() && update.problems == told {
            if updates.is_closed() {
                return;
            }
            continue;
        }
        told.clone_from(&update.problems);
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

fn count(known: &Known, metrics: &Metrics) {
    metrics.watches_failing.set(i64::try_from(known.failing()).unwrap_or(i64::MAX));
    for (watched, count) in known.counts() {
        let gauge = metrics.watched_objects.with_label_values(&[&watched.to_string()]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
