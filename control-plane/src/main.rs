//! The gauze control plane.

use std::process::ExitCode;

use clap::Parser;
use gauze_control_plane::logging::Logging;
use gauze_control_plane::{Settings, ask, run, uninstall};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

fn main() -> ExitCode {
    if let Some(done) = ask::command().or_else(uninstall::command) {
        return done;
    }
    let settings = Settings::parse();
    let logging = Logging::start(&settings.log_level);
    match serve(settings, logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings, logging: Logging) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async { run(settings, logging, told_to_stop()?).await });
    runtime.shutdown_background();
    served
}

/// Resolves at the first SIGTERM or SIGINT.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
    })
}
