//! The init step `gauze-proxy redirect`: programs the rules that bring a pod's TCP to the proxy, on IPv4
//! and IPv6, in a table of our own, whole or not at all. The rules are decided as a value ([`rules`]),
//! which is then shown ([`print`]) or handed to the kernel ([`netlink`]).

use std::io::{self, Write};

use clap::Parser;

mod netlink; // the rules as nf_tables messages
mod print; // the rules as `nft` shows them
mod rules; // which rules there are
mod skipped; // what they pass by

pub use netlink::ProgramError;
pub use skipped::{List, Ports, SkippedSettings};

/// Programs the redirect rules of this network namespace (IPv4 and IPv6), and ends.
///
/// Needs the capability NET_ADMIN. Running it again replaces the rules at once.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(max_term_width = 110)]
pub struct RedirectSettings {
    /// The user that the proxy runs as; its connections are not redirected
    #[arg(long, env = "GAUZE_PROXY_UID", default_value_t = 1337, value_name = "UID")]
    pub proxy_uid: u32,

    /// Where the proxy listens for connections of the app
    #[arg(long, env = "GAUZE_OUTBOUND_PORT", default_value_t = 15001, value_name = "PORT")]
    pub outbound_port: u16,

    /// Where the proxy listens for connections to the app
    #[arg(long, env = "GAUZE_INBOUND_PORT", default_value_t = 15006, value_name = "PORT")]
    pub inbound_port: u16,

    /// Where the proxy serves metrics and probes itself
    #[arg(long, env = "GAUZE_METRICS_PORT", default_value_t = 15020, value_name = "PORT")]
    pub metrics_port: u16,

    #[command(flatten)]
    pub skipped: SkippedSettings,

    /// Further users whose connections are not redirected
    #[arg(long, env = "GAUZE_SKIP_UIDS", default_value = "", value_name = "UIDS")]
    pub skip_uids: List<u32>,

    /// Show the rules in nft syntax and program nothing
    #[arg(long)]
    pub print: bool,
}

/// Programs the rules, unless they are only to be seen, and shows them.
///
/// # Errors
/// The kernel refuses them; then nothing has changed.
pub fn run(settings: &RedirectSettings) -> Result<(), ProgramError> {
    let table = rules::table(settings);
    if settings.print {
        print!("{table}");
        return Ok(());
    }
    netlink::program(&table)?;
    // What the log of an init container should tell; a closed pipe does not undo it.
    let _ = write!(io::stdout(), "{table}");
    Ok(())
}
