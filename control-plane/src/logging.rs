//! Logs on stderr, and their level, which can be changed while the process runs.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// The handle to the level of the logs.
#[derive(Clone)]
pub struct Logging(Option<reload::Handle<EnvFilter, Registry>>);

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    #[error("{0}")]
    NotALevel(String),
    #[error("this process writes no logs")]
    NoLogs,
}

impl Logging {
    /// Starts the process's logs at `filter`, which clap has checked by [`level`].
    pub fn start(filter: &str) -> Logging {
        let (filter, handle) = reload::Layer::new(EnvFilter::new(quieted(filter)));
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
        Logging(Some(handle))
    }

    /// Inside another process (a test, the CLI) that has its own logs or none.
    pub fn none() -> Logging {
        Logging(None)
    }

    /// Changes the level of the running process.
    ///
    /// # Errors
    /// `filter` is no level, or the process writes no logs.
    pub fn change(&self, filter: &str) -> Result<(), LevelError> {
        level(filter).map_err(LevelError::NotALevel)?;
        let parsed = EnvFilter::try_new(quieted(filter)).map_err(|e| LevelError::NotALevel(e.to_string()))?;
        let handle = self.0.as_ref().ok_or(LevelError::NoLogs)?;
        handle.reload(parsed).map_err(|_| LevelError::NoLogs)
    }
}

/// The Kubernetes client logs every attempt as an error; what matters of these we say ourselves, once.
/// `kube_client=debug` brings them back.
fn quieted(filter: &str) -> String {
    format!("kube_client=off,kube_runtime=off,{filter}")
}

/// Checks a level on the command line.
///
/// # Errors
/// The text is no level.
pub fn level(text: &str) -> Result<String, String> {
    gauze_model::log_filter::check(text)?;
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}
