//! Which endpoint of a cluster carries the next request: the live loads, put before `model::balance`.
//! Loads are counted for the whole process; how fast an endpoint answers is measured by each worker
//! for itself. Nothing here is locked or allocated for a pick, as long as no endpoint is ejected or was tried.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gauze_model::Code;
use gauze_model::balance::{Ewma, Load, believe, cost_of_failure, pick};
use gauze_model::cluster::Balance;
use gauze_model::outcome::Outcome;
use gauze_model::outlier::{Change, Fault, fault};

use crate::refusal::Refusal;
use crate::target::{ClusterTarget, EndpointLive, EndpointTarget, Terms};
use crate::worker::Worker;

/// What one worker measured, by the endpoints' slots.
#[derive(Default)]
pub(crate) struct Latencies {
    measured: RefCell<Vec<Option<Measured>>>,
}

/// How fast an endpoint answers; of an earlier endpoint in the same slot if the id differs.
#[derive(Clone, Copy)]
struct Measured {
    id: u64,
    ewma: Ewma,
}

/// A request in flight to an endpoint; counts there until it drops.
pub(crate) struct InFlight {
    endpoint: Arc<EndpointLive>,
    _probe: Option<Probe>,
}

/// The one request that decides whether an ejected endpoint comes back; if nothing comes of it, another does.
struct Probe {
    terms: Arc<Terms>,
    endpoint: Arc<EndpointLive>,
    since: Instant,
}

/// The endpoints that a request was already sent to.
#[derive(Default)]
pub(crate) struct Tried {
    ids: Vec<u64>,
}

impl Tried {
    /// Notes an endpoint, so that the next try takes another if there is one.
    pub(crate) fn add(&mut self, endpoint: &EndpointTarget) {
        self.ids.push(endpoint.live.id);
    }

    /// How many tries there were.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }
}

/// Chooses an endpoint and counts one request there.
///
/// None that is ejected or in `tried`, if there is another, and not the one that was tried last; the request probes an ejected one whose time
/// is over. What follows begins after this: by the time of its beginning a probe is told from older requests.
///
/// # Errors
/// The cluster does not exist, or has no endpoint.
pub(crate) fn choose(
    worker: &Worker,
    cluster: &ClusterTarget,
    tried: &Tried,
) -> Result<(Arc<EndpointTarget>, InFlight), Refusal> {
    if !cluster.known {
        return Err(Refusal::new(Code::CLUSTER_UNKNOWN, cluster.name.to_string()));
    }
    let now = Instant::now();
    if let Some(chosen) = choose_probe(cluster, tried, now) {
        return Ok(chosen);
    }
    let endpoint = choose_position(worker, cluster, tried, now).and_then(|at| cluster.endpoints.get(at));
    let endpoint = endpoint.ok_or_else(|| Refusal::new(Code::NO_ENDPOINT, cluster.name.to_string()))?;
    Ok((Arc::clone(endpoint), InFlight::count(endpoint, None)))
}

fn choose_probe(
    cluster: &ClusterTarget,
    tried: &Tried,
    now: Instant,
) -> Option<(Arc<EndpointTarget>, InFlight)> {
    let outliers = &cluster.terms.live.outliers;
    if outliers.none_ejected() {
        return None;
    }
    let id = outliers.probe(cluster.outlier.as_ref()?, now, |id| !tried.ids.contains(&id))?;
    // A view that is about to go may not have it: then another request probes.
    let endpoint = cluster.endpoints.iter().find(|endpoint| endpoint.live.id == id)?;
    let (terms, live) = (Arc::clone(&cluster.terms), Arc::clone(&endpoint.live));
    let probe = Probe { terms, endpoint: live, since: now };
    Some((Arc::clone(endpoint), InFlight::count(endpoint, Some(probe))))
}

fn choose_position(worker: &Worker, cluster: &ClusterTarget, tried: &Tried, now: Instant) -> Option<usize> {
    let (draws, turn) = ([worker.draw(), worker.draw()], worker.turn());
    let load = |at: usize| worker.latencies.load(&cluster.endpoints[at].live, &cluster.balance, now);
    if tried.ids.is_empty() && cluster.terms.live.outliers.none_ejected() {
        return pick(&cluster.balance, &cluster.shares, |_| true, load, draws, turn);
    }
    let is_new = |at: usize| !tried.ids.contains(&cluster.endpoints[at].live.id);
    let is_in = |at: usize| !cluster.endpoints[at].live.is_out.load(Ordering::Relaxed);
    // Where all were tried, the one that failed just now is the least likely to be well again.
    let is_other = |at: usize| tried.ids.last() != Some(&cluster.endpoints[at].live.id);
    let usable: [&dyn Fn(usize) -> bool; 5] =
        [&|at| is_new(at) && is_in(at), &is_new, &|at| is_other(at) && is_in(at), &is_in, &|_| true];
    usable.iter().find_map(|usable| pick(&cluster.balance, &cluster.shares, usable, load, draws, turn))
}

/// Notes what came of a try that began at `began`, once it is known: when the response begins, or when it
/// is clear that none will. `None`: nothing that would say anything of the endpoint.
pub(crate) fn observe(
    worker: &Worker,
    endpoint: &EndpointTarget,
    cluster: &ClusterTarget,
    outcome: Option<Outcome>,
    began: Instant,
) {
    let Some(outcome) = outcome else { return };
    let (fault, now) = (fault(outcome), Instant::now());
    match fault {
        None | Some(Fault::ServerError) => {
            worker.latencies.observe(&endpoint.live, &cluster.balance, now - began, now);
        }
        Some(Fault::Gateway | Fault::LocalOrigin) => {
            worker.latencies.observe_failure(&endpoint.live, &cluster.balance, began, now);
        }
    }
    judge(worker, endpoint, cluster, fault, [began, now]);
}

/// Notes whether an opaque connection, whose dialling began at `began`, came about.
pub(crate) fn observe_connect(
    worker: &Worker,
    endpoint: &EndpointTarget,
    cluster: &ClusterTarget,
    is_open: bool,
    began: Instant,
) {
    let now = Instant::now();
    if !is_open {
        worker.latencies.observe_failure(&endpoint.live, &cluster.balance, began, now);
    }
    judge(worker, endpoint, cluster, (!is_open).then_some(Fault::LocalOrigin), [began, now]);
}

/// Tells the outlier detector what came of a try, and the world what follows. A success of an endpoint
/// against which nothing speaks costs one read.
fn judge(
    worker: &Worker,
    endpoint: &EndpointTarget,
    cluster: &ClusterTarget,
    fault: Option<Fault>,
    times: [Instant; 2],
) {
    let Some(settings) = &cluster.outlier else { return };
    let counts = fault.is_some_and(|fault| settings.counts(fault));
    if !counts && !endpoint.live.is_suspect.load(Ordering::Relaxed) {
        return;
    }
    let outliers = &cluster.terms.live.outliers;
    let Some(change) = outliers.observe(settings, endpoint, fault, times, worker.draw()) else { return };
    let (cluster, address, pod) = (&cluster.name, &endpoint.peer.address, &endpoint.workload.pod);
    match change {
        Change::Ejected { reason, lasts, times } => {
            endpoint.metrics.ejection(reason);
            let (reason, seconds) = (reason.label(), lasts.as_secs());
            tracing::warn!(%cluster, endpoint = %address, pod, reason, seconds, times, "an endpoint is ejected");
        }
        Change::Returned { reason } => {
            let reason = reason.label();
            tracing::info!(%cluster, endpoint = %address, pod, reason, "an ejected endpoint is back");
        }
    }
}

impl Latencies {
    fn load(&self, endpoint: &EndpointLive, balance: &Balance, now: Instant) -> Load {
        let in_flight = endpoint.in_flight.load(Ordering::Relaxed);
        let Balance::PeakEwma { start, decay } = *balance else {
            return Load { in_flight, seconds: 0.0 };
        };
        Load { in_flight, seconds: believe(self.of(endpoint), in_flight, now, [start, decay]) }
    }

    fn of(&self, endpoint: &EndpointLive) -> Option<Ewma> {
        let measured = self.measured.borrow().get(endpoint.slot).copied().flatten()?;
        (measured.id == endpoint.id).then_some(measured.ewma)
    }

    /// Notes a failure; it counts as [`cost_of_failure`] says.
    fn observe_failure(&self, endpoint: &EndpointLive, balance: &Balance, began: Instant, now: Instant) {
        let Balance::PeakEwma { decay, .. } = *balance else { return };
        let believed = self.of(endpoint).map_or(0.0, |ewma| ewma.at(now, decay));
        self.observe(endpoint, balance, cost_of_failure(now - began, believed), now);
    }

    /// Notes that an endpoint took this long until its response began.
    fn observe(&self, endpoint: &EndpointLive, balance: &Balance, took: Duration, now: Instant) {
        let Balance::PeakEwma { decay, .. } = *balance else { return };
        // The first measurement takes the place of what was believed before there was one.
        let ewma = self.of(endpoint).map_or(Ewma::new(took, now), |ewma| ewma.observe(took, now, decay));
        endpoint.seconds.store(ewma.at(now, decay).to_bits(), Ordering::Relaxed);
        let mut measured = self.measured.borrow_mut();
        if measured.len() <= endpoint.slot {
            measured.resize(endpoint.slot + 1, None);
        }
        measured[endpoint.slot] = Some(Measured { id: endpoint.id, ewma });
    }
}

impl InFlight {
    fn count(endpoint: &EndpointTarget, probe: Option<Probe>) -> InFlight {
        endpoint.live.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { endpoint: Arc::clone(&endpoint.live), _probe: probe }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.terms.live.outliers.give_up_probe(&self.endpoint, self.since);
    }
}

#[cfg(test)]
mod tests;
