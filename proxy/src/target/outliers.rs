//! Who of a cluster is ejected, for all workers: the detector behind a lock that only failures, what
//! follows them and pushes take, and beside it what every request reads as atomics.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use gauze_model::outlier::{Change, Counts, Detector, Fault, OutlierDetection, Standing};

use super::{EndpointLive, EndpointTarget};

/// The outlier detector of one cluster.
#[derive(Debug)]
pub struct Outliers {
    detector: Mutex<Detector>,
    /// Endpoints that are out.
    ejected: AtomicU32,
    /// When the first of them may be probed, in nanoseconds of [`nanoseconds`]; `u64::MAX`: none is out.
    probe_due: AtomicU64,
}

/// What is known of an endpoint, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub standing: Standing,
    /// Failures in a row.
    pub counts: Counts,
    /// Ejections that are not forgiven yet.
    pub times: u32,
}

impl Default for Outliers {
    fn default() -> Outliers {
        let detector = Mutex::default();
        Outliers { detector, ejected: AtomicU32::new(0), probe_due: AtomicU64::new(u64::MAX) }
    }
}

impl Outliers {
    /// Whether all endpoints are in, as far as is known without a lock.
    pub fn none_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed) == 0
    }

    /// Says which endpoints the cluster has from now on, and how it is set.
    pub fn set_members(&self, settings: Option<&OutlierDetection>, endpoints: &[Arc<EndpointTarget>]) {
        let mut detector = self.lock();
        detector.set_members(settings, choosable(endpoints), Instant::now());
        for endpoint in endpoints {
            if publish(&detector, endpoint) == Some(Flip::In) {
                tracing::info!(endpoint = %endpoint.peer.address, pod = endpoint.workload.pod,
                    "an ejected endpoint is back: fewer endpoints are left, or detection is set otherwise");
            }
        }
        self.publish(&detector, settings);
    }

    /// Notes what came of a try that began and ended at `times`.
    pub fn observe(
        &self,
        settings: &OutlierDetection,
        endpoint: &EndpointTarget,
        fault: Option<Fault>,
        times: [Instant; 2],
        draw: u32,
    ) -> Option<Change> {
        let mut detector = self.lock();
        let change = detector.observe(settings, endpoint.live.id, fault, times, draw);
        publish(&detector, endpoint);
        if change.is_some() {
            self.publish(&detector, Some(settings));
        }
        change
    }

    /// The id of an ejected endpoint that the request which asks is to probe.
    pub fn probe(
        &self,
        settings: &OutlierDetection,
        now: Instant,
        allowed: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        if nanoseconds(now) < self.probe_due.load(Ordering::Relaxed) {
            return None;
        }
        let mut detector = self.lock();
        let probed = detector.probe(settings, now, allowed);
        self.publish(&detector, Some(settings));
        probed
    }

    /// Lets another request probe an endpoint, if nothing came of the probe that began at `since`.
    pub fn give_up_probe(&self, endpoint: &EndpointLive, since: Instant) {
        self.lock().give_up_probe(endpoint.id, since);
        self.probe_due.fetch_min(nanoseconds(since), Ordering::Relaxed);
    }

    pub fn shown(&self, endpoint: &EndpointLive) -> Shown {
        let detector = self.lock();
        let (counts, times) = detector.record(endpoint.id);
        Shown { standing: detector.standing(endpoint.id), counts, times }
    }

    fn publish(&self, detector: &Detector, settings: Option<&OutlierDetection>) {
        self.ejected.store(u32::try_from(detector.ejected()).unwrap_or(u32::MAX), Ordering::Relaxed);
        let due = settings.and_then(|settings| detector.probe_due(settings));
        self.probe_due.store(due.map_or(u64::MAX, nanoseconds), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Detector> {
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which way an endpoint went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flip {
    In,
    Out,
}

/// Makes an endpoint's standing readable without the lock.
fn publish(detector: &Detector, endpoint: &EndpointTarget) -> Option<Flip> {
    let live = &endpoint.live;
    live.is_suspect.store(detector.is_suspect(live.id), Ordering::Relaxed);
    let is_out = detector.standing(live.id) != Standing::In;
    if live.is_out.swap(is_out, Ordering::Relaxed) == is_out {
        return None;
    }
    let gauge = live.ejected.get_or_init(|| endpoint.metrics.endpoints_ejected());
    if is_out {
        gauge.inc()
    } else {
        gauge.dec()
    }
    Some(if is_out { Flip::Out } else { Flip::In })
}

/// Those that the balancing may choose at all: weight 0 counts only where all weights are.
fn choosable(endpoints: &[Arc<EndpointTarget>]) -> Vec<u64> {
    let all_zero = endpoints.iter().all(|endpoint| endpoint.weight == 0);
    let chosen = endpoints.iter().filter(|endpoint| all_zero || endpoint.weight > 0);
    chosen.map(|endpoint| endpoint.live.id).collect()
}

/// Time as a number that an atomic holds, since the first call in this process; before it, 0.
fn nanoseconds(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX - 1)
}
