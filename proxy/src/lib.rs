//! The gauze sidecar proxy: it carries all TCP of one pod, encrypted, routed and measured.
//!
//! [`run`] is the life of the process, [`Proxy`] what its threads share. Workers carry traffic; everything
//! else (configuration, certificates, admin, logs) lives on the thread that runs it.
//!
//! The modules, in the order in which a connection meets them, then what stands around the request path:

pub mod listen; // sockets that accept
pub mod worker; // a thread that carries traffic

pub mod authorize; // who may come in
mod caller; // who is at the near end of a connection
mod connection; // the life of an accepted connection
mod detect; // what it speaks
mod serve; // HTTP on it

mod http; // THE REQUEST PATH
mod tcp; // the life of an opaque connection

mod answer; // bodies on their way through
mod balance; // which endpoint
mod connect; // connections to endpoints
mod gather; // what HTTP/2 writes leaves together
mod headers; // headers at the edges of the mesh
pub mod refusal; // a failure made by the proxy
mod retry; // the same request, sent again
mod sending; // a request on its way out
pub mod target; // what the data path reads
pub mod upgrade; // requests that leave HTTP

pub mod body; // what flows: one enum for all message bodies
pub mod h1; // HTTP/1.x on the wire
pub mod http2; // HTTP/2 on the wire
pub mod interim; // responses before the response
pub mod stream; // one connection, plain or mesh TLS
pub mod tls; // mutual TLS inside the mesh

pub mod access_log; // one line for each request
pub mod admin; // what people and probes ask
pub mod ask; // how a program without a shell asks it
pub mod certificates; // who this proxy is
pub mod config; // what the data path knows
pub mod control_plane; // how the control plane is dialled
pub mod drain; // how the proxy goes
pub mod metrics; // every number that the proxy shows
pub mod probe; // kubelet's questions to the app, asked by us
pub mod process; // what the kernel allows this process
pub mod record; // the facts of one request
pub mod redirect; // the init step that brings a pod's TCP here
pub mod self_check; // whether the redirect rules are in force
pub mod settings; // flags
pub mod trace; // what the proxy says of itself

use std::cell::RefCell;
use std::ffi::OsString;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use futures_util::FutureExt;
use gauze_model::access_log::Format;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::admin::{Admin, Doors};
use crate::certificates::Certificates;
use crate::config::Config;
use crate::config::ads::Ads;
use crate::control_plane::ControlPlane;
use crate::drain::{Drain, Stage};
use crate::listen::Listeners;
use crate::metrics::{Direction, Metrics};
use crate::self_check::SelfCheck;
use crate::settings::{Invocation, Settings};
use crate::tls::Tls;
use crate::trace::LogLevel;

/// What all threads of a proxy share. Nothing in it is locked on the request path.
pub struct Proxy {
    pub settings: Settings,
    pub control_plane: Arc<ControlPlane>,
    pub config: Arc<Config>,
    pub tls: Tls,
    pub metrics: Arc<Metrics>,
    pub access_log: AccessLog,
    pub self_check: SelfCheck,
    pub drain: Drain,
    /// Told when a request waits for a connection: other workers may hold idle ones.
    pub room_wanted: watch::Sender<()>,
}

/// A proxy that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] listen::BindError),
    #[error(transparent)]
    Listen(#[from] admin::ListenError),
    #[error("a thread or its event loop cannot be started: {0}")]
    Thread(#[from] io::Error),
}

/// Does what a command line asks for; the whole of the program `gauze-proxy`.
pub fn command<T>(arguments: impl IntoIterator<Item = T>) -> ExitCode
where
    T: Into<OsString> + Clone,
{
    let done = match Invocation::from_arguments(arguments) {
        Ok(Invocation::Run(settings)) => run_until_told(*settings),
        Ok(Invocation::Redirect(settings)) => redirect::run(&settings).map_err(anyhow::Error::from),
        Ok(Invocation::Drain(settings)) => ask::order_drain(&settings).map_err(anyhow::Error::from),
        Ok(Invocation::Ask(settings)) => ask::run(&settings).map_err(anyhow::Error::from),
        Err(error) => error.exit(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gauze-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_until_told(settings: Settings) -> anyhow::Result<()> {
    let log_level = trace::start(&settings.observing.log_level)?;
    process::prepare();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let told = told_to_end()?;
        Ok(run(settings, log_level, told).await?)
    });
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

/// SIGTERM, or Ctrl-C on a terminal; each time that it is asked, the next one.
fn told_to_end() -> io::Result<impl AsyncFn()> {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()];
    let [terminate, interrupt] = signals.map(|kind| signal(kind).map(RefCell::new));
    let (terminate, interrupt) = (terminate?, interrupt?);
    Ok(async move || {
        poll_fn(|cx| {
            let heard = [&terminate, &interrupt].map(|signal| signal.borrow_mut().poll_recv(cx).is_ready());
            if heard.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    })
}

/// Carries traffic until `told` completes (again and again, if it is told again), then goes as [`drain`] says.
///
/// # Errors
/// What it needs cannot be had at the start; afterwards nothing ends it but `told`.
pub async fn run(settings: Settings, log_level: LogLevel, told: impl AsyncFn()) -> Result<(), StartError> {
    let listeners = Listeners::bind(&settings.interception)?;
    let doors = Doors::open(&settings.interception).await?;
    announce(&listeners, &doors)?;

    let metrics = Arc::new(Metrics::new());
    let tls = Tls::new(&settings.control_plane.trust_domain);
    let control_plane = Arc::new(ControlPlane::new(&settings.control_plane));
    let certificates = Certificates::new(&settings, control_plane.clone(), tls.clone(), metrics.clone());
    let missing = metrics.answers_missing.clone();
    let (config, asks) =
        Config::new(&settings.interception.mesh_networks, settings.limits.answer_timeout, missing);
    let config = Arc::new(config);
    let ads = Ads::new(
        &settings,
        control_plane.clone(),
        certificates.subscribe(),
        asks,
        config.clone(),
        metrics.clone(),
    );

    let access_log = access_log(&settings, &metrics)?;
    let self_check = SelfCheck::new(settings.interception.mode);
    let drain = Drain::new();
    let room_wanted = watch::Sender::new(());
    let proxy = Arc::new(Proxy {
        settings,
        control_plane,
        config,
        tls,
        metrics,
        access_log,
        self_check,
        drain,
        room_wanted,
    });
    let admin = Arc::new(Admin::new(proxy.clone(), certificates.subscribe(), log_level));

    let workers = worker::start(&proxy, listeners)?;
    let control = async {
        let self_check = proxy.self_check.until_passed(&proxy.settings.workload.pod_ips);
        tokio::join!(ads.run(), certificates.keep(), admin.serve(&doors), self_check)
    };
    let mut control = pin!(control.fuse());
    let told = async || {
        tokio::select! {
            () = told() => {}
            () = admin.told_to_quit() => {}
        }
    };
    tokio::select! {
        _ = &mut control => {}
        () = drain::follow(&proxy.drain, proxy.settings.drain_time, told) => {}
    }
    let drained = tokio::task::spawn_blocking(|| workers.join());
    tokio::select! {
        _ = &mut control => {}
        _ = drained => {}
    }
    proxy.access_log.flush();
    Ok(())
}

fn access_log(settings: &Settings, metrics: &Metrics) -> io::Result<AccessLog> {
    let pod = &settings.workload.pod;
    match settings.observing.access_log.format.clone() {
        Format::Off => Ok(AccessLog::off()),
        format => AccessLog::start(format, pod, io::stdout(), metrics.access_log_dropped.clone()),
    }
}

/// The first line on stdout: where we listen, now that all of it is bound.
fn announce(listeners: &Listeners, doors: &Doors) -> io::Result<()> {
    let line = serde_json::json!({ "listening": {
        "outbound": listeners.addresses(Direction::Outbound),
        "inbound": listeners.addresses(Direction::Inbound),
        "admin": [doors.loopback_address()],
        "metrics": [doors.pod_address()],
        "admin_socket": doors.socket_path(),
    } });
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

impl Proxy {
    /// Why this proxy cannot do its work yet; nothing: it is ready.
    pub fn not_ready_because(&self) -> Vec<&'static str> {
        let valid = self.tls.expiry().is_some_and(|expiry| expiry > SystemTime::now());
        [
            (!valid, "no valid certificate"),
            (self.config.view().inbound.is_none(), "the control plane has not said how this pod accepts"),
            (!self.self_check.has_passed(), "the redirect rules are not in force"),
            (self.drain.stage() > Stage::Serving, "draining: clients are told to go elsewhere"),
        ]
        .into_iter()
        .filter_map(|(holds, reason)| holds.then_some(reason))
        .collect()
    }
}

#[cfg(test)]
impl Proxy {
    /// A proxy of pod `web-0` that nothing is connected to.
    pub(crate) fn for_tests(arguments: &str) -> Proxy {
        let settings = Settings::for_tests(arguments);
        let metrics = Arc::new(Metrics::new());
        let missing = metrics.answers_missing.clone();
        let (config, _asks) =
            Config::new(&settings.interception.mesh_networks, settings.limits.answer_timeout, missing);
        Proxy {
            control_plane: Arc::new(ControlPlane::new(&settings.control_plane)),
            config: Arc::new(config),
            tls: Tls::new(&settings.control_plane.trust_domain),
            metrics,
            access_log: AccessLog::off(),
            self_check: SelfCheck::new(settings.interception.mode),
            drain: Drain::new(),
            room_wanted: watch::Sender::new(()),
            settings,
        }
    }
}
