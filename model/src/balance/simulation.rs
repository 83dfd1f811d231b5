//! What share of the requests each endpoint gets while others are slow or fail: balancing and ejection
//! together, over simulated time. The numbers that decide between ways of balancing come from here.

use crate::outlier::{Change, Detector, Fault, OutlierDetection, Standing};

use super::tests::Draws;
use super::*;

/// How an endpoint answers.
#[derive(Clone, Copy)]
struct Answers {
    seconds: f64,
    /// One request in so many fails, after `fails_after` seconds; 0: none.
    one_in: u32,
    fails_after: f64,
}

const fn well(seconds: f64) -> Answers {
    Answers { seconds, one_in: 0, fails_after: 0.0 }
}

const fn failing(one_in: u32) -> Answers {
    Answers { seconds: 0.005, one_in, fails_after: 0.001 }
}

struct Request {
    at: usize,
    began: f64,
    ends: f64,
    fails: bool,
}

/// What was seen of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    requests: u32,
    failures: u32,
    ejections: u32,
    /// When, in seconds.
    first_ejection: Option<f64>,
}

struct Simulation<'a> {
    balance: Balance,
    answers: &'a [Answers],
    detection: Option<OutlierDetection>,
    /// What a failure counts as, from how long it took and what was believed.
    failed: fn(Duration, f64) -> Duration,
}

const DECAY: Duration = Duration::from_secs(10);
const REQUESTS: u32 = 24_000;
/// Seconds from one request to the next.
const EVERY: f64 = 0.005;

impl Simulation<'_> {
    /// Two minutes of requests.
    fn run(&self) -> Vec<Seen> {
        let start = Instant::now();
        let instant = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let count = self.answers.len();
        let shares = Shares::new(vec![1; count]);
        let mut draws = Draws(7);
        let mut detector = Detector::default();
        detector.set_members(self.detection.as_ref(), (0..count as u64).collect(), start);
        let (mut seen, mut beliefs) = (vec![Seen::default(); count], vec![None; count]);
        let mut in_flight: Vec<Request> = Vec::new();
        for arrival in 0..REQUESTS {
            let now = f64::from(arrival) * EVERY;
            let (ended, going): (Vec<_>, Vec<_>) =
                in_flight.drain(..).partition(|request| request.ends <= now);
            in_flight = going;
            for request in ended {
                let times = [instant(request.began), instant(request.ends)];
                let took = Duration::from_secs_f64(request.ends - request.began);
                let belief: &mut Option<Ewma> = &mut beliefs[request.at];
                let believed = belief.map_or(0.0, |belief| belief.at(times[1], DECAY));
                let took = if request.fails { (self.failed)(took, believed) } else { took };
                *belief = Some(
                    belief.map_or(Ewma::new(took, times[1]), |belief| belief.observe(took, times[1], DECAY)),
                );
                seen[request.at].failures += u32::from(request.fails);
                let fault = request.fails.then_some(Fault::Gateway);
                let change = self.detection.and_then(|detection| {
                    detector.observe(&detection, request.at as u64, fault, times, draws.next())
                });
                if matches!(change, Some(Change::Ejected { .. })) {
                    seen[request.at].ejections += 1;
                    seen[request.at].first_ejection.get_or_insert(request.ends);
                }
            }
            let load = |at: usize| {
                let in_flight = in_flight.iter().filter(|request| request.at == at).count() as u32;
                let times = [Duration::from_millis(30), DECAY];
                Load { in_flight, seconds: believe(beliefs[at], in_flight, instant(now), times) }
            };
            let probed =
                self.detection.and_then(|detection| detector.probe(&detection, instant(now), |_| true));
            let is_in = |at: usize| detector.standing(at as u64) == Standing::In;
            let picked = || pick(&self.balance, &shares, is_in, load, [draws.next(), draws.next()], arrival);
            let at = probed.map(|id| id as usize).or_else(picked).expect("never the last");
            let Answers { seconds, one_in, fails_after } = self.answers[at];
            let fails = one_in > 0 && draws.next().is_multiple_of(one_in);
            let took = if fails { fails_after } else { seconds };
            seen[at].requests += 1;
            in_flight.push(Request { at, began: now, ends: now + took, fails });
        }
        seen
    }
}

/// Ways to count a failure: as it took, as a second at least, and ours.
const AS_IT_TOOK: fn(Duration, f64) -> Duration = |took, _| took;
const AS_A_SECOND: fn(Duration, f64) -> Duration = |took, _| took.max(Duration::from_secs(1));

/// The failures, in percent, and the part of the requests that the first endpoint got, in percent.
fn parts(seen: &[Seen]) -> (f64, f64) {
    let of = |count: fn(&Seen) -> u32| f64::from(seen.iter().map(count).sum::<u32>());
    let all = of(|seen| seen.requests);
    (of(|seen| seen.failures) * 100.0 / all, f64::from(seen[0].requests) * 100.0 / all)
}

fn run(answers: &[Answers], failed: fn(Duration, f64) -> Duration) -> Vec<Seen> {
    let detection = Some(OutlierDetection::default());
    let simulation = Simulation { balance: Balance::default(), answers, detection, failed };
    simulation.run()
}

#[test]
fn an_endpoint_that_fails_fast_gets_little_even_where_it_cannot_be_ejected() {
    for (what, answers, wanted) in [
        ("one of two", &[failing(1), well(0.005)][..], 0.2),
        ("two of three: only one may be out", &[failing(1), failing(1), well(0.005)], 1.0),
        ("one of ten", &[&[failing(1)][..], &[well(0.005); 9]].concat(), 0.2),
        ("now and then, never often enough in a row", &[failing(5), well(0.005)], 1.0),
    ] {
        let (failed, _) = parts(&run(answers, cost_of_failure));
        assert!(failed < wanted, "{what}: {failed} % failed");
    }
}

#[test]
fn ejection_alone_would_not_keep_requests_from_what_fails_fast() {
    let (failed, _) = parts(&run(&[failing(1), failing(1), well(0.005)], AS_IT_TOOK));
    assert!(failed > 90.0, "two of three: {failed} % failed");
}

#[test]
fn a_rare_failure_does_not_cost_an_endpoint_its_traffic() {
    let rare = [failing(2_000), well(0.005)];
    let share = |failed| parts(&run(&rare, failed)).1;
    let (ours, long) = (share(cost_of_failure), share(AS_A_SECOND));
    assert!(ours > 10.0 && ours > 1.8 * long, "{ours} %, and {long} % if it counted as a second");
}

#[test]
fn what_always_fails_is_ejected_soon_and_again() {
    let seen = run(&[failing(1), well(0.005)], cost_of_failure)[0];
    assert!(seen.ejections >= 2 && seen.first_ejection.is_some_and(|at| at < 40.0), "{seen:?}");
    let long = run(&[failing(1), well(0.005)], AS_A_SECOND)[0];
    assert_eq!(long.ejections, 0, "if it counted as a second: {long:?}");
}

#[test]
fn least_request_and_ewma_both_spare_a_slow_endpoint_each_in_its_way() {
    let answers = [well(0.200), well(0.005), well(0.005)];
    let share = |balance| {
        let simulation = Simulation { balance, answers: &answers, detection: None, failed: cost_of_failure };
        parts(&simulation.run()).1
    };
    let shares = [Balance::default(), Balance::LeastRequest, Balance::RoundRobin].map(share);
    let [ewma, least, turns] = shares;
    assert!(ewma < 1.0 && (1.0..15.0).contains(&least) && turns > 33.0, "{shares:?}");
}
