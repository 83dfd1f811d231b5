//! The endpoints of one cluster: who is in, who is out, and who may come back.
//!
//! An ejected endpoint does not simply come back when its time is over: then one request is sent to it, a
//! probe, and what comes of that decides. While it is under way the endpoint stays out for all others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Counts, Fault, OutlierDetection, Reason};

/// How the endpoints of a cluster stand. Endpoints are told apart by a number that is never used twice;
/// only those that have failed lately take memory of their own.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    /// Those that can be chosen, in order.
    pub(super) members: Box<[u64]>,
    /// Members that failed lately, and ejected ones that left and may return before their time is over.
    pub(super) failed: BTreeMap<u64, Health>,
}

/// What is known of an endpoint that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    counts: Counts,
    standing: Standing,
    /// Ejections that are not forgiven yet.
    times: u32,
    /// When `standing` last changed: tries that began before say nothing about what holds since.
    changed: Option<Instant>,
}

/// Whether an endpoint gets traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As any other.
    In,
    /// Ejected; from `until` on, the next request probes it.
    Out {
        /// Why.
        reason: Reason,
        /// When it may be probed.
        until: Instant,
    },
    /// One request is on its way to it, and decides.
    Probing {
        /// Why it was ejected.
        reason: Reason,
        /// When the probe was chosen for it.
        since: Instant,
    },
}

/// What a try changed, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The endpoint gets no traffic from now on.
    Ejected {
        /// Why.
        reason: Reason,
        /// For how long, before it is probed.
        lasts: Duration,
        /// The how-manieth ejection this is, forgiven ones apart.
        times: u32,
    },
    /// A probe succeeded: the endpoint gets traffic again.
    Returned {
        /// Why it had been ejected.
        reason: Reason,
    },
}

impl Detector {
    /// Says which endpoints can be chosen from now on. Known ones stand as they stood; where fewer may be
    /// out than are, those come back whose time is over first. Without settings, all do.
    pub fn set_members(&mut self, settings: Option<&OutlierDetection>, members: Vec<u64>, now: Instant) {
        let mut members = members;
        members.sort_unstable();
        members.dedup();
        self.members = members.into();
        let Some(settings) = settings else { return self.failed.clear() };
        let members = &self.members;
        self.failed.retain(|id, health| match health.standing {
            Standing::Out { until, .. } if until <= now => members.binary_search(id).is_ok(),
            Standing::Out { .. } => true,
            Standing::In | Standing::Probing { .. } => members.binary_search(id).is_ok(),
        });
        let surplus = self.ejected().saturating_sub(settings.ejected_max(self.members.len()));
        for _ in 0..surplus {
            self.readmit_first(now);
        }
    }

    fn readmit_first(&mut self, now: Instant) {
        let members = &self.members;
        let out = self.failed.iter_mut().filter(|(id, _)| members.binary_search(id).is_ok());
        let first = out.filter_map(|(_, health)| Some((health.standing.until()?, health)));
        if let Some((_, health)) = first.min_by_key(|(until, _)| *until) {
            health.turn(Standing::In, now);
        }
    }

    /// Notes what came of a try that began at `began`: `None` if nothing speaks against the endpoint.
    pub fn observe(
        &mut self,
        settings: &OutlierDetection,
        endpoint: u64,
        fault: Option<Fault>,
        [began, now]: [Instant; 2],
        draw: u32,
    ) -> Option<Change> {
        if !self.is_member(endpoint) {
            return None;
        }
        let may_eject = self.ejected() < settings.ejected_max(self.members.len());
        let health = self.failed.entry(endpoint).or_default();
        if health.changed.is_some_and(|changed| began < changed) {
            return None;
        }
        let fault = fault.filter(|fault| settings.counts(*fault));
        let change = match health.standing {
            Standing::Out { .. } => None, // it was used since nothing else was left
            Standing::Probing { reason, .. } => Some(match fault {
                None => health.readmit(reason, now),
                Some(_) => health.eject(settings, Reason::ProbeFailed, now, draw),
            }),
            Standing::In => {
                health.counts = settings.count(health.counts, fault);
                let reached = settings.reached(health.counts).filter(|_| may_eject);
                reached.map(|reason| health.eject(settings, reason, now, draw))
            }
        };
        if health.is_forgotten(settings, now) {
            self.failed.remove(&endpoint);
        }
        change
    }

    /// An ejected endpoint whose time is over, to be probed by the request that asks; of several, the one
    /// that waits longest. `allowed` excludes those that the request must not take.
    pub fn probe(
        &mut self,
        settings: &OutlierDetection,
        now: Instant,
        allowed: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let members = &self.members;
        let out = self.failed.iter_mut().filter(|(id, _)| members.binary_search(id).is_ok() && allowed(**id));
        let due = out.filter_map(|(id, health)| Some((health.standing.due(settings)?, *id, health)));
        let (_, id, health) = due.filter(|(due, ..)| *due <= now).min_by_key(|(due, ..)| *due)?;
        let reason = health.standing.reason()?;
        health.turn(Standing::Probing { reason, since: now }, now);
        Some(id)
    }

    /// Takes back a probe of which nothing came (its client went away): the next request is one.
    pub fn give_up_probe(&mut self, endpoint: u64, since: Instant) {
        let Some(health) = self.failed.get_mut(&endpoint) else { return };
        if let Standing::Probing { reason, since: began } = health.standing
            && began == since
        {
            health.standing = Standing::Out { reason, until: since };
        }
    }

    /// From when on [`Detector::probe`] may yield an endpoint.
    pub fn probe_due(&self, settings: &OutlierDetection) -> Option<Instant> {
        let out = self.failed.iter().filter(|(id, _)| self.is_member(**id));
        out.filter_map(|(_, health)| health.standing.due(settings)).min()
    }

    /// How many of the endpoints that can be chosen are out, those under probe included.
    pub fn ejected(&self) -> usize {
        let out = self.failed.iter().filter(|(_, health)| health.standing != Standing::In);
        out.filter(|(id, _)| self.is_member(**id)).count()
    }

    /// How an endpoint stands.
    pub fn standing(&self, endpoint: u64) -> Standing {
        self.failed.get(&endpoint).map_or(Standing::In, |health| health.standing)
    }

    /// Failures in a row of an endpoint, and its ejections that are not forgiven yet.
    pub fn record(&self, endpoint: u64) -> (Counts, u32) {
        self.failed.get(&endpoint).map(|health| (health.counts, health.times)).unwrap_or_default()
    }

    /// Whether a success would change anything for an endpoint.
    pub fn is_suspect(&self, endpoint: u64) -> bool {
        let suspect = |health: &Health| health.counts != Counts::default() || health.standing != Standing::In;
        self.failed.get(&endpoint).is_some_and(suspect)
    }

    fn is_member(&self, endpoint: u64) -> bool {
        self.members.binary_search(&endpoint).is_ok()
    }
}

impl Standing {
    fn reason(self) -> Option<Reason> {
        match self {
            Standing::In => None,
            Standing::Out { reason, .. } | Standing::Probing { reason, .. } => Some(reason),
        }
    }

    /// When an ejection was to end, or its probe began.
    fn until(self) -> Option<Instant> {
        match self {
            Standing::In => None,
            Standing::Out { until: at, .. } | Standing::Probing { since: at, .. } => Some(at),
        }
    }

    /// When it may be probed, or probed again: a request may take any time.
    fn due(self, settings: &OutlierDetection) -> Option<Instant> {
        match self {
            Standing::In => None,
            Standing::Out { until, .. } => Some(until),
            Standing::Probing { since, .. } => since.checked_add(settings.interval),
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health { counts: Counts::default(), standing: Standing::In, times: 0, changed: None }
    }
}

impl Health {
    fn turn(&mut self, standing: Standing, now: Instant) {
        *self = Health { standing, counts: Counts::default(), changed: Some(now), ..*self };
    }

    fn eject(&mut self, settings: &OutlierDetection, reason: Reason, now: Instant, draw: u32) -> Change {
        self.times = self.times_left(settings, now).saturating_add(1);
        let lasts = settings.ejection_time(self.times, draw);
        self.turn(Standing::Out { reason, until: now + lasts }, now);
        Change::Ejected { reason, lasts, times: self.times }
    }

    fn readmit(&mut self, reason: Reason, now: Instant) -> Change {
        self.turn(Standing::In, now);
        Change::Returned { reason }
    }

    /// The ejections that are not forgiven: one less for each interval since it came back.
    fn times_left(&self, settings: &OutlierDetection, now: Instant) -> u32 {
        let (Standing::In, Some(changed)) = (self.standing, self.changed) else { return self.times };
        let intervals =
            now.saturating_duration_since(changed).as_nanos() / settings.interval.as_nanos().max(1);
        self.times.saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    fn is_forgotten(&self, settings: &OutlierDetection, now: Instant) -> bool {
        self.standing == Standing::In
            && self.counts == Counts::default()
            && self.times_left(settings, now) == 0
    }
}
