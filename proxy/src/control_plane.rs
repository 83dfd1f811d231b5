//! How the control plane is dialled: gRPC over TLS that must chain to our roots and prove exactly the
//! control plane's identity. What is said over it is the business of [`crate::certificates`] and [`crate::config::ads`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    addresses: Vec<String>,
    identity: SpiffeId,
    turn: AtomicUsize,
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

/// TCP connect and TLS handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// A control plane that answers no ping for this long, after this long without a word, is gone: noticed within 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

impl ControlPlane {
    pub fn new(settings: &ControlPlaneSettings) -> ControlPlane {
        ControlPlane {
            addresses: settings.addresses.clone(),
            identity: SpiffeId::control_plane(&settings.trust_domain, &settings.system_namespace),
            turn: AtomicUsize::new(0),
        }
    }

    /// A new connection to the address whose turn it is; after a failure the next one is tried.
    /// Without `credentials` we show no certificate: first contact.
    ///
    /// # Errors
    /// It cannot be reached, is not the control plane, or our own files are unusable.
    pub async fn dial(
        &self,
        roots: &[CertificateDer<'static>],
        credentials: Option<&Credentials>,
    ) -> Result<Channel, DialError> {
        let tls = control_plane_client(roots, &self.identity, credentials)?;
        let turn = self.turn.load(Ordering::Relaxed);
        let address = self.addresses[turn % self.addresses.len()].clone();
        let channel = connect(&address, tls).await;
        if channel.is_err() {
            self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        }
        channel
    }
}

impl DialError {
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

async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Channel, DialError> {
    let unreachable = |problem| DialError::Unreachable { address: address.to_owned(), problem };
    let stream = tokio::time::timeout(DIAL_TIMEOUT, secure(address, tls))
        .await
        .map_err(|_| unreachable(format!("no answer in {} s", DIAL_TIMEOUT.as_secs())))?
        .map_err(|problem| DialError::of(address, problem))?;
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
        .map_err(|error| unreachable(error.to_string()))
}

async fn secure(
    address: &str,
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
}
