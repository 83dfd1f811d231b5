//! What the operator sets, once, by flag or environment. What users set is in their objects.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use gauze_model::listener::Mtls;
use ipnet::IpNet;

use crate::logging;
use crate::world::MeshSettings;

mod kubernetes; // what is set only for a cluster

pub use kubernetes::KubernetesSettings;

/// The gauze control plane: reads Kubernetes objects from the API server, or from a directory of YAML;
/// issues certificates, and pushes routing configuration to the proxies over incremental xDS.
///
/// The first line on stdout says where it listens; logs go to stderr. With --directory it keeps its root
/// key, tokens and socket in DIR/.gauze, which only its user may read.
#[derive(Clone, Debug, Parser)]
#[command(name = "gauze-control-plane", version, max_term_width = 110)]
pub struct Settings {
    /// Read all objects from the *.yaml files of DIR, and follow their changes
    #[arg(
        long,
        value_name = "DIR",
        env = "GAUZE_DIRECTORY",
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes"
    )]
    pub directory: Option<PathBuf>,

    #[command(flatten)]
    pub kubernetes: KubernetesSettings,

    /// Serve configuration (ADS) and certificates here, over TLS [default: 127.0.0.1:0; with --kubernetes [::]:15012]
    #[arg(long, value_name = "IP:PORT", env = "GAUZE_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Serve /metrics, /live and /ready here, in plaintext [default: 127.0.0.1:0; with --kubernetes [::]:15014]
    #[arg(long, value_name = "IP:PORT", env = "GAUZE_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,

    /// Serve the operator (`gauze get`, `gauze proxy`) on this Unix socket [default: control-plane.sock in DIR/.gauze, or in the state directory]
    #[arg(long, value_name = "PATH", env = "GAUZE_ADMIN_SOCKET")]
    pub admin_socket: Option<PathBuf>,

    /// The trust domain of every identity: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT
    #[arg(long, value_name = "NAME", env = "GAUZE_TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    pub trust_domain: String,

    /// The namespace of the control plane's own identity
    #[arg(long, value_name = "NAMESPACE", env = "GAUZE_SYSTEM_NAMESPACE", default_value = "gauze-system", value_parser = namespace)]
    pub system_namespace: String,

    /// How long a leaf certificate lives; proxies renew at half of it (5s to 90d)
    #[arg(long, value_name = "DURATION", env = "GAUZE_CERTIFICATE_LIFE", default_value = "24h", value_parser = certificate_life)]
    pub certificate_life: Duration,

    /// Addresses in these networks belong to the mesh; all others pass proxies untouched
    #[arg(
        long,
        value_name = "CIDR,…",
        env = "GAUZE_MESH_NETWORKS",
        value_delimiter = ',',
        default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fc00::/7"
    )]
    pub mesh_networks: Vec<IpNet>,

    /// Whether pods let in plaintext from outside the mesh, where neither pod nor namespace says (`gauze.dev/mtls`)
    #[arg(long, value_name = "permissive|strict", env = "GAUZE_MTLS", default_value = "permissive", value_parser = mtls)]
    pub mtls: Mtls,

    /// What is logged: error, warn, info, debug, trace, or target=level,…
    #[arg(long, value_name = "LEVEL", env = "GAUZE_LOG_LEVEL", default_value = "info", value_parser = logging::level)]
    pub log_level: String,
}

impl Settings {
    /// What holds for the whole mesh.
    pub fn mesh(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            mtls: self.mtls,
            mesh_networks: self.mesh_networks.clone(),
        }
    }

    /// Where configuration and certificates are served.
    pub fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| self.anywhere_or_here(GRPC_PORT))
    }

    /// Where scrapers and probes are answered.
    pub fn metrics_listen(&self) -> SocketAddr {
        self.metrics_listen.unwrap_or_else(|| self.anywhere_or_here(METRICS_PORT))
    }

    fn anywhere_or_here(&self, port: u16) -> SocketAddr {
        match &self.directory {
            Some(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            None => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }

    /// Where the socket lies, and in directory mode root key and tokens.
    pub fn state_directory(&self) -> PathBuf {
        match &self.directory {
            Some(directory) => directory.join(".gauze"),
            None => {
                self.kubernetes.state_directory.clone().unwrap_or_else(|| kubernetes::STATE_DIRECTORY.into())
            }
        }
    }

    /// Where the operator's socket lies.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket.clone().unwrap_or_else(|| self.state_directory().join("control-plane.sock"))
    }
}

/// Ports in a cluster.
const GRPC_PORT: u16 = 15012;
const METRICS_PORT: u16 = 15014;

const CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(5);
const CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

fn certificate_life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    if (CERTIFICATE_LIFE_MIN..=CERTIFICATE_LIFE_MAX).contains(&life) {
        return Ok(life);
    }
    Err("a certificate lives from 5s to 90d".to_owned())
}

/// A whole number with a unit: `500ms`, `10s`, `5m`, `24h`, `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no duration; write for example 500ms, 10s, 5m, 24h or 30d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    let number: u64 = number.parse().map_err(|_| refused())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(refused)
}

fn mtls(text: &str) -> Result<Mtls, String> {
    match text {
        "permissive" => Ok(Mtls::Permissive),
        "strict" => Ok(Mtls::Strict),
        _ => Err("write permissive or strict".to_owned()),
    }
}

fn trust_domain(text: &str) -> Result<String, String> {
    let id = format!("spiffe://{text}/ns/a/sa/b").parse::<gauze_model::SpiffeId>();
    id.map(|id| id.trust_domain)
        .map_err(|_| "a trust domain is made of lower case letters, digits, `.`, `-` and `_`".to_owned())
}

fn namespace(text: &str) -> Result<String, String> {
    let label = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if label { Ok(text.to_owned()) } else { Err("not the name of a namespace".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let all = ["gauze-control-plane", "--directory", "mesh"].iter().chain(arguments);
        Settings::try_parse_from(all).map_err(|e| e.to_string())
    }

    #[test]
    fn a_directory_is_enough() {
        let settings = parse(&[]).unwrap();
        assert_eq!(settings.admin_socket(), PathBuf::from("mesh/.gauze/control-plane.sock"));
        assert_eq!(settings.mesh(), MeshSettings::default());
        assert_eq!(settings.listen().to_string(), "127.0.0.1:0");
        assert_eq!(settings.certificate_life, Duration::from_secs(24 * 3600));
    }

    fn parse_all(arguments: &[&str]) -> Result<Settings, String> {
        let all = ["gauze-control-plane"].iter().chain(arguments);
        Settings::try_parse_from(all).map_err(|e| e.to_string())
    }

    #[test]
    fn a_cluster_needs_the_name_of_the_pod_only() {
        let settings = parse_all(&["--kubernetes", "--pod-name", "gauze-0"]).unwrap();
        assert_eq!(settings.admin_socket(), PathBuf::from("/run/gauze/control-plane.sock"));
        assert_eq!(settings.listen().to_string(), "[::]:15012");
        assert_eq!(settings.metrics_listen().to_string(), "[::]:15014");
    }

    #[test]
    fn objects_come_from_exactly_one_place() {
        for (what, arguments, named) in [
            ("nowhere", &["--mtls", "strict"][..], "--directory"),
            ("both", &["--kubernetes", "--pod-name", "a", "--directory", "mesh"][..], "--directory"),
            ("a cluster, but which pod", &["--kubernetes"][..], "--pod-name"),
            (
                "a kubeconfig without a cluster",
                &["--directory", "mesh", "--kubeconfig", "x"][..],
                "--kubeconfig",
            ),
        ] {
            let refused = parse_all(arguments).expect_err(what);
            assert!(refused.contains(named), "{what}: {refused}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("24h", Some(86_400_000)),
            ("2d", Some(172_800_000)),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("99999999999999999d", None),
        ] {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_could_not_work_is_refused_with_the_flag_named() {
        for (flag, value) in [
            ("--certificate-life", "1s"),
            ("--certificate-life", "100d"),
            ("--trust-domain", "Cluster.Local"),
            ("--system-namespace", "gauze/system"),
            ("--listen", "15010"),
            ("--mesh-networks", "10.0.0.0/8,home"),
            ("--mtls", "off"),
            ("--log-level", "info=loud"),
        ] {
            let refused = parse(&[flag, value]).expect_err(value);
            assert!(refused.contains(flag), "{refused}");
        }
    }
}
