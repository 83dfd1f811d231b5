//! The init step `gauze-proxy redirect`: programs the rules that bring a pod's TCP to the proxy, on IPv4
//! and IPv6, in a table of our own, whole or not at all. The rules are decided as a value ([`rules`]),
//! which is then shown ([`print`]) or handed to the kernel ([`netlink`]).

use clap::Parser;
use ipnet::IpNet;

mod netlink; // the rules as nf_tables messages
mod print; // the rules as `nft` shows them
mod rules; // which rules there are

pub use netlink::ProgramError;

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

    /// Ports of the app that are reached past the proxy
    #[arg(long, env = "GAUZE_SKIP_INBOUND_PORTS", value_delimiter = ',', value_name = "PORT,..")]
    pub skip_inbound_ports: Vec<u16>,

    /// Ports that the app dials past the proxy
    #[arg(long, env = "GAUZE_SKIP_OUTBOUND_PORTS", value_delimiter = ',', value_name = "PORT,..")]
    pub skip_outbound_ports: Vec<u16>,

    /// Networks that the app dials past the proxy
    #[arg(long, env = "GAUZE_SKIP_OUTBOUND_CIDRS", value_delimiter = ',', value_name = "CIDR,..")]
    pub skip_outbound_cidrs: Vec<IpNet>,

    /// Further users whose connections are not redirected
    #[arg(long, env = "GAUZE_SKIP_UIDS", value_delimiter = ',', value_name = "UID,..")]
    pub skip_uids: Vec<u32>,

    /// Show the rules in nft syntax and program nothing
    #[arg(long)]
    pub print: bool,
}

/// Programs the rules, or shows them.
///
/// # Errors
/// The kernel refuses them; then nothing has changed.
pub fn run(settings: &RedirectSettings) -> Result<(), ProgramError> {
    let table = rules::table(settings);
    if settings.print {
        print!("{table}");
        return Ok(());
    }
    netlink::program(&table)
}
