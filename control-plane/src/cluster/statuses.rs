//! The statuses of users' objects, written into the cluster by the leader: what [`status::conditions`] says of them,
//! over the proxies of all replicas. What stands there already is not written, by no leader.

mod events; // what a person must see
mod plan; // what to write, and when
mod write; // one status

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::runtime::events::{Recorder, Reporter};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until};

use super::Cluster;
use super::replicas::Replicas;
use crate::metrics::Metrics;
use crate::push::Push;
use crate::source::kubernetes::Standing;
use crate::status::CONTROLLER_NAME;
use plan::{Order, Plan};
use write::{Failed, Written};

/// How long changes are gathered before it is looked what they mean: acknowledgements come in swarms.
const GATHER: Duration = Duration::from_millis(100);
/// After statuses were computed, the next computation waits for so many times as long …
const LOAD: u32 = 10;
/// … but no longer.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Writes going on at once.
const WRITES_MAX: usize = 8;

/// Writes statuses for as long as this replica leads.
pub(crate) struct Statuses {
    cluster: Cluster,
    push: Arc<Push>,
    replicas: Replicas,
    standing: Standing,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Statuses {
    pub(crate) fn new(
        cluster: Cluster,
        push: Arc<Push>,
        replicas: Replicas,
        standing: Standing,
        metrics: Arc<Metrics>,
    ) -> Statuses {
        let reporter =
            Reporter { controller: CONTROLLER_NAME.to_owned(), instance: Some(cluster.pod.clone()) };
        let recorder = Recorder::new(cluster.client.clone(), reporter);
        Statuses { cluster, push, replicas, standing, recorder, metrics }
    }

    /// Writes whenever this replica leads, for ever.
    pub(crate) async fn keep(self) {
        let mut leads = self.cluster.leader();
        let mut until = self.cluster.leader();
        while leads.wait_for(|leads| *leads).await.is_ok() {
            tokio::select! {
                () = self.lead() => {}
                _ = until.wait_for(|leads| !leads) => self.metrics.statuses_waiting.set(0),
            }
        }
    }

    /// Writes until it is dropped.
    async fn lead(&self) {
        // Who has not asked the others yet knows too few proxies.
        self.replicas.settled().await;
        let (mut world, mut standing) = (self.push.changes(), self.standing.changes());
        let (mut own, mut others) = (self.push.holdings(), self.replicas.changes());
        let mut plan = Plan::beginning(Instant::now());
        // When everything is to be computed, and not before when.
        let (mut stale, mut earliest) = (true, Instant::now());
        loop {
            if stale && Instant::now() >= earliest {
                let took = Instant::now();
                plan = self.compute(plan).await;
                (stale, earliest) = (false, Instant::now() + (took.elapsed() * LOAD).min(PAUSE_MAX));
            }
            plan.look(self.standing.take_changed(), &self.standing.statuses(), Instant::now());
            let orders = plan.take_due(Instant::now());
            self.metrics
                .statuses_waiting
                .set(i64::try_from(plan.waiting() + orders.len()).unwrap_or(i64::MAX));
            self.write_all(&mut plan, orders).await;
            let next = plan.next(Instant::now()).into_iter().chain(stale.then_some(earliest)).min();
            tokio::select! {
                _ = world.changed() => stale = true,
                _ = own.changed() => stale = true,
                _ = others.changed() => stale = true,
                _ = standing.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {}
            }
            sleep(GATHER).await;
        }
    }

    /// Computes what should stand there, beside the work of others: it may be much.
    async fn compute(&self, mut plan: Plan) -> Plan {
        let timer = self.metrics.statuses_duration.start_timer();
        let (push, replicas) = (Arc::clone(&self.push), self.replicas.clone());
        let statuses = self.standing.statuses();
        let computed = spawn_blocking(move || {
            let heard = replicas.heard();
            plan.want(&push.world(), &push.problems(), &heard, &statuses, Instant::now());
            plan
        });
        // A panic there has been told; what stood in the plan is made anew.
        let plan = computed.await.unwrap_or_else(|_| Plan::beginning(Instant::now()));
        timer.observe_duration();
        plan
    }

    async fn write_all(&self, plan: &mut Plan, orders: Vec<Order>) {
        let writes = orders.into_iter().map(|order| async {
            let written = self.write(&order).await;
            (order, written)
        });
        let mut writes = stream::iter(writes).buffer_unordered(WRITES_MAX);
        while let Some((order, written)) = writes.next().await {
            plan.note(order, written, Instant::now());
        }
    }

    /// Writes one status, and tells a person of what is to be told.
    async fn write(&self, order: &Order) -> Result<(), Failed> {
        // The kind cannot be written: it is gone, or knows no statuses.
        let Some(plural) = self.standing.plural(order.key.kind) else { return Err(Failed::Gone) };
        let kind = order.key.kind.as_str();
        let written = write::write(&self.cluster.client, plural, order).await;
        match &written {
            Ok(_) => self.metrics.status_writes.with_label_values(&[kind]).inc(),
            Err(Failed::Conflict) => self.metrics.status_conflicts.with_label_values(&[kind]).inc(),
            Err(Failed::Gone) => {}
            Err(Failed::Refused(why)) => {
                self.metrics.status_write_failures.with_label_values(&[kind]).inc();
                order.complain(why);
            }
        }
        let Written { resource_version } = written?;
        for event in &order.events {
            let published = events::publish(&self.recorder, event, order, &resource_version).await;
            let result = if published { "written" } else { "failed" };
            self.metrics.events.with_label_values(&[result]).inc();
        }
        Ok(())
    }
}
