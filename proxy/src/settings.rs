//! What is fixed when the process starts: flags, each also an environment variable. What may change
//! while it runs is the snapshot. Each group stands for one part of the proxy; there is no settings file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use gauze_model::access_log::WrittenFormat;
use ipnet::IpNet;

use crate::ask::{AskSettings, DrainSettings};
use crate::listen;
use crate::probe::ProbeSettings;
use crate::redirect::{RedirectSettings, SkippedSettings};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Carry traffic until SIGTERM.
    Run(Box<Settings>),
    /// Program the redirect rules of this network namespace and end.
    Redirect(RedirectSettings),
    /// Ask the proxy of this pod and print what it says.
    Ask(AskSettings),
    /// Order the proxy of this pod to drain.
    Drain(DrainSettings),
}

/// The sidecar proxy of gauze: it carries all TCP of one pod, encrypted and measured.
#[derive(Clone, Debug, Parser)]
#[command(name = "gauze-proxy", version, max_term_width = 110)]
pub struct Settings {
    #[command(flatten)]
    pub control_plane: ControlPlaneSettings,
    #[command(flatten)]
    pub workload: WorkloadSettings,
    #[command(flatten)]
    pub interception: InterceptionSettings,
    #[command(flatten)]
    pub probing: ProbeSettings,
    #[command(flatten)]
    pub limits: LimitSettings,
    #[command(flatten)]
    pub observing: ObservingSettings,

    /// Threads that carry traffic
    #[arg(long, env = "GAUZE_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// After SIGTERM, how long clients are told to go elsewhere before the proxy ends; nothing if `gauze-proxy drain`
    /// came before
    #[arg(long, env = "GAUZE_DRAIN_TIME", default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub drain_time: Duration,
}

/// Where certificates and configuration come from, and how that side proves who it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Control plane")]
pub struct ControlPlaneSettings {
    /// Addresses of the control plane, tried in turn: `HOST:PORT,..`
    #[arg(
        long = "control-plane",
        env = "GAUZE_CONTROL_PLANE",
        value_delimiter = ',',
        required = true,
        value_name = "HOST:PORT"
    )]
    pub addresses: Vec<String>,

    /// The trust domain of the mesh, the host part of every SPIFFE id
    #[arg(long, env = "GAUZE_TRUST_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    pub trust_domain: String,

    /// The namespace that the control plane runs in; a part of its identity
    #[arg(long, env = "GAUZE_SYSTEM_NAMESPACE", default_value = "gauze-system", value_name = "NAMESPACE")]
    pub system_namespace: String,

    /// The set of root certificates (PEM); read again when it changes
    #[arg(long, env = "GAUZE_TRUST_ROOTS", value_name = "FILE")]
    pub trust_roots: PathBuf,

    /// The workload token that proves who this pod is; read again at each use
    #[arg(long, env = "GAUZE_TOKEN", value_name = "FILE")]
    pub token: PathBuf,
}

/// Who this proxy works for.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Workload")]
pub struct WorkloadSettings {
    /// The pod's namespace
    #[arg(long, env = "GAUZE_NAMESPACE")]
    pub namespace: String,

    /// The pod's name
    #[arg(long, env = "GAUZE_POD")]
    pub pod: String,

    /// The pod's ServiceAccount
    #[arg(long, env = "GAUZE_SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,

    /// The pod's addresses (`status.podIPs`), one of each family
    #[arg(long = "pod-ip", env = "GAUZE_POD_IPS", value_delimiter = ',', value_name = "IP")]
    pub pod_ips: Vec<IpAddr>,

    /// What peers call this workload in their metrics (`app.kubernetes.io/name`)
    #[arg(long, env = "GAUZE_APP", default_value = "")]
    pub app: String,

    /// Which version of it this is (`app.kubernetes.io/version`)
    #[arg(long, env = "GAUZE_APP_VERSION", default_value = "", value_name = "VERSION")]
    pub app_version: String,
}

/// How connections come to the proxy.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct InterceptionSettings {
    /// How connections come here: by redirect rules, or by the listeners of `--outbound` and `--inbound`
    #[arg(long, env = "GAUZE_MODE", value_enum, default_value_t = Mode::Transparent)]
    pub mode: Mode,

    /// Mode none: listen here, as if the app had dialled DEST
    #[arg(long, env = "GAUZE_OUTBOUND", value_delimiter = ',', value_name = "LISTEN=DEST")]
    pub outbound: Vec<Mapping>,

    /// Mode none: listen at an address of the pod, and dial the app at DEST
    #[arg(long, env = "GAUZE_INBOUND", value_delimiter = ',', value_name = "LISTEN=DEST")]
    pub inbound: Vec<Mapping>,

    /// Where redirected connections of the app arrive; loopback only
    #[arg(
        long,
        env = "GAUZE_OUTBOUND_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:15001,[::1]:15001",
        value_name = "ADDR"
    )]
    pub outbound_listen: Vec<SocketAddr>,

    /// Where redirected connections to the app arrive
    #[arg(
        long,
        env = "GAUZE_INBOUND_LISTEN",
        value_delimiter = ',',
        default_value = "0.0.0.0:15006,[::]:15006",
        value_name = "ADDR"
    )]
    pub inbound_listen: Vec<SocketAddr>,

    /// Where people and `gauze proxy` look; loopback only, changes nothing
    #[arg(long, env = "GAUZE_ADMIN_LISTEN", default_value = "127.0.0.1:15000", value_name = "ADDR")]
    pub admin_listen: SocketAddr,

    /// Where `/metrics`, `/live` and `/ready` are served to the cluster; `[::]` also takes IPv4
    #[arg(long, env = "GAUZE_METRICS_LISTEN", default_value = "[::]:15020", value_name = "ADDR")]
    pub metrics_listen: SocketAddr,

    /// The Unix socket that takes orders (`/drain`, `/logging`, `/quitquitquit`), from our own user and root only
    #[arg(long, env = "GAUZE_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,

    /// Addresses inside these networks are asked for; all others are outside the mesh
    #[arg(long, env = "GAUZE_MESH_NETWORKS", value_delimiter = ',', default_value = PRIVATE_NETWORKS, value_name = "CIDR")]
    pub mesh_networks: Vec<IpNet>,

    /// What the redirect step was told; nothing here depends on it
    #[command(flatten)]
    pub skipped: SkippedSettings,
}

/// How connections come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Redirect rules; the original destination is read from the socket
    Transparent,
    /// Mapped listeners; needs no capability
    None,
}

/// One listener of mode none: what is dialled here is meant for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub listen: SocketAddr,
    pub destination: SocketAddr,
}

/// Limits that hold without any configuration. Those of a cluster (connections, requests) are policy.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// A request's head must be complete this long after its first byte
    #[arg(long, env = "GAUZE_HEADER_READ_TIMEOUT", default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub header_read_timeout: Duration,

    /// On ports without a declared protocol: silence after which a server may speak first
    #[arg(long, env = "GAUZE_DETECT_TIMEOUT", default_value = "100ms", value_parser = duration, value_name = "TIME")]
    pub detect_timeout: Duration,

    /// A request or stream on which nothing moves is ended after this time
    #[arg(long, env = "GAUZE_STREAM_IDLE_TIMEOUT", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub stream_idle_timeout: Duration,

    /// An opaque connection on which nothing moves is ended after this time; database pools idle for long
    #[arg(long, env = "GAUZE_TCP_IDLE_TIMEOUT", default_value = "1h", value_parser = duration, value_name = "TIME")]
    pub tcp_idle_timeout: Duration,

    /// A pooled connection without a request is closed after this time
    #[arg(long, env = "GAUZE_POOL_IDLE_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub pool_idle_timeout: Duration,

    /// A TLS handshake must be complete after this time
    #[arg(long, env = "GAUZE_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub handshake_timeout: Duration,

    /// Size of a request's or response's head, in bytes
    #[arg(long, env = "GAUZE_HEADER_BYTES_MAX", default_value_t = 60 * 1024, value_name = "BYTES")]
    pub header_bytes_max: usize,

    /// Number of headers of a request or response
    #[arg(long, env = "GAUZE_HEADERS_MAX", default_value_t = 100, value_name = "N")]
    pub headers_max: usize,

    /// Size of a request's path and query, in bytes
    #[arg(long, env = "GAUZE_URI_BYTES_MAX", default_value_t = 16 * 1024, value_name = "BYTES")]
    pub uri_bytes_max: usize,

    /// HTTP/2 streams at once on a connection from outside the mesh
    #[arg(long, env = "GAUZE_STREAMS_OUTSIDE_MAX", default_value_t = 100, value_name = "N")]
    pub streams_outside_max: u32,

    /// HTTP/2 streams at once on a connection from inside the mesh
    #[arg(long, env = "GAUZE_STREAMS_MESH_MAX", default_value_t = 1000, value_name = "N")]
    pub streams_mesh_max: u32,

    /// Connections accepted and open at once, of each direction
    #[arg(long, env = "GAUZE_CONNECTIONS_MAX", default_value_t = 16 * 1024, value_name = "N")]
    pub connections_max: usize,

    /// Destinations subscribed to at once; the least recently used goes first
    #[arg(long, env = "GAUZE_NAMES_MAX", default_value_t = 4096, value_name = "N")]
    pub names_max: usize,

    /// A destination that nobody used this long is unsubscribed
    #[arg(long, env = "GAUZE_NAME_IDLE_TIMEOUT", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub name_idle_timeout: Duration,

    /// How long a connection waits for the first answer about its destination
    #[arg(long, env = "GAUZE_ANSWER_TIMEOUT", default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub answer_timeout: Duration,

    /// What carries HTTP/1.1 requests between sidecars
    #[arg(long, env = "GAUZE_HTTP1_CARRIER", value_enum, default_value_t = Carrier::H2)]
    pub http1_carrier: Carrier,
}

/// What carries HTTP/1.1 requests between sidecars; inbound takes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// Streams of few HTTP/2 connections (`gauze/h2`)
    H2,
    /// A connection for each request in flight (`gauze/http1`)
    Http1,
}

/// What is told about the traffic, and about the proxy itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Observing")]
pub struct ObservingSettings {
    /// One line for each request and connection, on stdout: off, json, text (Envoy's default), or a format with Envoy's operators
    #[arg(long, env = "GAUZE_ACCESS_LOG", default_value = "off", value_name = "FORMAT")]
    pub access_log: WrittenFormat,

    /// What the proxy says of itself, on stderr: `info`, `gauze_proxy=debug`, ..
    #[arg(long, env = "GAUZE_LOG_LEVEL", default_value = "info", value_parser = log_filter, value_name = "FILTER")]
    pub log_level: String,
}

/// RFC 1918, RFC 6598 and RFC 4193: where clusters number their pods and Services.
const PRIVATE_NETWORKS: &str = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fc00::/7";

impl Invocation {
    /// Reads a command line, program name first.
    ///
    /// # Errors
    /// What `clap` says of it; also where help is asked for.
    pub fn from_arguments<T>(arguments: impl IntoIterator<Item = T>) -> Result<Invocation, clap::Error>
    where
        T: Into<std::ffi::OsString> + Clone,
    {
        let mut command = Settings::command()
            .subcommand(RedirectSettings::command().name("redirect"))
            .subcommand(AskSettings::command().name("ask"))
            .subcommand(DrainSettings::command().name("drain"))
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true);
        let matches = command.try_get_matches_from_mut(arguments)?;
        match matches.subcommand() {
            Some(("redirect", matches)) => {
                return Ok(Invocation::Redirect(RedirectSettings::from_arg_matches(matches)?));
            }
            Some(("drain", matches)) => {
                return Ok(Invocation::Drain(DrainSettings::from_arg_matches(matches)?));
            }
            Some(("ask", matches)) => return Ok(Invocation::Ask(AskSettings::from_arg_matches(matches)?)),
            _ => {}
        }
        let settings = Settings::from_arg_matches(&matches)?;
        settings
            .check()
            .map_err(|problem| command.error(clap::error::ErrorKind::ValueValidation, problem))?;
        Ok(Invocation::Run(Box::new(settings)))
    }
}

impl Settings {
    /// What no single flag can know.
    fn check(&self) -> Result<(), String> {
        let interception = &self.interception;
        if interception.mode == Mode::Transparent && self.workload.pod_ips.is_empty() {
            return Err("--mode transparent needs the pod's addresses: add --pod-ip IP".to_owned());
        }
        if interception.mode == Mode::Transparent
            && !(interception.outbound.is_empty() && interception.inbound.is_empty())
        {
            return Err("--outbound and --inbound are for --mode none".to_owned());
        }
        self.probing.check(&self.workload.pod_ips, &listen::own_ports(interception))?;
        for (flag, address) in interception.loopback_only() {
            if !address.ip().is_loopback() {
                return Err(format!(
                    "{flag} {address}: must be a loopback address, or the pod's neighbours could use it"
                ));
            }
        }
        Ok(())
    }
}

impl InterceptionSettings {
    fn loopback_only(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let outbound = self.outbound_listen.iter().map(|address| ("--outbound-listen", *address));
        outbound.chain([("--admin-listen", self.admin_listen)])
    }
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Mapping, String> {
        let (listen, destination) = text.split_once('=').ok_or("expected LISTEN=DEST, both as IP:PORT")?;
        let address = |text: &str| text.parse().map_err(|_| format!("`{text}` is not an IP:PORT"));
        Ok(Mapping { listen: address(listen)?, destination: address(destination)? })
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    gauze_model::log_filter::check(text).map(|()| text.to_owned())
}

/// Reads `100ms`, `5s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| DURATION_FORM.to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(DURATION_FORM.to_owned()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| DURATION_FORM.to_owned())
}

const DURATION_FORM: &str = "expected a number and a unit: 100ms, 5s, 2m, 1h";

#[cfg(test)]
impl Settings {
    /// Those of pod `web-0` in namespace `shop`, with these arguments.
    pub(crate) fn for_tests(arguments: &str) -> Settings {
        match tests::read(arguments) {
            Ok(Invocation::Run(settings)) => *settings,
            other => panic!("{arguments}: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: &str = "gauze-proxy --control-plane 127.0.0.1:15012 --trust-roots roots.pem --token token --namespace shop --pod web-0";

    pub(super) fn read(more: &str) -> Result<Invocation, String> {
        let arguments = format!("{NEEDED} {more}");
        Invocation::from_arguments(arguments.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Settings::command().debug_assert();
        RedirectSettings::command().debug_assert();
    }

    #[test]
    fn a_mapped_listener_is_read_in_both_families() {
        let settings = Settings::for_tests(
            "--mode none --outbound 127.1.1.2:8080=10.96.0.12:80,[::1]:8080=[fd00::1]:80 --workers 2",
        );
        let mapping = |listen: &str, destination: &str| Mapping {
            listen: listen.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        assert_eq!(
            settings.interception.outbound,
            [mapping("127.1.1.2:8080", "10.96.0.12:80"), mapping("[::1]:8080", "[fd00::1]:80")]
        );
        assert_eq!(settings.workers, 2);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (arguments, reason) in [
            ("", "add --pod-ip"),
            ("--mode none --outbound 127.0.0.1:80", "expected LISTEN=DEST"),
            ("--mode none --outbound 127.0.0.1:80=cart:80", "`cart:80` is not an IP:PORT"),
            ("--pod-ip 10.0.0.1 --outbound 127.0.0.1:80=10.96.0.1:80", "are for --mode none"),
            ("--pod-ip 10.0.0.1 --admin-listen 0.0.0.0:15000", "must be a loopback address"),
            ("--pod-ip 10.0.0.1 --drain-time 5", "expected a number and a unit"),
            ("--pod-ip 10.0.0.1 --workers 0", "0 is not in 1..=256"),
            ("--pod-ip 10.0.0.1 --log-level loud", "`loud` is no level"),
            ("--pod-ip 10.0.0.1 --mesh-networks 10.0.0.0/99", "invalid"),
        ] {
            let error = read(arguments).expect_err(arguments);
            assert!(error.contains(reason), "{arguments}: {error}");
        }
    }

    #[test]
    fn what_is_beside_the_proxy_needs_no_setting_of_it() {
        let read = |arguments: &str| Invocation::from_arguments(arguments.split(' '));
        assert!(matches!(read("gauze-proxy redirect --print"), Ok(Invocation::Redirect(_))));
        assert!(matches!(read("gauze-proxy ask /ready"), Ok(Invocation::Ask(_))));
        assert!(matches!(read("gauze-proxy drain"), Ok(Invocation::Drain(_))));
    }

    #[test]
    fn a_time_has_a_unit() {
        for (text, milliseconds) in [("100ms", 100), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["5", "s", "1d", "-1s", "1.5s", ""] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
