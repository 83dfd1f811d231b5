use std::net::SocketAddr;
use std::num::NonZeroU32;

use gauze_model::balance::Shares;
use gauze_model::cluster::Limits;
use gauze_model::outcome::NotDelivered;
use gauze_model::outlier::{OutlierDetection, Standing};
use http::StatusCode;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A cluster of endpoints with these weights, and ejections of this length.
fn cluster(weights: &[u32], lasts: Duration) -> ClusterTarget {
    let address = |at: usize| SocketAddr::from(([10, 1, 0, 1], 8000 + at as u16));
    let endpoint = |(at, weight): (usize, &u32)| {
        let endpoint = Arc::into_inner(EndpointTarget::for_tests(address(at), Limits::default()));
        Arc::new(EndpointTarget { weight: *weight, ..endpoint.expect("the only one") })
    };
    let endpoints: Vec<_> = weights.iter().enumerate().map(endpoint).collect();
    let outlier = OutlierDetection {
        consecutive_gateway_failure: NonZeroU32::new(2),
        base_ejection_time: lasts,
        max_ejection_time_jitter: Duration::ZERO,
        ..OutlierDetection::default()
    };
    let terms = Arc::clone(&endpoints[0].terms);
    terms.live.outliers.set_members(Some(&outlier), &endpoints);
    ClusterTarget {
        name: "cluster/shop/cart/80".parse().unwrap(),
        known: true,
        balance: Balance::RoundRobin,
        shares: Shares::new(weights.iter().copied()),
        outlier: Some(outlier),
        terms,
        endpoints,
    }
}

fn answered(status: u16) -> Option<Outcome> {
    Some(Outcome::Responded { status: StatusCode::from_u16(status).unwrap(), grpc_status: None })
}

/// Two failures of an endpoint.
fn fail(worker: &Worker, cluster: &ClusterTarget, at: usize) {
    for _ in 0..2 {
        observe(worker, &cluster.endpoints[at], cluster, answered(503), Instant::now());
    }
}

/// Which endpoint a request goes to.
fn chosen(worker: &Worker, cluster: &ClusterTarget, tried: &Tried) -> usize {
    let (endpoint, _in_flight) = choose(worker, cluster, tried).unwrap_or_else(|refusal| panic!("{refusal}"));
    position(cluster, &endpoint)
}

fn position(cluster: &ClusterTarget, endpoint: &Arc<EndpointTarget>) -> usize {
    cluster.endpoints.iter().position(|known| Arc::ptr_eq(known, endpoint)).unwrap()
}

fn tried(cluster: &ClusterTarget, tried: &[usize]) -> Tried {
    let mut all = Tried::default();
    tried.iter().for_each(|at| all.add(&cluster.endpoints[*at]));
    all
}

#[test]
fn an_ejected_endpoint_gets_no_request() {
    Worker::run_test(async |worker| {
        let cluster = cluster(&[1, 1, 1, 0], LONG);
        fail(&worker, &cluster, 1);
        fail(&worker, &cluster, 3); // it cannot be chosen, so it counts for nothing
        let seen = (0..99).map(|_| chosen(&worker, &cluster, &Tried::default()));
        let count = seen.fold([0; 4], |mut count, at| {
            count[at] += 1;
            count
        });
        assert!(count[1] == 0 && count[3] == 0 && count[0] > 20 && count[2] > 20, "{count:?}");
        fail(&worker, &cluster, 2);
        assert!(!cluster.endpoints[2].live.is_out.load(Ordering::Relaxed), "one of three is the maximum");
    });
}

#[test]
fn a_retry_takes_another_endpoint_and_the_ejected_one_last() {
    Worker::run_test(async |worker| {
        let cluster = cluster(&[1, 1, 1, 0], LONG);
        fail(&worker, &cluster, 1);
        for (already, wanted) in [
            (&[0][..], 2),
            (&[2], 0),
            (&[0, 2], 1),
            // All were tried: not the one that failed last.
            (&[0, 1, 2], 0),
            (&[2, 1, 0], 2),
        ] {
            for _ in 0..20 {
                let at = chosen(&worker, &cluster, &tried(&cluster, already));
                assert_eq!(at, wanted, "after {already:?}");
            }
        }
    });
}

#[test]
fn one_request_probes_an_ejected_endpoint_and_decides() {
    Worker::run_test(async |worker| {
        let cluster = cluster(&[1, 1], Duration::from_nanos(1));
        let none = Tried::default();
        let shown = || cluster.terms.live.outliers.shown(&cluster.endpoints[1].live).standing;
        fail(&worker, &cluster, 1);
        assert_eq!(chosen(&worker, &cluster, &tried(&cluster, &[1])), 0, "not by who tried it already");

        let (probed, probe) = choose(&worker, &cluster, &none).ok().unwrap();
        assert_eq!((position(&cluster, &probed), chosen(&worker, &cluster, &none)), (1, 0), "by one");
        drop(probe);
        assert!(matches!(shown(), Standing::Out { .. }), "its client went away: {:?}", shown());

        let (probed, _probe) = choose(&worker, &cluster, &none).ok().unwrap();
        let began = Instant::now();
        assert_eq!(position(&cluster, &probed), 1, "so another one probes");
        observe(&worker, &probed, &cluster, None, began);
        assert!(matches!(shown(), Standing::Probing { .. }), "nothing came of it yet");
        observe(&worker, &probed, &cluster, answered(503), began);
        assert!(matches!(shown(), Standing::Out { .. }), "it failed");

        let (probed, probe) = choose(&worker, &cluster, &none).ok().unwrap();
        observe(&worker, &probed, &cluster, answered(200), Instant::now());
        drop(probe);
        assert_eq!(shown(), Standing::In);
        let all: Vec<_> = (0..4).map(|_| chosen(&worker, &cluster, &none)).collect();
        assert!(all.contains(&0) && all.contains(&1), "{all:?}");
    });
}

#[test]
fn only_what_the_detection_asks_for_is_kept_of_an_endpoint() {
    Worker::run_test(async |worker| {
        let cluster = cluster(&[1, 1], LONG);
        let to = &cluster.endpoints[0];
        let is_suspect = || to.live.is_suspect.load(Ordering::Relaxed);
        for (what, outcome, wanted) in [
            ("an error of the app", answered(500), false),
            ("a refusal of ours", None, false),
            ("a failure", Some(Outcome::NotDelivered(NotDelivered::ConnectFailure)), true),
            ("nothing known", None, true),
            ("a success", answered(200), false),
        ] {
            observe(&worker, to, &cluster, outcome, Instant::now());
            assert_eq!(is_suspect(), wanted, "{what}");
        }
        observe_connect(&worker, to, &cluster, false, Instant::now());
        assert!(is_suspect(), "an opaque connection that does not come about");
        observe_connect(&worker, to, &cluster, false, Instant::now());
        assert!(to.live.is_out.load(Ordering::Relaxed), "and one more");
    });
}
