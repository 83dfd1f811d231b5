//! What decisions cost as tables and clusters grow: nanoseconds a call, and the ratio to the small case.
//! `cargo bench -p gauze-model`; ratios are comparable between machines, times are not.
#![allow(clippy::disallowed_methods)] // a bench reads the clock

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gauze_model::SpiffeId;
use gauze_model::authorization::Action::{Allow, Deny};
use gauze_model::authorization::{Call, Http, Operation, Policy, Rule, Source, judge};
use gauze_model::balance::{Load, Shares, pick};
use gauze_model::cluster::Balance;
use gauze_model::framing::{HeadScan, Limits, request_head};
use gauze_model::origin::Origin;
use gauze_model::route::{Action, Filters, PathMatch, RequestHead, RouteMatch, RouteRule, RouteTable, route};
use http::{HeaderMap, Method, StatusCode};

/// Long enough to be steady, short enough to be run often.
const RUN: Duration = Duration::from_millis(200);

fn main() {
    compare("route by exact path", [10, 10_000], |rules| route_lookup(rules, PathMatch::Exact));
    compare("route by prefix", [10, 10_000], |rules| route_lookup(rules, PathMatch::Prefix));
    compare("judge, the last allows", [1, 20], judge_call);
    compare("read a request head", [8, 80], read_head);
    for (what, balance) in [
        ("pick by peak-EWMA", Balance::default()),
        ("pick by least request", Balance::LeastRequest),
        ("pick by round robin", Balance::RoundRobin),
        ("pick at random", Balance::Random),
    ] {
        compare(what, [10, 1_000], |endpoints| pick_among(endpoints, balance));
    }
}

/// Prints both sizes side by side. `prepare` makes what is called with a number that differs each time.
fn compare<F: FnMut(u32)>(what: &str, sizes: [usize; 2], mut prepare: impl FnMut(usize) -> F) {
    let [small, large] = sizes.map(|size| nanoseconds(prepare(size)));
    let [few, many] = sizes;
    println!("{what:22} {few:>6}: {small:6.1} ns   {many:>6}: {large:6.1} ns   ratio {:.2}", large / small);
}

fn nanoseconds(mut call: impl FnMut(u32)) -> f64 {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < RUN {
        for _ in 0..1_000 {
            calls += 1;
            call(calls.wrapping_mul(0x9e37_79b9)); // far from its neighbours
        }
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn route_lookup(rules: usize, path: fn(String) -> PathMatch) -> impl FnMut(u32) {
    let paths: Vec<String> = (0..rules).map(|at| format!("/api/v1/resource-{at}")).collect();
    let rule = |text: &String| RouteRule {
        origin: Origin::default(),
        matches: RouteMatch { path: path(text.clone()), ..RouteMatch::default() },
        filters: Filters::default(),
        action: Action::Respond(StatusCode::OK),
        retry: Default::default(),
        timeouts: Default::default(),
    };
    let rules = paths.iter().map(|text| (Vec::new(), rule(text)));
    let table: RouteTable = RouteTable::new(Origin::default(), rules.collect());
    let (method, headers) = (Method::GET, HeaderMap::new());
    move |draw| {
        let path = &paths[draw as usize % paths.len()];
        let head =
            RequestHead { method: &method, authority: "cart.shop", path, query: None, headers: &headers };
        assert!(black_box(route(black_box(&table), &head, &mut ())).is_some());
    }
}

/// So many policies, of which the last ALLOW lets the call in, as a caller of the mesh makes it.
fn judge_call(policies: usize) -> impl FnMut(u32) {
    let list = |text: String| vec![text.parse().expect("a pattern")];
    let policy = |at: usize| {
        let from = Source { identities: list(format!("*/sa/app-{at}")), ..Source::default() };
        let to = Operation { paths: list(format!("/api/v{at}/*")), ..Operation::default() };
        let rules = vec![Rule { from: vec![from], to: vec![to] }];
        let action = if at % 4 == 1 { Deny } else { Allow };
        Policy { origin: Origin::default(), action, ports: None, rules, broken: false }
    };
    let last = policies * 4; // an ALLOW
    let policies: Vec<Policy> = (1..policies).chain([last]).map(policy).collect();
    let peer = SpiffeId::new("cluster.local", "shop", format!("app-{last}"));
    let path = format!("/api/v{last}/items/42");
    move |_| {
        let http = Some(Http { method: "GET", path: &path });
        let call = Call { peer: Some(&peer), trust_domain: "cluster.local", port: 8080, http };
        assert!(judge(black_box(&policies), &call).is_allowed());
    }
}

/// A head of so many fields, found and read as a connection does it.
fn read_head(fields: usize) -> impl FnMut(u32) {
    let field = |at: usize| format!("x-header-{at}: some value of usual length\r\n");
    let fields: String = (1..fields).map(field).collect();
    let bytes = Bytes::from(format!("GET /api/v1/items?q=1 HTTP/1.1\r\nhost: cart.shop\r\n{fields}\r\n"));
    let limits = Limits::default();
    move |_| {
        let end = HeadScan::of_request().end(black_box(&bytes), &limits);
        let Ok(Some(length)) = end else { panic!("the head is whole: {end:?}") };
        assert!(black_box(request_head(bytes.slice(..length), &limits)).is_ok());
    }
}

fn pick_among(endpoints: usize, balance: Balance) -> impl FnMut(u32) {
    let shares = Shares::new(vec![1; endpoints]);
    let loads: Vec<_> = (0..endpoints).map(|at| Load { in_flight: at as u32 % 7, seconds: 0.001 }).collect();
    move |draw| {
        let draws = [draw, draw.rotate_left(16)];
        black_box(pick(black_box(&balance), &shares, |_| true, |at| loads[at], draws, draw));
    }
}
