//! How the control plane is dialled: gRPC over TLS that must chain to our roots and prove exactly the
//! control plane's identity. What is said over it is the business of [`crate::certificates`] and [`crate::config::ads`].

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gauze_model::{Code, SpiffeId};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::settings::ControlPlaneSettings;
use crate::tls::{Credentials, CredentialsError, TlsError, control_plane_client, unnamed};

/// The addresses of the control plane, and who it must be.
pub struct ControlPlane {
    names: Vec<String>,
    identity: SpiffeId,
    /// How many addresses have failed.
    turn: AtomicUsize,
    /// Why the last request for a certificate or for configuration failed, until one succeeds.
    trouble: Mutex<Option<String>>,
}

/// The control plane cannot be reached or is not who it should be.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("control plane at {address}: {problem}")]
    Unreachable { address: String, problem: String },
    #[error("what answers at {address} is not the control plane: {problem}")]
    NotTheControlPlane { address: String, problem: TlsError },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// TCP connect and TLS handshake together, for one address.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A name is resolved, or asked for again, after this time.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses tried before a pause: replicas of a control plane, in both families.
const ADDRESSES_MAX: usize = 8;

/// A control plane that answers no ping for this long, after this long without a word, is gone: noticed within 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

impl ControlPlane {
    pub fn new(settings: &ControlPlaneSettings) -> ControlPlane {
        ControlPlane {
            names: settings.addresses.clone(),
            identity: SpiffeId::control_plane(&settings.trust_domain, &settings.system_namespace),
            turn: AtomicUsize::new(0),
            trouble: Mutex::default(),
        }
    }

    /// Why we have nothing from it, for whoever asks why this proxy is not ready.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why a request failed, or that one succeeded.
    pub fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// A new connection to the first address that answers as the control plane. Names are resolved anew
    /// each time, and all that they stand for is tried, beginning after the one that failed last.
    /// Without `credentials` we show no certificate: first contact.
    ///
    /// # Errors
    /// None can be reached or is the control plane (what was wrong with the last), or our own files are unusable.
    pub async fn dial(
        &self,
        roots: &[CertificateDer<'static>],
        credentials: Option<&Credentials>,
    ) -> Result<Channel, DialError> {
        let tls = control_plane_client(roots, &self.identity, credentials)?;
        let mut problem = None;
        let mut candidates = Vec::new();
        for name in &self.names {
            match resolve(name).await {
                Ok(addresses) => candidates.extend(addresses.map(|address| Candidate { name, address })),
                Err(error) => problem = Some(error),
            }
        }
        let turn = self.turn.load(Ordering::Relaxed) % candidates.len().max(1);
        candidates.rotate_left(turn);
        for candidate in candidates.iter().take(ADDRESSES_MAX) {
            match candidate.connect(Arc::clone(&tls)).await {
                Ok(channel) => return Ok(channel),
                Err(error) => problem = Some(error),
            }
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        Err(problem.unwrap_or_else(|| DialError::unreachable("--control-plane", "it is empty")))
    }
}

impl DialError {
    fn unreachable(address: &str, problem: impl ToString) -> DialError {
        DialError::Unreachable { address: address.to_owned(), problem: problem.to_string() }
    }

    fn of(address: &str, problem: TlsError) -> DialError {
        let address = address.to_owned();
        match problem {
            TlsError::Io(error) => DialError::Unreachable { address, problem: error.to_string() },
            problem => DialError::NotTheControlPlane { address, problem },
        }
    }

    /// What `gauze docs` explains.
    pub fn code(&self) -> Code {
        match self {
            DialError::Unreachable { .. } => Code::CONTROL_PLANE_UNREACHABLE,
            DialError::NotTheControlPlane { .. } | DialError::Credentials(_) => Code::CONTROL_PLANE_IDENTITY,
        }
    }
}

/// All addresses of `HOST:PORT`. In a pod that is one question to the cluster's DNS, never a cached answer.
async fn resolve(name: &str) -> Result<impl Iterator<Item = SocketAddr>, DialError> {
    let failed =
        |problem: String| DialError::unreachable(name, format!("the name cannot be resolved: {problem}"));
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name)).await;
    let resolved = resolved.map_err(|_| failed(format!("no answer in {} s", RESOLVE_TIMEOUT.as_secs())))?;
    resolved.map_err(|error| failed(error.to_string()))
}

/// Where the control plane may be.
#[derive(Debug)]
struct Candidate<'a> {
    name: &'a str,
    address: SocketAddr,
}

/// As people know it, and where that led.
impl Display for Candidate<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name.parse() == Ok(self.address) {
            true => write!(f, "{}", self.address),
            false => write!(f, "{} ({})", self.name, self.address),
        }
    }
}

impl Candidate<'_> {
    async fn connect(&self, tls: Arc<ClientConfig>) -> Result<Channel, DialError> {
        let stream = tokio::time::timeout(DIAL_TIMEOUT, secure(self.address, tls))
            .await
            .map_err(|_| {
                DialError::unreachable(
                    &self.to_string(),
                    format!("no answer in {} s", DIAL_TIMEOUT.as_secs()),
                )
            })?
            .map_err(|problem| DialError::of(&self.to_string(), problem))?;
        // tonic asks for a connector and would call it again to reconnect: that is our decision, so it has one stream.
        let mut once = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        Endpoint::from_static("http://gauze-control-plane")
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| DialError::unreachable(&self.to_string(), error))
    }
}

async fn secure(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, TlsError> {
    let tcp = TcpStream::connect(address).await.map_err(TlsError::Io)?;
    tcp.set_nodelay(true).map_err(TlsError::Io)?;
    Ok(TlsConnector::from(tls).connect(unnamed(), tcp).await?)
}

/// Pauses between attempts: doubling from `first` to `most`, each drawn from the upper half of its span,
/// so that the sidecars of a cluster do not come back all at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, failures: 0 }
    }

    /// The next pause; `draw` is uniform in 0..1.
    pub fn pause(&mut self, draw: f64) -> Duration {
        let span = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(0.5 + draw / 2.0)
    }
}

/// Says a lasting problem once, however often it is met.
#[derive(Debug, Default)]
pub struct Complaint {
    last: String,
}

impl Complaint {
    /// Whether `problem` differs from the last one.
    pub fn is_new(&mut self, problem: &impl ToString) -> bool {
        let problem = problem.to_string();
        let is_new = problem != self.last;
        self.last = problem;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 5);
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause(1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(Backoff::new(second, second).pause(0.0), second / 2, "never less than half of the span");
        let mut old = Backoff { failures: u32::MAX, ..backoff };
        assert_eq!(old.pause(1.0), second * 5);
    }

    #[test]
    fn a_problem_is_new_until_it_is_met_again() {
        let mut complaint = Complaint::default();
        let heard = ["gone", "gone", "refused", "gone"].map(|problem| complaint.is_new(&problem));
        assert_eq!(heard, [true, false, true, true]);
    }

    fn dial(addresses: &str) -> Result<(), String> {
        let mut settings = crate::settings::Settings::for_tests("--mode none").control_plane;
        settings.addresses = addresses.split(',').map(str::to_owned).collect();
        let control_plane = ControlPlane::new(&settings);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let root =
            rcgen::KeyPair::generate().and_then(|key| rcgen::CertificateParams::default().self_signed(&key));
        let roots = [root.expect("a root").der().clone()];
        let dialled = runtime.block_on(control_plane.dial(&roots, None));
        dialled.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_with_the_control_planes_address_is_said_with_the_name_and_where_it_led() {
        let dead = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port");
        let port = dead.port();
        for (addresses, said) in [
            (
                dead.to_string(),
                format!("control plane at 127.0.0.1:{port}: Connection refused (os error 111)"),
            ),
            (
                format!("localhost:{port}"),
                format!("control plane at localhost:{port} (127.0.0.1:{port}): Connection refused"),
            ),
            (
                "gauze.invalid:15012".to_owned(),
                "control plane at gauze.invalid:15012: the name cannot be resolved: ".to_owned(),
            ),
            (
                "gauze".to_owned(),
                "control plane at gauze: the name cannot be resolved: invalid socket address".to_owned(),
            ),
        ] {
            let error = dial(&addresses).expect_err("nobody there");
            assert!(error.starts_with(&said), "{addresses}: {error}");
        }
    }

    #[test]
    fn all_addresses_are_tried_until_one_answers() {
        let dead = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port");
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = other.local_addr().expect("bound");
        let greeter = std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = other.accept().expect("dialled");
            let _ = stream.write_all(b"220 mail.example\r\n");
        });
        let error = dial(&format!("{dead},gauze.invalid:1,{address}")).expect_err("that is a mail server");
        greeter.join().expect("it was tried");
        assert!(error.starts_with(&format!("what answers at {address} is not the control plane")), "{error}");
    }
}
