//! The gauze control plane: objects in; configuration, certificates and statuses out.
//!
//! It knows no application socket.

// Objects in, and what they mean:
pub mod problem; // what is wrong with an object, and how to fix it
pub mod source; // where objects come from
pub mod status; // what each object's conditions should be
pub mod translate; // what every object means, by name
pub mod world; // all objects

// Certificates:
pub mod authority; // the root, and leaves for public keys
pub mod state; // keys and tokens that outlive the process
pub mod tokens; // who asks for a certificate

// The process:
pub mod logging; // logs on stderr, and their level
pub mod settings; // what the operator sets

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
