use http::StatusCode;

use super::*;
use crate::outcome::NotDelivered;

const FIRST: TryFacts<'static> =
    TryFacts { method: &Method::GET, retries: 0, replayable: true, retry_after: None, left: None, draw: 0 };
const REFUSED: Outcome = Outcome::NotDelivered(NotDelivered::ConnectFailure);

fn responded(status: u16) -> Outcome {
    Outcome::Responded { status: StatusCode::from_u16(status).unwrap(), grpc_status: None }
}

fn grpc(status: u8) -> Outcome {
    Outcome::Responded { status: StatusCode::OK, grpc_status: Some(status) }
}

fn on(conditions: Conditions) -> RetryPolicy {
    RetryPolicy { on: conditions, ..RetryPolicy::default() }
}

fn again(milliseconds: u64) -> Decision {
    Decision::Again { after: Duration::from_millis(milliseconds) }
}

#[test]
fn an_outcome_is_tried_again_where_the_policy_says_so() {
    let default = RetryPolicy::default();
    let never = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    let statuses = on(Conditions { statuses: [429, 503].into_iter().collect(), ..Conditions::default() });
    let unanswered = |unanswered| on(Conditions { unanswered, ..Conditions::default() });
    let [idempotent, always] = [Unanswered::Idempotent, Unanswered::Always].map(unanswered);
    let unavailable = GrpcStatuses::of_word("unavailable").unwrap();
    let unavailable = on(Conditions { grpc: unavailable, ..Conditions::default() });
    let (get, post) = (FIRST, TryFacts { method: &Method::POST, ..FIRST });
    let no = Decision::Done(Stop::NoCondition);

    for (what, policy, outcome, facts, wanted) in [
        ("what was not delivered, whatever the method", &default, REFUSED, post, again(0)),
        ("unless there are no retries", &never, REFUSED, get, Decision::Done(Stop::RetriesUsedUp)),
        ("a success", &default, responded(200), get, no),
        ("a 503, by default", &default, responded(503), get, no),
        ("a 503 that the policy names", &statuses, responded(503), post, again(0)),
        ("a 500 beside it", &statuses, responded(500), get, no),
        ("a reset, by default", &default, Outcome::Reset, get, no),
        ("a reset of a GET, if idempotent ones are retried", &idempotent, Outcome::Reset, get, again(0)),
        ("a timeout of a GET likewise", &idempotent, Outcome::Timeout, get, again(0)),
        ("a reset of a POST, if only those are", &idempotent, Outcome::Reset, post, no),
        ("a reset of a POST, if all are", &always, Outcome::Reset, post, again(0)),
        ("a gRPC status that the policy names", &unavailable, grpc(14), post, again(0)),
        ("another one", &unavailable, grpc(13), post, no),
        ("one that is none", &unavailable, grpc(255), post, no),
    ] {
        assert_eq!(decide(policy, &outcome, &facts, || true), wanted, "{what}");
    }
}

#[test]
fn a_retry_needs_its_body_its_time_and_its_budget() {
    let policy = RetryPolicy::default();
    let milliseconds = |count| Some(Duration::from_millis(count));
    let seconds = |count| Some(Duration::from_secs(count));
    let half = TryFacts { draw: u32::MAX / 2 + 1, ..FIRST };
    let done = Decision::Done;

    for (what, facts, wanted) in [
        ("all is there", half, Decision::Again { after: Duration::from_micros(12_500) }),
        ("the second retry", TryFacts { retries: 1, ..half }, again(25)),
        ("a third", TryFacts { retries: 2, ..half }, done(Stop::RetriesUsedUp)),
        ("the body was not kept", TryFacts { replayable: false, ..half }, done(Stop::BodyNotKept)),
        ("the deadline comes first", TryFacts { left: milliseconds(12), ..half }, done(Stop::NoTime)),
        (
            "the deadline comes later",
            TryFacts { left: milliseconds(13), ..half },
            Decision::Again { after: Duration::from_micros(12_500) },
        ),
        ("Retry-After", TryFacts { retry_after: seconds(2), ..half }, again(2_000)),
        (
            "Retry-After beyond the deadline",
            TryFacts { retry_after: seconds(2), left: seconds(1), ..half },
            done(Stop::NoTime),
        ),
        ("Retry-After of an hour", TryFacts { retry_after: seconds(3600), ..half }, done(Stop::NoTime)),
    ] {
        assert_eq!(decide(&policy, &REFUSED, &facts, || true), wanted, "{what}");
    }
    assert_eq!(decide(&policy, &REFUSED, &FIRST, || false), done(Stop::OverBudget));
}

#[test]
fn only_a_retry_that_will_be_made_is_taken_from_the_budget() {
    let mut taken = 0;
    for facts in [
        TryFacts { replayable: false, ..FIRST },
        TryFacts { retries: 2, ..FIRST },
        TryFacts { left: Some(Duration::ZERO), ..FIRST },
        FIRST,
    ] {
        decide(&RetryPolicy::default(), &REFUSED, &facts, || {
            taken += 1;
            true
        });
    }
    assert_eq!(taken, 1);
}

#[test]
fn a_wait_is_drawn_below_a_bound_that_doubles_up_to_its_limit() {
    let milliseconds = Duration::from_millis;
    let default = BackOff::default();
    let gateway = BackOff { least: milliseconds(100), base: milliseconds(100), max: milliseconds(1000) };
    for (what, of, retries, bound) in [
        ("first", default, 0, 25),
        ("second", default, 1, 50),
        ("fourth", default, 3, 200),
        ("fifth: at the limit", default, 4, 250),
        ("hundredth", default, 99, 250),
        ("first, with a least wait", gateway, 0, 200),
        ("hundredth, with a least wait", gateway, 99, 1100),
    ] {
        assert_eq!(back_off(&of, retries, 0), of.least, "{what}, lowest draw");
        let highest = back_off(&of, retries, u32::MAX);
        let bound = milliseconds(bound);
        assert!(highest < bound && highest > bound - milliseconds(1), "{what}: {highest:?}");
    }
}

#[test]
fn statuses_are_shown_as_ranges() {
    for (statuses, wanted) in [
        (StatusSet::default(), ""),
        (StatusSet::server_errors(), "500-599"),
        (StatusSet::gateway_errors(), "502-504"),
        ([429, 100, 599, 99, 600].into_iter().collect(), "100, 429, 599"),
    ] {
        assert_eq!(statuses.to_string(), wanted);
    }
}
