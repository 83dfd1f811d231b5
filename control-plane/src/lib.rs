//! The gauze control plane: objects in; configuration, certificates and statuses out.
//!
//! It knows no application socket. The modules, in the order in which a change passes through them:

pub mod logging;
pub mod settings; // what the operator sets // logs on stderr and their level

pub use settings::Settings;

use logging::Logging;

/// Runs the control plane until `shutdown` resolves.
///
/// # Errors
/// It could not start: an address that is taken, a state directory that cannot be written.
pub async fn run(
    settings: Settings,
    logging: Logging,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let _ = (settings, logging);
    shutdown.await;
    Ok(())
}
