//! What the tests run in pods of a cluster: `app` answers, `load` calls. Both end on SIGTERM. Their ledgers are files
//! of the node, so that they outlive the pods.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use gauze_tests::client::{Protocol, call};
use gauze_tests::load::{Callee, Load, MIXED, Outcome};
use gauze_tests::record::Record;
use gauze_tests::server::{Open, Server};
use tokio::net::{TcpListener, lookup_host};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

#[derive(Parser)]
enum Arguments {
    App(App),
    Load(Caller),
}

#[derive(clap::Args)]
struct App {
    /// What it calls itself in its answers.
    #[arg(long)]
    name: String,
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// How long it thinks before it answers a request, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// It does not finish what it holds.
    #[arg(long)]
    abrupt: bool,
}

#[derive(clap::Args)]
struct Caller {
    /// What its requests are called.
    #[arg(long)]
    name: String,
    #[arg(long)]
    ledger: PathBuf,
    /// HOST:PORT of the app's requests.
    #[arg(long)]
    requests: String,
    /// HOST:PORT of the app's lines.
    #[arg(long)]
    lines: String,
    /// Requests a second, in all manners together.
    #[arg(long)]
    rate: u32,
}

/// How often a load writes down what it has heard.
const WRITES: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut told = signal(SignalKind::terminate())?;
    let told = async move {
        told.recv().await;
    };
    match Arguments::parse() {
        Arguments::App(arguments) => app(arguments, told).await,
        Arguments::Load(arguments) => load(arguments, told).await,
    }
}

async fn app(arguments: App, told: impl Future<Output = ()>) -> anyhow::Result<()> {
    let server = Server::new(&arguments.name, &arguments.ledger, Duration::from_millis(arguments.delay));
    let mut listening = JoinSet::new();
    let (end, ended) = tokio::sync::watch::channel(false);
    for address in arguments.listen {
        let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
        let (server, mut ended) = (server.clone(), ended.clone());
        listening.spawn(async move {
            let mut open = Open::default();
            tokio::select! {
                () = server.accept(&listener, &mut open) => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
            server.close(listener, &mut open);
            open.end().await;
        });
    }
    told.await;
    if arguments.abrupt {
        return Ok(());
    }
    end.send_replace(true);
    while listening.join_next().await.is_some() {}
    Ok(())
}

async fn load(arguments: Caller, told: impl Future<Output = ()>) -> anyhow::Result<()> {
    let callee = Callee {
        requests: resolve(&arguments.requests).await?,
        lines: resolve(&arguments.lines).await?,
        host: arguments.requests.clone(),
    };
    for (protocol, address) in [(Protocol::Http1, callee.requests), (Protocol::Opaque, callee.lines)] {
        until_answered(protocol, address, &callee.host).await;
    }
    let mut ledger = File::options().create(true).append(true).open(&arguments.ledger)?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let load = Load::start_as(&MIXED, &arguments.name, &callee, arguments.rate);
    let mut told = std::pin::pin!(told);
    loop {
        tokio::select! {
            () = tokio::time::sleep(WRITES) => write(&mut ledger, &load.take(), began)?,
            () = &mut told => break,
        }
    }
    let report = load.finish().await;
    write(&mut ledger, &report.outcomes, began)?;
    println!("ended");
    Ok(())
}

/// What comes before the first answer is not the load's.
async fn until_answered(protocol: Protocol, address: SocketAddr, host: &str) {
    loop {
        let answer = call(protocol, address, host, "/", "").await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        tokio::time::sleep(WRITES).await;
    }
}

async fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = lookup_host(host).await.with_context(|| host.to_owned())?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

fn write(ledger: &mut File, outcomes: &[Outcome], began: Duration) -> anyhow::Result<()> {
    let records = outcomes.iter().map(|outcome| Record::of(outcome, began).line());
    ledger.write_all(records.collect::<String>().as_bytes())?;
    Ok(())
}
