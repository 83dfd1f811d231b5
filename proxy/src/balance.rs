//! Which endpoint of a cluster carries the next request: the live loads, put before `model::balance`.
//! Loads are counted for the whole process; how fast an endpoint answers is measured by each worker
//! for itself. Nothing here is locked or allocated for a pick.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gauze_model::Code;
use gauze_model::balance::{Ewma, Load, believe, pick};
use gauze_model::cluster::{Balance, CONNECT_TIMEOUT};
use gauze_model::outcome::Outcome;
use http::Response;

use crate::headers::GAUZE_NOT_DELIVERED;
use crate::refusal::Refusal;
use crate::target::{ClusterTarget, EndpointLive, EndpointTarget};
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
pub(crate) struct InFlight(Arc<EndpointLive>);

/// The endpoints that a request was already sent to.
#[derive(Default)]
pub(crate) struct Tried {
    #[allow(dead_code)]
    ids: Vec<u64>,
}

impl Tried {
    #[allow(dead_code)] // until there are retries
    /// Notes an endpoint, so that the next try takes another if there is one.
    pub(crate) fn add(&mut self, endpoint: &EndpointTarget) {
        self.ids.push(endpoint.live.id);
    }
}

/// Chooses an endpoint and counts one request there: one that was not tried yet, if there is any.
///
/// # Errors
/// The cluster does not exist, or has no endpoint.
pub(crate) fn choose(
    worker: &Worker,
    cluster: &ClusterTarget,
    _avoid: &Tried,
) -> Result<(Arc<EndpointTarget>, InFlight), Refusal> {
    if !cluster.known {
        return Err(Refusal::new(Code::CLUSTER_UNKNOWN, cluster.name.to_string()));
    }
    let (now, draws) = (Instant::now(), [worker.draw(), worker.draw()]);
    let load = |at: usize| worker.latencies.load(&cluster.endpoints[at].live, &cluster.balance, now);
    let chosen = pick(&cluster.balance, &cluster.shares, |_| true, load, draws, worker.turn());
    let endpoint = chosen.and_then(|at| cluster.endpoints.get(at));
    let endpoint = endpoint.ok_or_else(|| Refusal::new(Code::NO_ENDPOINT, cluster.name.to_string()))?;
    endpoint.live.in_flight.fetch_add(1, Ordering::Relaxed);
    Ok((Arc::clone(endpoint), InFlight(Arc::clone(&endpoint.live))))
}

/// Notes what came of a try that began at `began`, once it is known: when the response begins, or when it
/// is clear that none will. `None`: nothing that would say anything of the endpoint.
#[allow(dead_code)] // until http.rs knows the outcome of a try
pub(crate) fn observe(
    worker: &Worker,
    endpoint: &EndpointTarget,
    cluster: &ClusterTarget,
    outcome: Option<Outcome>,
    began: Instant,
) {
    let Some(outcome) = outcome else { return };
    let now = Instant::now();
    match outcome {
        Outcome::Responded { .. } => {
            worker.latencies.observe(&endpoint.live, &cluster.balance, now - began, now);
        }
        Outcome::NotDelivered(_) | Outcome::Reset | Outcome::Timeout => {
            worker.latencies.observe_failure(&endpoint.live, &cluster.balance, began, now);
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

    /// Notes what came of a try that began at `began`.
    pub(crate) fn observe_try<T>(
        &self,
        endpoint: &EndpointLive,
        balance: &Balance,
        tried: &Result<(Response<T>, impl Sized), Refusal>,
        began: Instant,
    ) {
        let is_failure = match tried {
            Ok((response, _)) => response.headers().contains_key(GAUZE_NOT_DELIVERED),
            Err(refusal) => refusal.code.entry().is_some_and(|entry| entry.flag.starts_with('U')),
        };
        let now = Instant::now();
        match is_failure {
            true => self.observe_failure(endpoint, balance, began, now),
            false => self.observe(endpoint, balance, now - began, now),
        }
    }

    /// Notes that the app was not reached. It counts as if it had taken the default connect timeout at
    /// least: an endpoint that fails fast must not look like the best of all.
    pub(crate) fn observe_failure(
        &self,
        endpoint: &EndpointLive,
        balance: &Balance,
        began: Instant,
        now: Instant,
    ) {
        self.observe(endpoint, balance, (now - began).max(CONNECT_TIMEOUT), now);
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

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
