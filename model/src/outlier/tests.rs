use std::collections::BTreeMap;
use std::time::Instant;

use http::StatusCode;

use super::*;

const BASE: Duration = Duration::from_secs(30);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Without jitter, so that times are exact.
fn settings() -> OutlierDetection {
    OutlierDetection { max_ejection_time_jitter: Duration::ZERO, ..OutlierDetection::default() }
}

/// A cluster of endpoints 0, 1, 2 …, and a clock.
struct Cluster {
    detector: Detector,
    settings: OutlierDetection,
    now: Instant,
}

impl Cluster {
    fn new(endpoints: u64, settings: OutlierDetection) -> Cluster {
        let now = Instant::now();
        let mut detector = Detector::default();
        detector.set_members(Some(&settings), (0..endpoints).collect(), now);
        Cluster { detector, settings, now }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// A try that begins and ends now.
    fn observe(&mut self, endpoint: u64, fault: Option<Fault>) -> Option<Change> {
        self.detector.observe(&self.settings, endpoint, fault, [self.now; 2], 0)
    }

    /// What the last of so many failures changed.
    fn fail(&mut self, endpoint: u64, times: u32) -> Option<Change> {
        (0..times).map(|_| self.observe(endpoint, Some(Fault::Gateway))).last().flatten()
    }

    fn probe(&mut self) -> Option<u64> {
        self.detector.probe(&self.settings, self.now, |_| true)
    }

    fn out(&self) -> Vec<u64> {
        let out = |id: &u64| self.detector.standing(*id) != Standing::In;
        self.detector.members.iter().copied().filter(out).collect()
    }
}

fn ejected(lasts: u64, times: u32) -> Option<Change> {
    let reason = if times > 1 { Reason::ProbeFailed } else { Reason::ConsecutiveGatewayFailure };
    Some(Change::Ejected { reason, lasts: seconds(lasts), times })
}

#[test]
fn an_outcome_speaks_against_an_endpoint_or_does_not() {
    let status =
        |status| Outcome::Responded { status: StatusCode::from_u16(status).unwrap(), grpc_status: None };
    let grpc = |code| Outcome::Responded { status: StatusCode::OK, grpc_status: Some(code) };
    use Fault::{Gateway, LocalOrigin, ServerError};
    for (what, outcome, wanted) in [
        ("a success", status(200), None),
        ("the caller's fault", status(404), None),
        ("too many requests", status(429), None),
        ("an error of the app", status(500), Some(ServerError)),
        ("not implemented", status(501), Some(ServerError)),
        ("a bad gateway", status(502), Some(Gateway)),
        ("no service", status(503), Some(Gateway)),
        ("a gateway's time-out", status(504), Some(Gateway)),
        ("a success of gRPC", grpc(0), None),
        ("gRPC not found", grpc(5), None),
        ("gRPC resource exhausted", grpc(8), None),
        ("gRPC internal", grpc(13), Some(ServerError)),
        ("gRPC unavailable", grpc(14), Some(Gateway)),
        ("gRPC deadline exceeded", grpc(4), Some(Gateway)),
        ("no connection", Outcome::NotDelivered(NotDelivered::ConnectFailure), Some(LocalOrigin)),
        ("a refused stream", Outcome::NotDelivered(NotDelivered::RefusedStream), Some(LocalOrigin)),
        ("the peer could not reach its app", Outcome::NotDelivered(NotDelivered::SaidByPeer), Some(Gateway)),
        ("a reset", Outcome::Reset, Some(LocalOrigin)),
        ("a time-out", Outcome::Timeout, Some(LocalOrigin)),
    ] {
        assert_eq!(fault(outcome), wanted, "{what}");
    }
}

#[test]
fn what_counts_in_a_row_ejects() {
    use Fault::{Gateway as G, LocalOrigin as L, ServerError as S};
    let three = NonZeroU32::new(3);
    let none = OutlierDetection {
        consecutive_5xx: None,
        consecutive_gateway_failure: None,
        consecutive_local_origin_failure: None,
        ..settings()
    };
    let gateway = OutlierDetection { consecutive_gateway_failure: three, ..none };
    let errors = OutlierDetection { consecutive_5xx: three, ..none };
    let split = OutlierDetection {
        consecutive_local_origin_failure: three,
        split_external_local_origin_errors: true,
        ..gateway
    };
    let never_local = OutlierDetection { split_external_local_origin_errors: true, ..gateway };
    for (what, settings, faults, wanted) in [
        (
            "three in a row",
            gateway,
            &[Some(G), Some(G), Some(G)][..],
            Some(Reason::ConsecutiveGatewayFailure),
        ),
        ("one less", gateway, &[Some(G), Some(G)], None),
        ("a success between", gateway, &[Some(G), Some(G), None, Some(G)], None),
        ("an error of the app between", gateway, &[Some(G), Some(G), Some(S), Some(G)], None),
        (
            "a local one is a gateway failure",
            gateway,
            &[Some(G), Some(L), Some(G)],
            Some(Reason::ConsecutiveGatewayFailure),
        ),
        ("errors of the app are not asked for", gateway, &[Some(S); 9], None),
        ("errors of the app are asked for", errors, &[Some(S); 3], Some(Reason::Consecutive5xx)),
        ("all are errors", errors, &[Some(S), Some(G), Some(L)], Some(Reason::Consecutive5xx)),
        ("local ones apart", split, &[Some(L); 3], Some(Reason::ConsecutiveLocalOriginFailure)),
        ("local ones apart from gateway failures", split, &[Some(G), Some(L), Some(G), Some(L)], None),
        (
            "a local one between gateway failures",
            split,
            &[Some(G), Some(L), Some(G), Some(G)],
            Some(Reason::ConsecutiveGatewayFailure),
        ),
        ("an answer between local ones", split, &[Some(L), Some(L), Some(G), Some(L)], None),
        ("local ones apart, and not asked for", never_local, &[Some(L); 9], None),
        ("nothing is asked for", none, &[Some(G); 9], None),
    ] {
        let mut cluster = Cluster::new(3, settings);
        let changes = faults.iter().filter_map(|fault| cluster.observe(1, *fault));
        let reasons: Vec<_> = changes
            .map(|change| match change {
                Change::Ejected { reason, .. } | Change::Returned { reason } => reason,
            })
            .collect();
        assert_eq!(reasons, wanted.into_iter().collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn as_many_are_out_as_may_be() {
    for (endpoints, percent, wanted) in
        [(0, 50, 0), (1, 50, 0), (1, 100, 0), (2, 50, 1), (2, 49, 0), (2, 100, 1), (3, 50, 1), (3, 100, 2)]
            .into_iter()
            .chain([(10, 0, 0), (10, 9, 0), (10, 10, 1), (10, 50, 5), (10, 100, 9), (10, 4_000, 9)])
    {
        let settings = OutlierDetection { max_ejection_percent: percent, ..settings() };
        assert_eq!(settings.ejected_max(endpoints), wanted, "{percent} % of {endpoints}");
        let mut cluster = Cluster::new(endpoints as u64, settings);
        (0..endpoints as u64).for_each(|endpoint| _ = cluster.fail(endpoint, 7));
        assert_eq!(cluster.out().len(), wanted, "{percent} % of {endpoints}");
    }
}

#[test]
fn one_that_goes_on_failing_is_ejected_as_soon_as_it_may_be() {
    let mut cluster = Cluster::new(3, settings());
    assert_eq!((cluster.fail(0, 5), cluster.fail(1, 50)), (ejected(30, 1), None));
    cluster.wait(BASE);
    assert_eq!((cluster.probe(), cluster.observe(0, None).is_some()), (Some(0), true));
    assert_eq!(cluster.fail(1, 1), ejected(30, 1));
}

#[test]
fn a_probe_decides_and_nobody_else_does() {
    let mut cluster = Cluster::new(4, settings());
    let began = cluster.now;
    cluster.fail(2, 5);
    cluster.wait(BASE - seconds(1));
    assert_eq!(cluster.probe(), None, "its time is not over");
    cluster.wait(seconds(1));
    assert_eq!(cluster.probe(), Some(2));
    assert_eq!(cluster.probe(), None, "one request at once");
    let late = cluster.detector.observe(&settings(), 2, None, [began, cluster.now], 0);
    assert_eq!((late, cluster.out()), (None, vec![2]), "a request from before the ejection decides nothing");

    assert_eq!(cluster.fail(2, 1), ejected(60, 2));
    cluster.wait(seconds(60));
    assert_eq!(cluster.probe(), Some(2));
    let returned = Some(Change::Returned { reason: Reason::ProbeFailed });
    assert_eq!((cluster.observe(2, None), cluster.out()), (returned, vec![]));
    let late = cluster.detector.observe(&settings(), 2, Some(Fault::Gateway), [began, cluster.now], 0);
    assert_eq!((late, cluster.detector.is_suspect(2)), (None, false), "nor does it count afterwards");
}

#[test]
fn a_probe_without_an_answer_does_not_keep_the_endpoint_out() {
    let mut cluster = Cluster::new(2, settings());
    cluster.fail(0, 5);
    cluster.wait(BASE);
    let since = cluster.now;
    assert_eq!((cluster.probe(), cluster.probe()), (Some(0), None));
    cluster.detector.give_up_probe(0, since);
    assert_eq!((cluster.probe(), cluster.probe()), (Some(0), None), "its client went away");
    cluster.wait(settings().interval);
    assert_eq!((cluster.probe(), cluster.probe()), (Some(0), None), "it takes long");
    cluster.detector.give_up_probe(0, since);
    assert_eq!(cluster.probe(), None, "a later probe is under way");
}

#[test]
fn an_endpoint_that_a_request_must_not_take_is_not_probed_by_it() {
    let mut cluster = Cluster::new(6, settings());
    cluster.fail(1, 5);
    cluster.wait(seconds(1));
    cluster.fail(2, 5);
    cluster.wait(BASE);
    assert_eq!(cluster.detector.probe(&settings(), cluster.now, |id| id != 1), Some(2));
    assert_eq!(cluster.probe(), Some(1));
}

#[test]
fn ejections_grow_up_to_a_limit_and_are_forgiven() {
    let mut cluster = Cluster::new(2, OutlierDetection { max_ejection_time: seconds(80), ..settings() });
    assert_eq!(cluster.fail(0, 5), ejected(30, 1));
    for (lasts, times) in [(60, 2), (80, 3), (80, 4)] {
        cluster.wait(seconds(80));
        assert_eq!((cluster.probe(), cluster.fail(0, 1)), (Some(0), ejected(lasts, times)));
    }
    cluster.wait(seconds(80));
    assert_eq!((cluster.probe(), cluster.observe(0, None).is_some()), (Some(0), true));
    cluster.wait(settings().interval * 3);
    let second = Change::Ejected { reason: Reason::ConsecutiveGatewayFailure, lasts: seconds(60), times: 2 };
    assert_eq!(cluster.fail(0, 5), Some(second), "three of four are forgiven");
    cluster.wait(seconds(60));
    assert_eq!((cluster.probe(), cluster.observe(0, None).is_some()), (Some(0), true));
    cluster.wait(settings().interval * 2);
    assert_eq!(cluster.fail(0, 5), ejected(30, 1), "all are");
}

#[test]
fn jitter_lengthens_an_ejection_by_its_maximum_at_most() {
    let jitter = OutlierDetection { max_ejection_time_jitter: seconds(10), ..settings() };
    let lasts = |draw| jitter.ejection_time(1, draw).as_secs_f64().round();
    assert_eq!([lasts(0), lasts(u32::MAX / 2), lasts(u32::MAX)], [30.0, 35.0, 40.0]);
    let endless = OutlierDetection {
        base_ejection_time: Duration::MAX,
        max_ejection_time: Duration::MAX,
        max_ejection_time_jitter: seconds(1),
        ..settings()
    };
    assert_eq!(endless.ejection_time(u32::MAX, 7), FOREVER, "and no time overflows a clock");
}

#[test]
fn a_change_of_the_endpoints_brings_back_only_what_exceeds_the_maximum() {
    let mut cluster = Cluster::new(6, settings());
    for endpoint in [4, 1, 3] {
        cluster.fail(endpoint, 5);
        cluster.wait(seconds(1));
    }
    let mut out_of = |settings: Option<OutlierDetection>, members: &[u64]| {
        cluster.detector.set_members(settings.as_ref(), members.to_vec(), cluster.now);
        cluster.out()
    };
    let all = Some(settings());
    for (what, settings, members, wanted) in [
        ("the same, in another order", all, &[5, 3, 1, 0, 2, 4][..], &[1, 3, 4][..]),
        ("more", all, &[0, 1, 2, 3, 4, 5, 6, 7], &[1, 3, 4]),
        ("one of them leaves", all, &[0, 1, 2, 4, 5, 6], &[1, 4]),
        ("and comes back", all, &[0, 1, 2, 3, 4, 5], &[1, 3, 4]),
        ("healthy ones leave: the first to return does", all, &[0, 1, 3, 4, 5], &[1, 3]),
        ("only ejected ones are left", all, &[1, 3], &[3]),
        ("one is left", all, &[3], &[]),
        ("detection is switched off", None, &[0, 1, 2, 3, 4, 5], &[]),
    ] {
        assert_eq!(out_of(settings, members), wanted, "{what}");
    }
}

#[test]
fn an_endpoint_that_is_none_any_more_is_not_ejected() {
    let mut cluster = Cluster::new(4, settings());
    cluster.detector.set_members(Some(&settings()), vec![0, 1, 2], cluster.now);
    assert_eq!((cluster.fail(3, 9), cluster.detector.is_suspect(3)), (None, false));
}

#[test]
fn what_was_forgiven_takes_no_memory() {
    let mut cluster = Cluster::new(4, settings());
    cluster.fail(0, 4);
    cluster.observe(0, None);
    assert!(cluster.detector.failed.is_empty(), "{:?}", cluster.detector);
    cluster.fail(0, 5);
    cluster.wait(BASE);
    cluster.probe();
    cluster.observe(0, None);
    cluster.wait(settings().interval);
    cluster.observe(0, None);
    assert!(cluster.detector.failed.is_empty(), "{:?}", cluster.detector);
}

/// Numbers that look drawn, the same at each run (SplitMix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn fault(&mut self) -> Option<Fault> {
        [None, Some(Fault::Gateway), Some(Fault::ServerError), Some(Fault::LocalOrigin), Some(Fault::Gateway)]
            [self.below(5) as usize]
    }

    fn settings(&mut self) -> OutlierDetection {
        let mut count = || NonZeroU32::new(self.below(4) as u32);
        OutlierDetection {
            consecutive_5xx: count(),
            consecutive_gateway_failure: count(),
            consecutive_local_origin_failure: count(),
            split_external_local_origin_errors: self.below(2) == 0,
            interval: seconds(self.below(12)),
            base_ejection_time: seconds(self.below(40)),
            max_ejection_time: seconds(self.below(300)),
            max_ejection_time_jitter: seconds(self.below(5)),
            max_ejection_percent: self.below(102) as u32,
        }
    }

    fn members(&mut self) -> Vec<u64> {
        let all = self.below(9);
        (0..all).filter(|_| self.below(4) > 0).collect()
    }
}

/// One step of a schedule: requests (several may be in flight), probes, time, and pushes.
fn step(
    cluster: &mut Cluster,
    draws: &mut Draws,
    in_flight: &mut Vec<(u64, Instant)>,
) -> Option<(u64, Change)> {
    match draws.below(20) {
        0 => {
            let settings = if draws.below(4) == 0 { draws.settings() } else { cluster.settings };
            cluster.settings = settings;
            cluster.detector.set_members(Some(&settings), draws.members(), cluster.now);
            None
        }
        1 | 2 => {
            cluster.wait(seconds(draws.below(40)));
            None
        }
        3 => {
            let probed = cluster.probe()?;
            in_flight.push((probed, cluster.now));
            None
        }
        4 => {
            let (endpoint, began) = (draws.below(9), cluster.now);
            cluster.detector.give_up_probe(endpoint, began);
            None
        }
        5..=9 => {
            in_flight.push((draws.below(9), cluster.now));
            None
        }
        _ => {
            let ends = draws.below(in_flight.len().max(1) as u64) as usize;
            let (endpoint, began) =
                if in_flight.is_empty() { (0, cluster.now) } else { in_flight.remove(ends) };
            let (fault, draw) = (draws.fault(), draws.below(1 << 32) as u32);
            let times = [began, cluster.now];
            let change = cluster.detector.observe(&cluster.settings, endpoint, fault, times, draw);
            change.map(|change| (endpoint, change))
        }
    }
}

#[test]
fn no_schedule_ejects_the_last_endpoint_or_more_than_the_maximum() {
    let mut ejections = 0;
    for seed in 0..10_000 {
        let mut draws = Draws(seed);
        let settings = draws.settings();
        let mut cluster = Cluster::new(1 + draws.below(8), settings);
        let (mut in_flight, mut out_until) = (Vec::new(), BTreeMap::new());
        for number in 0..200 {
            let before = cluster.out();
            let change = step(&mut cluster, &mut draws, &mut in_flight);
            let (out, members) = (cluster.out(), cluster.detector.members.len());
            let at = || format!("seed {seed}, step {number}: {change:?}, {:?}", cluster.detector);
            assert!(out.len() <= cluster.settings.ejected_max(members), "{}", at());
            assert!(members == 0 || out.len() < members, "the last one: {}", at());
            match change {
                Some((endpoint, Change::Ejected { lasts, times, .. })) => {
                    let longest = cluster.settings.max_ejection_time.max(cluster.settings.base_ejection_time);
                    assert!(lasts <= longest + cluster.settings.max_ejection_time_jitter, "{}", at());
                    assert!(
                        times > 0 && lasts >= cluster.settings.base_ejection_time.min(longest),
                        "{}",
                        at()
                    );
                    out_until.insert(endpoint, cluster.now + lasts);
                    ejections += 1;
                }
                Some((endpoint, Change::Returned { .. })) => {
                    assert!(before.contains(&endpoint) && cluster.now >= out_until[&endpoint], "{}", at());
                }
                None => {}
            }
        }
    }
    assert!(ejections > 10_000, "the schedules try it: {ejections} ejections");
}
