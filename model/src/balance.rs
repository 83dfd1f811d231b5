//! Which endpoint of a cluster serves a request. Loads, draws and time are arguments: the data path
//! keeps the live state, this decides. Nothing here allocates for a pick.

use std::time::{Duration, Instant};

use crate::cluster::Balance;
use crate::route::scale;

/// What is known of an endpoint at the moment of a pick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests in flight to it, or connections open to it where it is opaque.
    pub in_flight: u32,
    /// What it is believed to take for a request, in seconds ([`believe`]); only peak-EWMA asks.
    pub seconds: f64,
}

/// The weights of a cluster's endpoints, prepared once for many picks.
///
/// Endpoints of weight 0 are never chosen while another can be: only if all weights are 0, all count
/// the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// `ends[i]` is the sum of the weights up to and with `i`, divided by what they have in common.
    ends: Vec<u64>,
    /// How far round robin goes from turn to turn: prime to the sum, near the golden section of it.
    stride: u64,
}

/// The endpoint to use, by its position; `None` if none is usable.
///
/// `usable` says which may be chosen at all: not those that are ejected or were tried before. `load` tells the load of an endpoint by position. `draws` are two numbers, each as likely as any
/// other; `turn` is one more at each pick, and may begin anywhere.
pub fn pick(
    balance: &Balance,
    shares: &Shares,
    usable: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> Load,
    draws: [u32; 2],
    turn: u32,
) -> Option<usize> {
    // Requests in flight, measured by the share that an endpoint should have.
    let crowding = |at: usize, load: Load| f64::from(load.in_flight) / shares.relative_weight(at);
    let latency = |at: usize, load: Load| load.seconds * (1.0 + crowding(at, load));
    match balance {
        Balance::Random => shares.draw_usable(draws[0], None, &usable),
        Balance::RoundRobin => {
            let at = shares.turn(turn)?;
            if usable(at) { Some(at) } else { shares.draw_usable(draws[0], None, &usable) }
        }
        Balance::LeastRequest => shares.lighter_of_two(draws, &usable, |at| crowding(at, load(at))),
        Balance::PeakEwma { .. } => shares.lighter_of_two(draws, &usable, |at| latency(at, load(at))),
    }
}

impl Shares {
    /// Prepares the weights of endpoints, in their order.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Shares {
        let mut weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
        if weights.iter().all(|weight| *weight == 0) {
            weights.fill(1);
        }
        let common = weights.iter().fold(0, |common, weight| greatest_common_divisor(common, *weight)).max(1);
        let mut sum = 0;
        for weight in &mut weights {
            sum += *weight / common;
            *weight = sum;
        }
        Shares { ends: weights, stride: stride(sum) }
    }

    fn sum(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The endpoint at a point below the sum.
    fn at(&self, point: u64) -> usize {
        self.ends.partition_point(|end| *end <= point)
    }

    fn draw(&self, draw: u32) -> Option<usize> {
        (self.sum() > 0).then(|| self.at(scale(draw, self.sum())))
    }

    /// As many turns as the sum of the weights give each endpoint exactly its weight, well mixed.
    fn turn(&self, turn: u32) -> Option<usize> {
        let sum = u128::from(self.sum());
        let point = (u128::from(turn) * u128::from(self.stride)).checked_rem(sum)?;
        Some(self.at(point as u64))
    }

    /// Draws two different endpoints by weight, and takes the second only if it is lighter.
    fn lighter_of_two(
        &self,
        draws: [u32; 2],
        usable: &impl Fn(usize) -> bool,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let first = self.draw_usable(draws[0], None, usable)?;
        let Some(second) = self.draw_usable(draws[1], Some(first), usable) else {
            return Some(first);
        };
        Some(if cost(second) < cost(first) { second } else { first })
    }

    /// A usable endpoint other than `taken`, by weight: draws a few times, and if luck is bad, counts them.
    fn draw_usable(&self, draw: u32, taken: Option<usize>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let mut draw = draw;
        for _ in 0..DRAWS_MAX {
            let at = taken.map_or_else(|| self.draw(draw), |taken| self.draw_without(taken, draw))?;
            if usable(at) {
                return Some(at);
            }
            draw = redraw(draw);
        }
        self.draw_counted(draw, |at| taken != Some(at) && usable(at))
    }

    fn draw_counted(&self, draw: u32, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let weight = |at: &usize| self.ends[*at] - self.start(*at);
        let usable = (0..self.ends.len()).filter(|at| weight(at) > 0 && usable(*at));
        let sum = usable.clone().map(|at| weight(&at)).sum();
        let point = (sum > 0).then(|| scale(draw, sum))?;
        let mut end = 0;
        usable.into_iter().find(|at| {
            end += weight(at);
            point < end
        })
    }

    /// An endpoint other than `taken`; `None` if no other has a weight.
    fn draw_without(&self, taken: usize, draw: u32) -> Option<usize> {
        let (start, end) = (self.start(taken), self.ends[taken]);
        let rest = self.sum() - (end - start);
        let point = scale(draw, rest);
        (rest > 0).then(|| self.at(if point < start { point } else { point + (end - start) }))
    }

    fn start(&self, at: usize) -> u64 {
        if at == 0 { 0 } else { self.ends[at - 1] }
    }

    /// 1 where all weights are equal.
    fn relative_weight(&self, at: usize) -> f64 {
        let weight = self.ends[at] - self.start(at);
        weight as f64 * self.ends.len() as f64 / self.sum() as f64
    }
}

/// Draws of an endpoint before all are counted. Of half of them ejected, one pick in 64 counts.
const DRAWS_MAX: u32 = 6;

/// Another number that looks drawn (the mixing of MurmurHash3).
fn redraw(draw: u32) -> u32 {
    let mixed = (draw.wrapping_add(0x9e37_79b9) ^ (draw >> 16)).wrapping_mul(0x85eb_ca6b);
    (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35)
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Going on by a number prime to the sum meets every point once in each round; near the golden
/// section, neighbours in time are far from each other in place.
fn stride(sum: u64) -> u64 {
    const GOLDEN_SECTION: f64 = 0.618_033_988_749_895;
    let near = (sum as f64 * GOLDEN_SECTION) as u64;
    (near.max(1)..).find(|candidate| greatest_common_divisor(*candidate, sum) <= 1).unwrap_or(1)
}

/// What an endpoint is believed to take for a request: rises at once to a peak, and forgets it slowly
/// (Finagle's and Linkerd's peak-EWMA).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    seconds: f64,
    measured: Instant,
}

/// What an endpoint is believed to take for a request at `now`, in seconds.
///
/// One that was never measured is tried at once, by one request: until that is answered it is believed to
/// take `start`. Otherwise a new endpoint would wait for the old ones to become as slow as `start`.
pub fn believe(measured: Option<Ewma>, in_flight: u32, now: Instant, [start, decay]: [Duration; 2]) -> f64 {
    match measured {
        Some(ewma) => ewma.at(now, decay),
        None if in_flight == 0 => 0.0,
        None => start.as_secs_f64(),
    }
}

/// What a failed request counts as, of an endpoint that was believed to take `believed` seconds: twice
/// that, up to [`FAILURE_MAX`], or as long as it took if that is more.
///
/// An endpoint that fails at once must not look like the fastest of all. Ejection alone does not prevent it:
/// it needs failures in a row, and has a maximum (two of three fail: 99 % of the requests would). Nor may one
/// failure cost an endpoint its traffic for long, or keep it from being ejected for want of requests: counted
/// as a second, it would be shunned for a minute. `balance::simulation` has the numbers.
pub fn cost_of_failure(took: Duration, believed: f64) -> Duration {
    let twice = 2.0 * took.as_secs_f64().max(believed);
    took.max(Duration::from_secs_f64(twice.clamp(0.0, FAILURE_MAX.as_secs_f64())))
}

/// See [`cost_of_failure`].
const FAILURE_MAX: Duration = Duration::from_secs(1);

impl Ewma {
    /// What is believed after the first measurement.
    pub fn new(took: Duration, now: Instant) -> Ewma {
        Ewma { seconds: took.as_secs_f64(), measured: now }
    }

    /// The belief after a request took `took` and ended at `now`.
    #[must_use]
    pub fn observe(self, took: Duration, now: Instant, decay: Duration) -> Ewma {
        let took = took.as_secs_f64();
        let kept = self.kept(now, decay);
        let mixed = self.seconds * kept + took * (1.0 - kept);
        Ewma { seconds: if took > self.seconds { took } else { mixed }, measured: now }
    }

    /// The belief at `now`, in seconds. It fades while nothing is measured, so that an endpoint that
    /// was slow once is tried again.
    pub fn at(self, now: Instant, decay: Duration) -> f64 {
        self.seconds * self.kept(now, decay)
    }

    /// How much of an old belief is left: 1 at once, 1/e after `decay`.
    fn kept(self, now: Instant, decay: Duration) -> f64 {
        let elapsed = now.saturating_duration_since(self.measured).as_secs_f64();
        (-elapsed / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod simulation;
