//! What lives beside the configuration and survives it: counts of what is open and in flight, shared by
//! all workers as atomics, and the limits that they are held to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gauze_model::budget::{Budget, RetryBudget};
use gauze_model::cluster::Limits;
use gauze_model::limits::{Exceeded, InUse};
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::Outliers;

/// What is open to a dialled address.
#[derive(Debug, Default)]
pub struct OutboundLive {
    /// Connections of the app; while there are any, the address stays subscribed.
    pub connections: AtomicU32,
}

/// What a cluster's limits count, per process.
#[derive(Debug, Default)]
pub struct ClusterLive {
    pub connections: AtomicU32,
    pub pending: AtomicU32,
    pub requests: AtomicU32,
    /// How much was retried lately.
    pub budget: Budget,
    /// Told whenever a connection ends or becomes idle.
    pub freed: Notify,
    pub outliers: Outliers,
}

/// What is in flight to one endpoint. How fast it answers is measured by each worker for itself.
#[derive(Debug)]
pub struct EndpointLive {
    /// Tells endpoints apart; never used twice by one process.
    pub id: u64,
    /// Where workers keep what they measured; used again when the endpoint is gone.
    pub slot: usize,
    pub in_flight: AtomicU32,
    /// What the worker that measured last believes it to take, in seconds, as bits of an `f64`; to be shown.
    pub seconds: AtomicU64,
    /// Whether it is ejected: what the cluster's outlier detector says, to be read without its lock.
    pub is_out: AtomicBool,
    /// Whether a success would change anything for the outlier detector.
    pub is_suspect: AtomicBool,
    /// Where it counts while it is ejected.
    pub ejected: OnceLock<IntGauge>,
}

/// On what terms the endpoints of a cluster are dialled, and what counts against its limits.
#[derive(Debug)]
pub struct Terms {
    pub connect_timeout: Duration,
    pub limits: Limits,
    pub retry_budget: RetryBudget,
    pub live: Arc<ClusterLive>,
}

/// What a cluster limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    Connections,
    Pending,
    Requests,
}

impl Terms {
    /// Takes one of what is limited; exact, however many workers ask at once.
    ///
    /// # Errors
    /// All are taken.
    pub fn take(&self, what: Limited) -> Result<Permit, Exceeded> {
        let (limit, exceeded) = match what {
            Limited::Connections => (self.limits.connections, Exceeded::Connections as fn(u32) -> Exceeded),
            Limited::Pending => (self.limits.pending, Exceeded::Pending as fn(u32) -> Exceeded),
            Limited::Requests => (self.limits.requests, Exceeded::Requests as fn(u32) -> Exceeded),
        };
        let one_more = |taken: u32| (taken < limit).then_some(taken + 1);
        let taken = self.live.count(what).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map_err(|_| exceeded(limit))?;
        Ok(Permit { live: Arc::clone(&self.live), what })
    }
}

impl ClusterLive {
    /// What is in use at this moment.
    pub fn in_use(&self) -> InUse {
        InUse {
            connections: self.connections.load(Ordering::Relaxed),
            pending: self.pending.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    fn count(&self, what: Limited) -> &AtomicU32 {
        match what {
            Limited::Connections => &self.connections,
            Limited::Pending => &self.pending,
            Limited::Requests => &self.requests,
        }
    }
}

/// One taken from what a cluster limits; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    live: Arc<ClusterLive>,
    what: Limited,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.live.count(self.what).fetch_sub(1, Ordering::Relaxed);
        if self.what == Limited::Connections {
            self.live.freed.notify_waiters();
        }
    }
}

/// Slots that were given back.
static FREE_SLOTS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

impl EndpointLive {
    #[allow(clippy::new_without_default)] // each one is another endpoint
    pub fn new() -> EndpointLive {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);
        let free = FREE_SLOTS.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
        EndpointLive {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            slot: free.unwrap_or_else(|| NEXT_SLOT.fetch_add(1, Ordering::Relaxed)),
            in_flight: AtomicU32::new(0),
            seconds: AtomicU64::new(0),
            is_out: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            ejected: OnceLock::new(),
        }
    }
}

impl Drop for EndpointLive {
    fn drop(&mut self) {
        if self.is_out.load(Ordering::Relaxed)
            && let Some(ejected) = self.ejected.get()
        {
            ejected.dec();
        }
        FREE_SLOTS.lock().unwrap_or_else(PoisonError::into_inner).insert(self.slot);
    }
}
