//! What the proxy says of itself, on stderr. The filter can be replaced while it runs.

use std::io;

use gauze_model::log_filter::check;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Replaces the filter of the logs.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("log level: {0}")]
    Unreadable(String),
    #[error("the log level cannot be changed: {0}")]
    Fixed(#[from] reload::Error),
}

/// Starts logging for the whole process; the second call of a process has no effect.
///
/// # Errors
/// `filter` cannot be read.
pub fn start(filter: &str) -> Result<LogLevel, FilterError> {
    let (layer, handle) = reload::Layer::new(read(filter)?);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let _ = tracing_subscriber::registry().with(layer).with(lines).try_init();
    Ok(LogLevel(handle))
}

impl LogLevel {
    /// From now on what `filter` says.
    ///
    /// # Errors
    /// `filter` cannot be read, or logging has ended.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        Ok(self.0.reload(read(filter)?)?)
    }
}

fn read(filter: &str) -> Result<EnvFilter, FilterError> {
    check(filter).map_err(FilterError::Unreadable)?;
    EnvFilter::try_new(filter).map_err(|error| FilterError::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_replaced_while_logging_goes_on() {
        let (layer, handle) = reload::Layer::new(read("info").expect("a filter"));
        let (logging, level) = (tracing_subscriber::registry().with(layer), LogLevel(handle));
        assert!(level.set("warn,gauze_proxy=debug").is_ok());
        assert!(matches!(level.set("gauze_proxy=loud"), Err(FilterError::Unreadable(_))));
        drop(logging);
        assert!(matches!(level.set("info"), Err(FilterError::Fixed(_))));
    }

    #[test]
    fn a_filter_is_a_level_or_names_modules() {
        for filter in ["info", "debug", "warn,gauze_proxy::config=trace", "off"] {
            assert!(read(filter).is_ok(), "{filter}");
        }
        for filter in ["", "loud", "gauze_proxy=loud", "info,=,"] {
            assert!(read(filter).is_err(), "{filter}");
        }
    }
}
