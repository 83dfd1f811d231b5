//! Whether the objects of this replica are fresh. A watch that brings nothing may be quiet or dead, so
//! each replica renews a Lease of its own and must see it return by watch.
//!
//! One that lags asks the others. If one of them is fresh, the fault is ours: proxies are better off there.
//! If none is, the API server is away, and to go on with what is known is the best that anybody can do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::Api;
use kube::api::{PostParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::lease::renewed;
use super::peers::Peers;
use super::{Cluster, MANAGER};
use crate::mode::Shared;
use crate::readiness::Unready;

/// How often the Lease is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// A renewal that was not seen for so long is late.
const LATE: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How often freshness is judged.
const JUDGE: Duration = Duration::from_millis(500);
/// How often watches are opened anew while renewals are late.
const RECONNECT: Duration = Duration::from_secs(10);
/// Renewals that are remembered until they are seen: far more than come in time.
const WRITTEN_MAX: usize = 64;
/// What is written into the Lease as its life: nobody takes it over, a reader only learns when it is stale.
const LIFE: Duration = Duration::from_secs(10);
/// Marks the Leases of replicas.
const LABEL: (&str, &str) = ("app.kubernetes.io/component", "control-plane-replica");

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fresh,
    /// Others are fresh: proxies go there.
    Lagging,
    /// Nobody is fresh: go on.
    Away,
}

fn judge(lag: Duration, is_a_peer_fresh: bool) -> Verdict {
    match (lag < LATE, is_a_peer_fresh) {
        (true, _) => Verdict::Fresh,
        (false, true) => Verdict::Lagging,
        (false, false) => Verdict::Away,
    }
}

/// Which renewals were written when, and how old what we see is.
#[derive(Debug)]
struct Renewals {
    /// Not seen yet, the oldest first.
    written: VecDeque<(MicroTime, Instant)>,
    /// When the youngest that was seen was written.
    seen: Instant,
    /// Why the last one could not be written.
    refused: Option<String>,
}

impl Renewals {
    fn new(now: Instant) -> Renewals {
        Renewals { written: VecDeque::new(), seen: now, refused: None }
    }

    fn write(&mut self, stamp: MicroTime, now: Instant) {
        self.written.push_back((stamp, now));
        if self.written.len() > WRITTEN_MAX {
            self.written.pop_front();
        }
    }

    fn see(&mut self, stamp: &MicroTime) {
        let Some(position) = self.written.iter().position(|(written, _)| written == stamp) else { return };
        if let Some((_, at)) = self.written.drain(..=position).next_back() {
            self.seen = at;
        }
    }

    fn lag(&self, now: Instant) -> Duration {
        now.duration_since(self.seen)
    }
}

/// Keeps the Lease of this replica and judges by it, until the process ends.
#[derive(Clone)]
pub(crate) struct Freshness {
    cluster: Cluster,
    shared: Shared,
    peers: Peers,
    leases: Api<Lease>,
    renewals: Arc<Mutex<Renewals>>,
    fresh: watch::Sender<bool>,
}

impl Freshness {
    pub(crate) fn new(cluster: Cluster, shared: Shared, peers: Peers) -> Freshness {
        Freshness {
            leases: Api::namespaced(cluster.client.clone(), &cluster.namespace),
            cluster,
            shared,
            peers,
            renewals: Arc::new(Mutex::new(Renewals::new(Instant::now()))),
            fresh: watch::Sender::new(true),
        }
    }

    /// What this replica answers when another asks.
    pub(crate) fn answer(&self) -> watch::Receiver<bool> {
        self.fresh.subscribe()
    }

    pub(crate) async fn keep(self) {
        tokio::join!(self.renew(), self.watch(), self.act());
    }

    fn with<R>(&self, what: impl FnOnce(&mut Renewals) -> R) -> R {
        what(&mut self.renewals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn renew(&self) {
        let mut former = None;
        loop {
            match timeout(CALL_TIMEOUT, self.renew_once(former.take())).await {
                Ok(Ok(written)) => {
                    self.with(|renewals| renewals.refused = None);
                    former = Some(written);
                }
                Ok(Err(error)) => self.with(|renewals| renewals.refused = Some(error.to_string())),
                Err(_) => self.with(|renewals| renewals.refused = Some("no answer in time".to_owned())),
            }
            sleep(RENEW).await;
        }
    }

    /// Renews the version that we wrote, or else what is there.
    async fn renew_once(&self, former: Option<Lease>) -> kube::Result<Lease> {
        let former = match former {
            Some(former) => Some(former),
            None => self.leases.get_opt(&self.cluster.pod).await?,
        };
        let exists = former.is_some();
        let mut lease = renewed(former, &self.cluster.pod, &self.cluster.pod, LIFE);
        lease.metadata.labels = Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into());
        lease.metadata.owner_references = self.owner().map(|owner| vec![owner]);
        let stamp = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if let Some(stamp) = stamp {
            self.with(|renewals| renewals.write(stamp, Instant::now()));
        }
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match exists {
            true => self.leases.replace(&self.cluster.pod, &parameters, &lease).await,
            false => self.leases.create(&parameters, &lease).await,
        }
    }

    /// Our own pod: the Lease goes when it does.
    fn owner(&self) -> Option<OwnerReference> {
        let world = self.shared.push.world();
        let pod = world.pod(&self.cluster.namespace, &self.cluster.pod)?;
        Some(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.cluster.pod.clone(),
            uid: pod.metadata.uid.clone()?,
            ..OwnerReference::default()
        })
    }

    /// Sees renewals return, over a watch like those of the objects.
    async fn watch(&self) {
        let mut reconnect = self.cluster.reconnects();
        loop {
            let parameters = WatchParams::default().fields(&format!("metadata.name={}", self.cluster.pod));
            // From any place: only what is written from now on counts.
            let opened = timeout(CALL_TIMEOUT, self.leases.watch(&parameters, "0")).await;
            if let Ok(Ok(events)) = opened {
                reconnect.mark_unchanged();
                tokio::select! {
                    () = self.see(events) => {}
                    _ = reconnect.changed() => {}
                }
            }
            sleep(RENEW / 4).await;
        }
    }

    /// Takes note of each renewal that comes, until the watch ends.
    async fn see(&self, events: impl Stream<Item = kube::Result<WatchEvent<Lease>>>) {
        pin_mut!(events);
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Added(lease) | WatchEvent::Modified(lease) = event
                && let Some(stamp) = lease.spec.and_then(|spec| spec.renew_time)
            {
                self.with(|renewals| renewals.see(&stamp));
            }
        }
    }

    /// Judges, and does what follows.
    async fn act(&self) {
        let mut former = Verdict::Fresh;
        let mut reconnected = Instant::now();
        loop {
            sleep(JUDGE).await;
            let now = Instant::now();
            let lag = self.with(|renewals| renewals.lag(now));
            let late = lag >= LATE;
            self.fresh.send_replace(!late);
            let verdict = judge(lag, late && self.peers.is_one_fresh(&self.shared.push.world()).await);
            self.tell(verdict, former, lag);
            let is_back = former != Verdict::Fresh && verdict == Verdict::Fresh;
            if is_back || (late && reconnected.elapsed() > RECONNECT) {
                // A connection may be dead without knowing it; one that is not loses nothing.
                reconnected = Instant::now();
                self.cluster.reconnect();
            }
            former = verdict;
        }
    }

    fn tell(&self, verdict: Verdict, former: Verdict, lag: Duration) {
        let metrics = &self.shared.metrics;
        metrics.api_server_lag.set(lag.as_secs_f64());
        metrics.api_server_away.set((verdict == Verdict::Away).into());
        self.shared.readiness.set(Unready::Lagging, verdict == Verdict::Lagging);
        if verdict == former {
            return;
        }
        // Renewals that are written and do not come back have no reason: the watch is dead.
        let why = self.with(|renewals| renewals.refused.clone());
        match verdict {
            Verdict::Fresh => info!("the objects of this replica are fresh again"),
            Verdict::Lagging => {
                warn!(
                    ?lag,
                    why, "the objects of this replica are old, and another's are not: proxies go there"
                );
            }
            Verdict::Away => warn!(?lag, why, "the API server is away: going on with what is known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_lagging_replica_goes_only_where_another_is_fresh() {
        let seconds = Duration::from_secs;
        for (what, lag, is_a_peer_fresh, expected) in [
            ("in time", seconds(2), false, Verdict::Fresh),
            ("in time, whatever others say", seconds(4), true, Verdict::Fresh),
            ("late, and another is not", seconds(5), true, Verdict::Lagging),
            ("late like all others", seconds(60), false, Verdict::Away),
        ] {
            assert_eq!(judge(lag, is_a_peer_fresh), expected, "{what}");
        }
    }

    #[test]
    fn the_lag_is_the_age_of_the_youngest_renewal_that_came_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let stamp = |second| MicroTime(Timestamp::from_second(second).unwrap());
        let mut renewals = Renewals::new(start);
        for second in [1, 2, 3] {
            renewals.write(stamp(second), at(second as u64));
        }
        assert_eq!(renewals.lag(at(4)), Duration::from_secs(4), "none was seen");
        renewals.see(&stamp(2));
        assert_eq!(renewals.lag(at(4)), Duration::from_secs(2));
        renewals.see(&stamp(1));
        assert_eq!(renewals.lag(at(4)), Duration::from_secs(2), "an older one says nothing");
        renewals.see(&stamp(99));
        assert_eq!(renewals.lag(at(4)), Duration::from_secs(2), "nor does one that we did not write");
        renewals.see(&stamp(3));
        assert_eq!(renewals.lag(at(4)), Duration::from_secs(1));
    }
}
