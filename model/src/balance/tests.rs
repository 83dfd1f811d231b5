use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PEAK_EWMA: Balance =
    Balance::PeakEwma { start: Duration::from_millis(30), decay: Duration::from_secs(10) };
const ALL: [Balance; 4] = [PEAK_EWMA, Balance::RoundRobin, Balance::LeastRequest, Balance::Random];

const IDLE: Load = Load { in_flight: 0, seconds: 0.03 };

/// Numbers that look drawn, the same at each run (SplitMix64).
pub(super) struct Draws(pub(super) u64);

impl Draws {
    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u32
    }
}

/// How often each endpoint is picked.
fn picked(balance: &Balance, weights: &[u32], load: impl Fn(usize) -> Load, picks: u32) -> Vec<u32> {
    let shares = Shares::new(weights.iter().copied());
    let mut draws = Draws(7);
    let mut seen = vec![0; weights.len()];
    for turn in 0..picks {
        let at = pick(balance, &shares, |_| true, &load, [draws.next(), draws.next()], turn);
        seen[at.expect("there are endpoints")] += 1;
    }
    seen
}

#[test]
fn equal_loads_are_shared_by_weight() {
    for balance in ALL {
        let seen = picked(&balance, &[1, 2, 0, 7], |_| IDLE, 20_000);
        for (seen, wanted) in seen.iter().zip([2_000.0, 4_000.0, 0.0, 14_000.0]) {
            assert!((f64::from(*seen) - wanted).abs() <= 300.0, "{balance:?}: {seen} of {wanted}");
        }
    }
}

#[test]
fn round_robin_takes_all_in_turn() {
    for (weights, wanted) in [(&[5, 5, 5][..], &[4, 4, 4][..]), (&[9, 1], &[54, 6]), (&[2, 0, 4], &[4, 0, 8])]
    {
        let picks = wanted.iter().sum();
        assert_eq!(picked(&Balance::RoundRobin, weights, |_| IDLE, picks), wanted);
    }
}

#[test]
fn round_robin_spreads_the_turns_of_a_heavy_endpoint() {
    let shares = Shares::new([5, 1, 1]);
    let turns: Vec<_> = (0..7).map(|turn| shares.turn(turn).unwrap()).collect();
    let light: Vec<_> = (0..7).filter(|at| turns[*at] != 0).collect();
    assert!(light.len() == 2 && light[1] - light[0] > 1, "{turns:?}");
}

#[test]
fn round_robin_does_not_stumble_where_its_count_begins_anew() {
    let shares = Shares::new([1; 3]);
    assert_ne!(shares.turn(u32::MAX), shares.turn(u32::MAX - 1));
}

#[test]
fn a_slow_endpoint_gets_little() {
    let load = |at| Load { in_flight: 0, seconds: if at == 0 { 2.0 } else { 0.003 } };
    assert_eq!(picked(&PEAK_EWMA, &[1, 1], load, 1_000), [0, 1_000]);
    assert!(picked(&PEAK_EWMA, &[1; 10], load, 1_000)[0] == 0);
    assert!(picked(&PEAK_EWMA, &[50, 30, 20], load, 1_000)[0] == 0);
}

#[test]
fn a_crowded_endpoint_gets_little() {
    let load = |at| Load { in_flight: if at == 0 { 50 } else { 1 }, seconds: 0.03 };
    for balance in [PEAK_EWMA, Balance::LeastRequest] {
        assert_eq!(picked(&balance, &[1; 5], load, 1_000)[0], 0, "{balance:?}");
    }
}

#[test]
fn an_endpoint_of_twice_the_weight_may_be_twice_as_crowded() {
    let load = |at| Load { in_flight: [20, 10][at], seconds: 0.03 };
    for balance in [PEAK_EWMA, Balance::LeastRequest] {
        let seen = picked(&balance, &[2, 1], load, 3_000);
        assert!((1_900..2_100).contains(&seen[0]), "{balance:?}: {seen:?}");
    }
}

#[test]
fn weights_that_hardly_differ_are_hardly_other_than_equal_ones() {
    let load = |at| Load { in_flight: [4, 0][at], seconds: [0.03, 0.05][at] };
    for weights in [[1, 1], [1_000, 999]] {
        assert_eq!(picked(&PEAK_EWMA, &weights, load, 100), [0, 100], "{weights:?}");
    }
}

#[test]
fn without_any_weight_all_count_the_same() {
    for balance in ALL {
        let seen = picked(&balance, &[0, 0], |_| IDLE, 1_000);
        assert!(seen.iter().all(|seen| (400..600).contains(seen)), "{balance:?}: {seen:?}");
    }
}

#[test]
fn without_endpoints_there_is_nothing_to_pick() {
    for balance in ALL {
        assert_eq!(pick(&balance, &Shares::new([]), |_| true, |_| IDLE, [7, 7], 7), None, "{balance:?}");
    }
}

#[test]
fn what_is_not_usable_is_not_picked_and_the_others_share_its_part_by_weight() {
    for balance in ALL {
        for (weights, usable, wanted) in [
            (&[1, 1][..], &[1][..], &[0.0, 12_000.0][..]),
            (&[3, 1, 2, 0], &[0, 1, 3], &[9_000.0, 3_000.0, 0.0, 0.0]),
            (&[1_000, 2, 1], &[1, 2], &[0.0, 8_000.0, 4_000.0]), // rarely drawn: counted
            (&[1; 6], &[0, 2, 3, 5], &[3_000.0, 0.0, 3_000.0, 3_000.0, 0.0, 3_000.0]),
        ] {
            let shares = Shares::new(weights.iter().copied());
            let (mut draws, mut seen) = (Draws(7), vec![0_u32; weights.len()]);
            for turn in 0..12_000 {
                let draws = [draws.next(), draws.next()];
                let at = pick(&balance, &shares, |at| usable.contains(&at), |_| IDLE, draws, turn);
                seen[at.expect("one is usable")] += 1;
            }
            for (seen, wanted) in seen.iter().zip(wanted) {
                let off = (f64::from(*seen) - wanted).abs();
                assert!(
                    off <= if *wanted == 0.0 { 0.0 } else { 300.0 },
                    "{balance:?} {weights:?}: {seen}, not {wanted}"
                );
            }
        }
    }
}

#[test]
fn where_nothing_is_usable_nothing_is_picked() {
    for balance in ALL {
        for weights in [&[][..], &[1], &[1, 1], &[0, 0], &[1, 0]] {
            let shares = Shares::new(weights.iter().copied());
            let unused = |at| weights[at] == 0 && weights.iter().any(|weight| *weight > 0);
            assert_eq!(pick(&balance, &shares, unused, |_| IDLE, [7, 7], 7), None, "{balance:?} {weights:?}");
        }
    }
}

/// Requests that arrive at the pace of the second endpoint, measured as soon as they are sent.
#[test]
fn endpoints_that_differ_in_speed_are_used_by_their_speed() {
    let took = [0.001, 0.002, 0.100];
    let start = Instant::now();
    let decay = Duration::from_secs(10);
    let shares = Shares::new([1; 3]);
    let mut draws = Draws(7);
    let mut beliefs = [Ewma::new(Duration::from_millis(30), start); 3];
    let mut in_flight: [Vec<f64>; 3] = Default::default();
    let mut seen = [0_u32; 3];
    for arrival in 0..10_000 {
        let now = f64::from(arrival) * 0.000_8;
        let instant = |seconds: f64| start + Duration::from_secs_f64(seconds);
        in_flight.iter_mut().for_each(|requests| requests.retain(|end| *end > now));
        let load = |at: usize| Load {
            in_flight: in_flight[at].len() as u32,
            seconds: beliefs[at].at(instant(now), decay),
        };
        let at = pick(&PEAK_EWMA, &shares, |_| true, load, [draws.next(), draws.next()], 0).unwrap();
        seen[at] += 1;
        in_flight[at].push(now + took[at]);
        beliefs[at] = beliefs[at].observe(Duration::from_secs_f64(took[at]), instant(now), decay);
    }
    assert!(seen[0] > seen[1] && seen[1] > 10 * seen[2], "{seen:?}");
    assert!(seen[2] > 0, "what is slow is tried again: {seen:?}");
}

#[test]
fn a_peak_is_believed_at_once_and_forgotten_slowly() {
    let start = Instant::now();
    let decay = Duration::from_secs(10);
    let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let believed = Ewma::new(Duration::from_millis(30), start).observe(Duration::from_secs(1), start, decay);
    assert_eq!(believed.at(start, decay), 1.0);
    assert!((believed.at(after(10.0), decay) - 1.0 / std::f64::consts::E).abs() < 1e-9);
    let better = believed.observe(Duration::ZERO, after(10.0), decay).at(after(10.0), decay);
    assert!((better - 1.0 / std::f64::consts::E).abs() < 1e-9, "{better}");
    let same_moment = believed.observe(Duration::from_millis(1), start, decay).at(start, decay);
    assert_eq!(same_moment, 1.0, "many fast answers at one moment are one measurement");
}

#[test]
fn an_endpoint_that_was_never_measured_is_tried_at_once_by_one_request() {
    let now = Instant::now();
    let times = [Duration::from_millis(30), Duration::from_secs(10)];
    let fast = Ewma::new(Duration::from_millis(1), now);
    for (measured, in_flight, wanted) in
        [(None, 0, 0.0), (None, 1, 0.03), (Some(fast), 0, 0.001), (Some(fast), 5, 0.001)]
    {
        assert_eq!(
            believe(measured, in_flight, now, times),
            wanted,
            "{measured:?} with {in_flight} in flight"
        );
    }
    let picks = |newcomers: u32| {
        let load = |at: usize| match at {
            0 => Load { in_flight: newcomers, seconds: believe(None, newcomers, now, times) },
            _ => Load { in_flight: 1, seconds: believe(Some(fast), 1, now, times) },
        };
        picked(&PEAK_EWMA, &[1, 1], load, 100)
    };
    assert_eq!((picks(0), picks(1)), (vec![100, 0], vec![0, 100]));
}

proptest! {
    #[test]
    fn weight_0_is_never_picked_while_another_can_be(
        weights in vec(prop_oneof![Just(0), 1..5_u32, any::<u32>()], 1..20),
        in_flight in vec(any::<u32>(), 20), seconds in vec(any::<f64>(), 20),
        draws: [u32; 2], turn: u32,
    ) {
        let shares = Shares::new(weights.iter().copied());
        let load = |at: usize| Load { in_flight: in_flight[at], seconds: seconds[at] };
        for balance in ALL {
            let at = pick(&balance, &shares, |_| true, load, draws, turn);
            let weight = at.map(|at| weights[at]);
            prop_assert!(weight.is_some_and(|weight| weight > 0 || weights.iter().all(|weight| *weight == 0)));
        }
    }

    #[test]
    fn two_choices_are_two(weights in vec(1..5_u32, 2..20), draws: [u32; 2]) {
        let shares = Shares::new(weights.iter().copied());
        let first = shares.draw(draws[0]).unwrap();
        prop_assert_ne!(shares.draw_without(first, draws[1]), Some(first));
    }

    #[test]
    fn no_time_makes_a_belief_less_than_nothing(
        took in any::<u32>(), elapsed in any::<u32>(), decay in prop_oneof![Just(0), any::<u64>()],
    ) {
        let (start, decay) = (Instant::now(), Duration::from_nanos(decay));
        let now = start + Duration::from_micros(elapsed.into());
        let belief = Ewma::new(Duration::from_millis(30), now).observe(Duration::from_micros(took.into()), start, decay);
        prop_assert!(belief.at(now, decay) >= 0.0 && belief.at(now, decay).is_finite());
    }
}
