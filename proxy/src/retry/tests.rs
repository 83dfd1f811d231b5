//! Requests over loopback sockets, against an endpoint that follows a script: each connection that it accepts
//! takes one request, hears it out, and does what comes next.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};

use gauze_model::Code;
use gauze_model::budget::RetryBudget;
use gauze_model::cluster::Cluster;
use gauze_model::retry::{BackOff, Conditions, GrpcStatuses, StatusSet, Unanswered};
use http::{Method, Request};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::replay::Replay;
use super::*;
use crate::access_log::AccessLog;
use crate::interim::Interim;
use crate::metrics::Protocol;
use crate::record::Record;
use crate::refusal::Reader;
use crate::target::tests::target_of;
use crate::target::{HttpRoute, Limited};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BUSY_FOR_LONG: &str =
    "HTTP/1.1 503 No\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const LIAR: &str =
    "HTTP/1.1 503 No\r\ngauze-not-delivered: true\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const CALL_FAILED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\n\
                           Content-Length: 0\r\nConnection: close\r\n\r\n";
const CALL_FAILED_IN_TRAILERS: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n\
                                       Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                                       0\r\ngrpc-status: 14\r\n\r\n";

/// What an endpoint does with a request that it has heard.
#[derive(Clone, Copy, Debug)]
enum Then {
    Says(&'static str),
    /// And leaves the connection open.
    Begins(&'static str),
    Closes,
    Hangs,
}

/// Listens, and does one thing after the other; what it heard.
async fn endpoint(script: &[Then]) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Rc::new(RefCell::new(Vec::new())));
    let (script, hears) = (script.to_vec(), Rc::clone(&heard));
    tokio::task::spawn_local(async move {
        let mut hanging = Vec::new();
        for then in script {
            let mut connection = listener.accept().await.unwrap().0;
            let body = hear(&mut connection).await;
            hears.borrow_mut().push(body);
            match then {
                Then::Says(text) => connection.write_all(text.as_bytes()).await.unwrap(),
                Then::Begins(text) => {
                    connection.write_all(text.as_bytes()).await.unwrap();
                    hanging.push(connection);
                }
                Then::Closes => drop(connection),
                Then::Hangs => hanging.push(connection),
            }
        }
        std::future::pending::<()>().await;
    });
    (address, heard)
}

/// An address where nothing listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// Reads a request to the end of its body, which it returns; chunks as they stand.
async fn hear(connection: &mut TcpStream) -> String {
    let mut heard = String::new();
    loop {
        let ended = heard.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            match head.to_ascii_lowercase().split("content-length: ").nth(1) {
                Some(length) => body.len() >= length.lines().next().unwrap().parse().unwrap(),
                None if head.to_ascii_lowercase().contains("chunked") => body.ends_with("0\r\n\r\n"),
                None => true,
            }
        });
        if ended {
            return heard.split_once("\r\n\r\n").unwrap().1.to_owned();
        }
        let mut buffer = [0; 4096];
        let read = connection.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the connection ended inside {heard:?}");
        heard += std::str::from_utf8(&buffer[..read]).unwrap();
    }
}

/// A rule to a cluster of these endpoints.
fn rule(endpoints: &[SocketAddr], retry: RetryPolicy, timeouts: Timeouts) -> RouteRule {
    let budget = RetryBudget { percent: 0, min_per_second: 1, interval: Duration::from_secs(3) };
    let target = target_of(Cluster { retry_budget: budget, ..Cluster::default() }, endpoints);
    let HttpRoute::Pod(rule) = &target.http else { panic!("straight to the cluster") };
    RouteRule { retry: Arc::new(retry), timeouts, ..(**rule).clone() }
}

/// What became of a request, as its client and its log line see it.
#[derive(Debug, PartialEq, Eq)]
struct Became {
    answer: Result<u16, Code>,
    retries: u32,
}

fn became(answer: Result<u16, Code>, retries: u32) -> Became {
    Became { answer, retries }
}

async fn carry(worker: &Rc<Worker>, rule: &RouteRule, request: Request<Body>) -> Became {
    carry_noting(worker, rule, request, &Interim::default()).await
}

async fn carry_noting(
    worker: &Rc<Worker>,
    rule: &RouteRule,
    request: Request<Body>,
    interim: &Interim,
) -> Became {
    let (head, body) = request.into_parts();
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let edge = Arc::clone(&worker.nowhere);
    let record = Record::request(&AccessLog::off(), edge, Protocol::Http1, nowhere, nowhere, &head);
    let mut exchange = Exchange::new(record, Reader::of(&head.headers), interim, Duration::from_secs(60));
    exchange.must_end_within(rule.timeouts.request, &head.headers);
    let mut sending = exchange.sending(head, Replay::for_retries(body, &rule.retry));
    let cluster = &rule.action.backends()[0].cluster;
    let done = until_done(worker, cluster, rule, &mut sending, &mut exchange).await;
    let answer = done.map(|done| done.response.status().as_u16()).map_err(|refusal| refusal.code);
    Became { answer, retries: exchange.retries() }
}

fn post(body: Body) -> Request<Body> {
    Request::post("http://cart/items").body(body).unwrap()
}

fn call() -> Request<Body> {
    let mut request = post(Body::full("call"));
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

/// A body that streams, without a declared length.
fn streaming(pieces: &[&'static str]) -> Body {
    let frames = pieces.iter().rev().map(|piece| http_body::Frame::data((*piece).into()));
    frames.fold(Body::Empty, |rest, frame| Body::Ahead(Box::new((frame, rest))))
}

/// The default, with short waits.
fn policy() -> RetryPolicy {
    let moment = Duration::from_millis(1);
    RetryPolicy {
        back_off: BackOff { base: moment, max: moment, ..BackOff::default() },
        ..RetryPolicy::default()
    }
}

fn on(conditions: Conditions) -> RetryPolicy {
    RetryPolicy { on: conditions, ..policy() }
}

#[test]
fn what_may_have_been_executed_is_tried_again_only_where_the_policy_says_so() {
    use Then::{Closes, Hangs, Says};
    let statuses = on(Conditions { statuses: StatusSet::gateway_errors(), ..Conditions::default() });
    let always = on(Conditions { unanswered: Unanswered::Always, ..Conditions::default() });
    let grpc = GrpcStatuses::of_word("unavailable").unwrap();
    let grpc = on(Conditions { grpc, ..Conditions::default() });
    let none = RetryPolicy { retries: 0, ..statuses.clone() };
    let small = RetryPolicy { replay_limit: 3, ..statuses.clone() };
    let streams = || post(streaming(&["it", "ems"]));
    let whole = || post(Body::full("items"));
    let (once, chunks) = (vec!["items"], "2\r\nit\r\n3\r\nems\r\n0\r\n\r\n");
    for (what, script, policy, request, wanted, heard) in [
        ("a success", vec![Says(OK)], policy(), whole(), became(Ok(200), 0), once.clone()),
        ("503 by default", vec![Says(BUSY)], policy(), whole(), became(Ok(503), 0), once.clone()),
        (
            "a reset by default",
            vec![Closes],
            policy(),
            whole(),
            became(Err(Code::UPSTREAM_RESET), 0),
            once.clone(),
        ),
        (
            "a plain endpoint that says that it did not deliver",
            vec![Says(LIAR)],
            policy(),
            whole(),
            became(Ok(503), 0),
            once.clone(),
        ),
        (
            "503 where it is named",
            vec![Says(BUSY), Says(OK)],
            statuses.clone(),
            whole(),
            became(Ok(200), 1),
            vec!["items"; 2],
        ),
        ("and no retries are allowed", vec![Says(BUSY)], none, whole(), became(Ok(503), 0), once.clone()),
        (
            "as often as allowed",
            vec![Says(BUSY); 3],
            statuses.clone(),
            whole(),
            became(Ok(503), 2),
            vec!["items"; 3],
        ),
        (
            "a wait that is too long",
            vec![Says(BUSY_FOR_LONG)],
            statuses.clone(),
            whole(),
            became(Ok(503), 0),
            once.clone(),
        ),
        (
            "a reset where it is named",
            vec![Closes, Says(OK)],
            always.clone(),
            whole(),
            became(Ok(200), 1),
            vec!["items"; 2],
        ),
        (
            "a body that streams, whose length is known by then",
            vec![Says(BUSY), Says(OK)],
            statuses,
            streams(),
            became(Ok(200), 1),
            vec![chunks, "items"],
        ),
        (
            "a body that is longer than what is kept",
            vec![Says(BUSY)],
            small,
            streams(),
            became(Ok(503), 0),
            vec![chunks],
        ),
        (
            "a call that failed",
            vec![Says(CALL_FAILED), Says(OK)],
            grpc.clone(),
            call(),
            became(Ok(200), 1),
            vec!["call"; 2],
        ),
        (
            "a call that failed in trailers",
            vec![Says(CALL_FAILED_IN_TRAILERS), Says(OK)],
            grpc,
            call(),
            became(Ok(200), 1),
            vec!["call"; 2],
        ),
        (
            "a call that failed by default",
            vec![Says(CALL_FAILED)],
            policy(),
            call(),
            became(Ok(200), 0),
            vec!["call"],
        ),
        (
            "a try that takes too long",
            vec![Hangs, Says(OK)],
            always,
            whole(),
            became(Ok(200), 1),
            vec!["items"; 2],
        ),
        ("such a try by default", vec![Hangs], policy(), whole(), became(Err(Code::TRY_TIMEOUT), 0), once),
    ] {
        Worker::run_test(async |worker| {
            let (address, hears) = endpoint(&script).await;
            // Long enough for an answer on a slow machine, where one is to come.
            let per_try = Duration::from_millis(if script.iter().any(|then| matches!(then, Hangs)) {
                500
            } else {
                60_000
            });
            let rule = rule(&[address], policy, Timeouts { per_try: Some(per_try), ..Timeouts::default() });
            assert_eq!(carry(&worker, &rule, request).await, wanted, "{what}");
            let normal = |text: &str| text.replace("2\r\nit\r\n3\r\nems\r\n", "5\r\nitems\r\n");
            let hears: Vec<_> = hears.borrow().iter().map(|text| normal(text)).collect();
            let heard: Vec<_> = heard.iter().map(|text| normal(text)).collect();
            assert_eq!(hears, heard, "{what}");
        });
    }
}

#[test]
fn what_came_before_a_response_that_is_tried_again_stays_passed_on() {
    const FIRST: &str = "HTTP/1.1 103 Early Hints\r\nlink: 1\r\n\r\n";
    const FIRST_AND_BUSY: &str = "HTTP/1.1 103 Early Hints\r\nlink: 1\r\n\r\n\
                                  HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const SECOND_AND_OK: &str = "HTTP/1.1 103 Early Hints\r\nlink: 2\r\n\r\n\
                                 HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let statuses = on(Conditions { statuses: StatusSet::gateway_errors(), ..Conditions::default() });
    let always = on(Conditions { unanswered: Unanswered::Always, ..Conditions::default() });
    let soon = Timeouts { per_try: Some(Duration::from_millis(500)), ..Timeouts::default() };
    for (what, first, policy, timeouts) in [
        ("an answer", Then::Says(FIRST_AND_BUSY), statuses, Timeouts::default()),
        ("a reset", Then::Says(FIRST), always.clone(), Timeouts::default()),
        ("a try that takes too long", Then::Begins(FIRST), always, soon),
    ] {
        Worker::run_test(async |worker| {
            let (address, _) = endpoint(&[first, Then::Says(SECOND_AND_OK)]).await;
            let (rule, interim) = (rule(&[address], policy, timeouts), Interim::default());
            let became = carry_noting(&worker, &rule, post(Body::full("items")), &interim).await;
            assert_eq!(became, self::became(Ok(200), 1), "{what}");
            let links = std::iter::from_fn(|| interim.take()).map(|hint| hint.headers()["link"].clone());
            assert_eq!(links.collect::<Vec<_>>(), ["1", "2"], "{what}");
        });
    }
}

/// 102 says no more than that (RFC 2518, 10.1).
#[test]
fn a_server_that_sends_interim_responses_is_not_silent() {
    Worker::run_test(async |worker| {
        let head = post(Body::Empty).into_parts().0;
        let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let edge = Arc::clone(&worker.nowhere);
        let record = Record::request(&AccessLog::off(), edge, Protocol::Http1, nowhere, nowhere, &head);
        let interim = Interim::default();
        let exchange = Exchange::new(record, Reader::Http, &interim, Duration::from_millis(1));
        let mut polls = 0;
        let processing = std::future::poll_fn(|_| {
            let processing = http::Response::builder().status(102).body(()).unwrap();
            interim.note(processing);
            polls += 1;
            if polls < 6 { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
        });
        exchange.in_time(None, processing).await.unwrap();
        let silent = exchange.in_time(None, std::future::pending::<Result<(), Refusal>>()).await;
        assert_eq!(silent.unwrap_err().code, Code::REQUEST_IDLE);
    });
}

#[test]
fn what_was_not_delivered_goes_to_another_endpoint_with_its_whole_body() {
    Worker::run_test(async |worker| {
        let (address, heard) = endpoint(&[Then::Says(OK); 4]).await;
        let rule = rule(&[nobody().await, address], policy(), Timeouts::default());
        let mut retries = 0;
        for _ in 0..4 {
            let became = carry(&worker, &rule, post(streaming(&["items"]))).await;
            assert_eq!(became.answer, Ok(200));
            retries += became.retries;
        }
        assert_eq!(*heard.borrow(), ["5\r\nitems\r\n0\r\n\r\n"; 4]);
        assert!((1..=3).contains(&retries), "{retries}: a retry takes the other endpoint");
    });
}

#[test]
fn a_try_whose_time_ends_before_it_has_a_connection_was_not_delivered() {
    Worker::run_test(async |worker| {
        let per_try = Timeouts { per_try: Some(Duration::from_millis(5)), ..Timeouts::default() };
        let rule = rule(&[nobody().await], policy(), per_try);
        let terms = &rule.action.backends()[0].cluster.terms;
        let _all: Vec<_> = std::iter::from_fn(|| terms.take(Limited::Connections).ok()).collect();
        let became = carry(&worker, &rule, post(streaming(&["items"]))).await;
        assert_eq!(became, self::became(Err(Code::TRY_TIMEOUT), 2));
    });
}

#[test]
fn the_budget_of_the_cluster_ends_retries() {
    Worker::run_test(async |worker| {
        let rule = rule(&[nobody().await], RetryPolicy { retries: 9, ..policy() }, Timeouts::default());
        let request = || Request::get("http://cart/").body(Body::Empty).unwrap();
        let refused = Err(Code::CONNECT_FAILED);
        // One a second over three seconds, and nothing for requests.
        assert_eq!(carry(&worker, &rule, request()).await, became(refused, 3));
        assert_eq!(carry(&worker, &rule, request()).await.answer, refused);
    });
}

#[test]
fn a_request_has_one_deadline_whatever_is_tried() {
    let timeouts = |request| Timeouts { request, ..Timeouts::default() };
    let always = on(Conditions { unanswered: Unanswered::Always, ..Conditions::default() });
    let short = Some(Duration::from_millis(50));
    let mut brings_one = call();
    brings_one.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let mut of_route = call();
    of_route.headers_mut().insert("grpc-timeout", "50S".parse().unwrap());
    for (what, route, request, wanted) in [
        ("the route's", short, post(Body::Empty), Code::REQUEST_TIMEOUT),
        ("the call's", None, brings_one, Code::CALL_DEADLINE),
        ("the earlier", short, of_route, Code::REQUEST_TIMEOUT),
    ] {
        Worker::run_test(async |worker| {
            let (address, _) = endpoint(&[Then::Hangs]).await;
            let rule = rule(&[address], always.clone(), timeouts(route));
            assert_eq!(carry(&worker, &rule, request).await, became(Err(wanted), 0), "{what}");
        });
    }
}

/// The client has sent half of its body when the first endpoint fails: the second gets the whole of it.
#[test]
fn a_retry_begins_from_the_start_while_the_client_goes_on() {
    Worker::run_test(async |worker| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let always = on(Conditions { unanswered: Unanswered::Always, ..Conditions::default() });
        let rule = rule(&[listener.local_addr().unwrap()], always, Timeouts::default());
        let (failed, mut has_failed) = mpsc::channel(1);
        let server = async {
            let mut first = listener.accept().await.unwrap().0;
            let mut heard = String::new();
            while !heard.ends_with("half") {
                heard.push(char::from(first.read_u8().await.unwrap()));
            }
            drop(first);
            failed.send(()).await.unwrap();
            let mut second = listener.accept().await.unwrap().0;
            let heard = hear(&mut second).await;
            second.write_all(OK.as_bytes()).await.unwrap();
            heard
        };
        let sockets = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = async {
            let mut client = TcpStream::connect(sockets.local_addr().unwrap()).await.unwrap();
            client
                .write_all(b"POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 10\r\n\r\nhalf")
                .await
                .unwrap();
            has_failed.recv().await.unwrap();
            client.write_all(b"-other").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer.lines().next().map(str::to_owned)
        };
        let proxy = async {
            let stream = crate::stream::Stream::plain(sockets.accept().await.unwrap().0).unwrap();
            let handler = async |request: Request<Body>, _: &Interim| {
                let (mut head, body) = request.into_parts();
                headers::arrive(&mut head, "127.0.0.1:1".parse().unwrap(), || 1).unwrap();
                let became = carry(&worker, &rule, Request::from_parts(head, body)).await;
                assert_eq!(became, self::became(Ok(200), 1));
                http::Response::new(Body::Empty)
            };
            crate::h1::server::serve(stream, Rc::default(), futures_util::stream::pending(), handler).await
        };
        let (heard, answer, served) = tokio::join!(server, client, proxy);
        served.unwrap();
        assert_eq!((heard.as_str(), answer.as_deref()), ("half-other", Some("HTTP/1.1 200 OK")));
    });
}

#[test]
fn the_next_hop_is_told_what_is_left_of_a_calls_deadline() {
    Worker::run_test(async |worker| {
        let head = call().into_parts().0;
        let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let record = Record::request(
            &AccessLog::off(),
            Arc::clone(&worker.nowhere),
            Protocol::Grpc,
            nowhere,
            nowhere,
            &head,
        );
        let interim = Interim::default();
        let mut exchange = Exchange::new(record, Reader::Grpc, &interim, Duration::from_secs(60));
        for (what, brings, route, per_try, most) in [
            ("what it brought", Some("3S"), None, None, Some(3)),
            ("the route's, where it is shorter", Some("3S"), Some(2), None, Some(2)),
            ("the try's, where it is shortest", Some("3S"), Some(2), Some(1), Some(1)),
            ("the route's, where it brought none", None, Some(2), None, Some(2)),
            ("nothing", None, None, None, None),
            ("the try's, where the call's is endless", Some("99999999H"), None, Some(1), Some(1)),
        ] {
            let brought = brings.map(|value| ("grpc-timeout".parse().unwrap(), value.parse().unwrap()));
            let mut headers: HeaderMap = brought.into_iter().collect();
            exchange.must_end_within(route.map(Duration::from_secs), &headers);
            exchange.tell_deadline(per_try.map(Duration::from_secs), &mut headers);
            let told = headers
                .get("grpc-timeout")
                .map(|value| gauze_model::deadline::read_grpc_timeout(value.as_bytes()).unwrap());
            let most = most.map(Duration::from_secs);
            assert_eq!(told.is_some(), most.is_some(), "{what}");
            assert!(
                told <= most && told.is_none_or(|told| told + Duration::from_secs(1) > most.unwrap()),
                "{what}: {told:?}"
            );
        }
    });
}

/// A stream that goes on beyond its deadline is ended: a gRPC client reads why, another sees it break off.
#[test]
fn a_response_ends_at_the_deadline() {
    for (content_type, wanted) in
        [("application/grpc", "grpc-status: 4"), ("text/plain", "the time of the request is over")]
    {
        Worker::run_test(async |worker| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let server = async {
                let mut connection = listener.accept().await.unwrap().0;
                hear(&mut connection).await;
                connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun").await.unwrap();
                connection.read_u8().await.map(drop).unwrap_err(); // until it is given up
            };
            let client = async {
                let mut head = call().into_parts().0;
                head.headers.insert("content-type", content_type.parse().unwrap());
                let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
                let edge = Arc::clone(&worker.nowhere);
                let record =
                    Record::request(&AccessLog::off(), edge, Protocol::Http1, nowhere, nowhere, &head);
                let interim = Interim::default();
                let mut exchange =
                    Exchange::new(record, Reader::of(&head.headers), &interim, Duration::from_secs(60));
                exchange.must_end_within(Some(Duration::from_millis(500)), &head.headers);
                let rule = rule(&[listener.local_addr().unwrap()], policy(), Timeouts::default());
                let cluster = &rule.action.backends()[0].cluster;
                let mut sending = exchange.sending(head, Replay::for_retries(Body::Empty, &rule.retry));
                let done = until_done(&worker, cluster, &rule, &mut sending, &mut exchange).await.unwrap();
                let mut answer = exchange.answer(Ok((done.response, None))).into_body();
                let begun = answer.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(begun, "begun");
                match answer.frame().await.unwrap() {
                    Ok(frame) => format!(
                        "grpc-status: {}",
                        frame.trailers_ref().unwrap()["grpc-status"].to_str().unwrap()
                    ),
                    Err(error) => error.to_string(),
                }
            };
            let (ended, ()) = tokio::join!(client, server);
            assert_eq!(ended, wanted);
        });
    }
}

/// Its client may wait for the head before it says more.
#[test]
fn a_call_that_has_begun_is_not_kept_back_for_trailers_that_may_come() {
    const BEGUN: &str =
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
    Worker::run_test(async |worker| {
        let (address, heard) = endpoint(&[Then::Begins(BEGUN)]).await;
        let grpc = GrpcStatuses::of_word("unavailable").unwrap();
        let policy = on(Conditions { grpc, ..Conditions::default() });
        let rule = rule(&[address], policy, Timeouts::default());
        assert_eq!(carry(&worker, &rule, call()).await, became(Ok(200), 0));
        assert_eq!(*heard.borrow(), ["call"]);
    });
}

#[test]
fn methods_are_looked_at_where_only_idempotent_requests_are_tried_again() {
    for (method, retries) in [(Method::GET, 1), (Method::PUT, 1), (Method::POST, 0), (Method::PATCH, 0)] {
        Worker::run_test(async |worker| {
            let (address, _) = endpoint(&[Then::Closes, Then::Says(OK)]).await;
            let policy = on(Conditions { unanswered: Unanswered::Idempotent, ..Conditions::default() });
            let rule = rule(&[address], policy, Timeouts::default());
            let request =
                Request::builder().method(method.clone()).uri("http://cart/").body(Body::Empty).unwrap();
            assert_eq!(carry(&worker, &rule, request).await.retries, retries, "{method}");
        });
    }
}
