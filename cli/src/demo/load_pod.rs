//! The shop's load as a pod of a cluster: it calls web at a fixed rate and keeps a ledger of what became of its
//! requests, which it tells over HTTP and, when it ends, on stdout. `gauze demo-ledger`, run inside the pod, reads the
//! ledger and orders rate and run: no port of the mesh has to let anybody in for that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::load::{Load, Tally};
use super::{client, signals};
use crate::admin::Endpoint;
use crate::exit::Exit;

/// Whom the load calls, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whom it calls: HOST:PORT; the host is also the name in the request
    #[arg(long, value_parser = client::parse_address)]
    target: String,
    /// Requests per second; 0 until somebody asks for more
    #[arg(long, default_value_t = 20, value_parser = parse_rate())]
    rate: u32,
    /// Outstanding requests at which the next one waits; without it none does
    #[arg(long)]
    at_once: Option<u64>,
    /// Makes the mix of protocols repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where it tells its ledger
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// What is asked of the app or load in this pod.
#[derive(clap::Args)]
pub(crate) struct Ledger {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8080")]
    at: SocketAddr,
    /// From now on the load sends so many requests per second
    #[arg(long, value_parser = parse_rate())]
    rate: Option<u32>,
    /// From now on the load's requests belong to this run; ledgers count by it
    #[arg(long)]
    run: Option<String>,
    /// Wait until so many of this run's requests have ended
    #[arg(long, requires = "run")]
    requests: Option<u64>,
}

fn parse_rate() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=100_000)
}

/// The run to which requests belong before anybody names one.
const FIRST_RUN: &str = "load";
/// How long the load waits for its last answers when it is told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What became of the requests of one run.
#[derive(Debug, PartialEq, Serialize)]
struct Account {
    sent: u64,
    answered: u64,
    failed: u64,
    /// Sent, and without an answer so far.
    open: u64,
    /// How often each failure was seen.
    reasons: BTreeMap<String, u64>,
    /// How many answers came from each pod.
    pods: BTreeMap<String, u64>,
}

impl Account {
    fn of(tally: &Tally) -> Account {
        Account {
            sent: tally.sent,
            answered: tally.by_protocol.values().map(|outcomes| outcomes.answered).sum(),
            failed: tally.failed,
            open: tally.in_flight(),
            reasons: tally.reasons.clone(),
            pods: tally.pods.clone(),
        }
    }
}

/// Sends until the process is told to stop.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let told_to_stop = signals::told_to_stop()?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    println!("{}", serde_json::json!({ "listening": { "load": [listener.local_addr()?] } }));
    let authority = arguments.target.rsplit_once(':').map_or("", |(host, _)| host);
    let load = Load::start(&arguments.target, authority, arguments.rate, arguments.seed, FIRST_RUN);
    if let Some(requests) = arguments.at_once {
        load.set_at_once(requests);
    }
    let load = Arc::new(load);
    tokio::select! {
        () = accept(listener, load.clone()) => {}
        () = told_to_stop => {}
    }
    load.set_rate(0);
    let end = Instant::now() + LAST_ANSWERS;
    while Instant::now() < end && load.tallies().values().any(|tally| tally.in_flight() > 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{}", accounts(&load));
    Ok(Exit::Fine)
}

async fn accept(listener: TcpListener, load: Arc<Load>) {
    loop {
        // A failed accept concerns one caller, who sees it; the next one is welcome.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, load.clone()));
        }
    }
}

async fn serve(stream: TcpStream, load: Arc<Load>) {
    let service = service_fn(move |request| {
        let (status, text) = answer(&load, &request);
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        std::future::ready(Ok::<_, Infallible>(response))
    });
    // A connection that breaks concerns its caller, who sees it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(load: &Load, request: &Request<Incoming>) -> (StatusCode, String) {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/ledger") => (StatusCode::OK, accounts(load)),
        (&Method::GET, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::POST, "/load") => match order(load, request.uri().query().unwrap_or_default()) {
            Ok(()) => (StatusCode::OK, accounts(load)),
            Err(problem) => (StatusCode::BAD_REQUEST, problem),
        },
        _ => (
            StatusCode::NOT_FOUND,
            "there is GET /ledger, GET /healthz, POST /load?rate=N&run=NAME\n".to_owned(),
        ),
    }
}

/// Changes what `rate=N&run=NAME` says.
fn order(load: &Load, query: &str) -> Result<(), String> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("rate", rate)) => {
                load.set_rate(rate.parse().map_err(|_| format!("`{rate}` is no rate\n"))?)
            }
            Some(("run", run)) => load.begin(run),
            _ => return Err(format!("`{pair}` is neither rate=N nor run=NAME\n")),
        }
    }
    Ok(())
}

fn accounts(load: &Load) -> String {
    let accounts: BTreeMap<String, Account> =
        load.tallies().iter().map(|(run, tally)| (run.clone(), Account::of(tally))).collect();
    serde_json::to_string(&accounts).unwrap_or_default()
}

/// Prints the ledger of this pod's app or load, after an order if there is one.
pub(crate) async fn ledger(arguments: Ledger) -> anyhow::Result<Exit> {
    let endpoint = Endpoint::Tcp(arguments.at);
    let rate = arguments.rate.map(|rate| format!("rate={rate}"));
    let run = arguments.run.as_ref().map(|run| format!("run={run}"));
    // The run first: what is sent at a new rate belongs to it.
    let orders: Vec<String> = run.into_iter().chain(rate).collect();
    let text = match orders.as_slice() {
        [] => endpoint.get("/ledger").await?,
        orders => endpoint.post(&format!("/load?{}", orders.join("&"))).await?,
    };
    let text = match (arguments.run, arguments.requests) {
        (Some(run), Some(requests)) => after(&endpoint, &run, requests).await?,
        _ => text,
    };
    println!("{text}");
    Ok(Exit::Fine)
}

/// The ledger as soon as so many requests of the run have ended.
async fn after(endpoint: &Endpoint, run: &str, requests: u64) -> anyhow::Result<String> {
    loop {
        let ledger = endpoint.get_json("/ledger").await?;
        let ended = ["answered", "failed"].map(|field| ledger[run][field].as_u64().unwrap_or_default());
        if ended.iter().sum::<u64>() >= requests {
            return Ok(ledger.to_string());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How often the load is asked whether so many requests have ended.
const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ledger_says_what_became_of_each_runs_requests() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let load = Arc::new(Load::start(nobody, "web", 0, 1, FIRST_RUN));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        tokio::spawn(accept(listener, load.clone()));
        assert_eq!(endpoint.get_json("/ledger").await.unwrap(), serde_json::json!({}));
        endpoint.post("/load?run=upgrade&rate=1000").await.unwrap();
        let ledger = after(&endpoint, "upgrade", 3).await.unwrap();
        assert!(ledger.contains("upgrade"), "{ledger}");
        endpoint.post("/load?rate=0").await.unwrap();
        while load.tally("upgrade").in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        let ledger = endpoint.get_json("/ledger").await.unwrap();
        assert_eq!(ledger["load"], serde_json::Value::Null);
        assert_eq!(
            (&ledger["upgrade"]["sent"], &ledger["upgrade"]["open"]),
            (&ledger["upgrade"]["failed"], &0.into())
        );
        let reasons = ledger["upgrade"]["reasons"].as_object().unwrap();
        assert!(
            reasons.keys().all(|reason| reason.ends_with("cannot connect: connection refused")),
            "{reasons:?}"
        );
    }

    #[tokio::test]
    async fn an_order_that_makes_no_sense_is_refused_with_what_was_wrong() {
        let load = Load::start("127.0.0.1:1", "web", 0, 1, FIRST_RUN);
        for (query, expected) in [
            ("rate=many", Err("`many` is no rate\n".to_owned())),
            ("speed=3", Err("`speed=3` is neither rate=N nor run=NAME\n".to_owned())),
            ("run=a&rate=5", Ok(())),
            ("", Ok(())),
        ] {
            assert_eq!(order(&load, query), expected, "{query}");
        }
        assert_eq!(load.rate(), 5);
    }
}
