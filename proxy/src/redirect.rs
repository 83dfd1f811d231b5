//! The init step `gauze-proxy redirect`: programs the rules that bring a pod's TCP to the proxy.

use std::io;

use clap::Parser;

/// Programs the redirect rules of this network namespace (IPv4 and IPv6), and ends.
#[derive(Clone, Debug, Parser)]
pub struct RedirectSettings {
    /// Show the rules in nft syntax and program nothing
    #[arg(long)]
    pub print: bool,
}

/// Programs the rules, or shows them.
///
/// # Errors
/// The kernel refuses them.
pub fn run(settings: &RedirectSettings) -> io::Result<()> {
    let _ = settings;
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
