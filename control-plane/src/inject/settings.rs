//! What the operator sets for all injected pods: by flag of the control plane (chart value) or of `gauze inject`.

use clap::{Args, ValueEnum};
use gauze_model::access_log::WrittenFormat;
use ipnet::IpNet;

use super::quantity::Quantity;
use crate::logging;

/// Where the control plane serves configuration and certificates to sidecars.
const CONTROL_PLANE_PORT: u16 = 15012;

/// How sidecars are made. Annotations of a pod override what is a matter of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Injection")]
pub struct InjectionSettings {
    /// The image of the sidecar and of the step that programs the redirect
    #[arg(long, value_name = "IMAGE", env = "GAUZE_PROXY_IMAGE", default_value = concat!("gauze-proxy:", env!("CARGO_PKG_VERSION")))]
    pub proxy_image: String,

    /// When a node pulls that image
    #[arg(long, value_name = "POLICY", env = "GAUZE_PROXY_IMAGE_PULL_POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub proxy_image_pull_policy: PullPolicy,

    /// What sidecars dial for configuration and certificates [default: gauze-control-plane.SYSTEM-NAMESPACE.svc:15012]
    #[arg(long, value_name = "HOST:PORT", env = "GAUZE_CONTROL_PLANE_ADDRESS")]
    pub control_plane_address: Option<String>,

    /// CPU that a sidecar reserves; empty for none
    #[arg(long, value_name = "AMOUNT", env = "GAUZE_PROXY_CPU_REQUEST", default_value = "10m", value_parser = amount)]
    pub proxy_cpu_request: Amount,

    /// CPU that a sidecar may use at most; empty for no limit
    #[arg(long, value_name = "AMOUNT", env = "GAUZE_PROXY_CPU_LIMIT", default_value = "", value_parser = amount)]
    pub proxy_cpu_limit: Amount,

    /// Memory that a sidecar reserves; empty for none
    #[arg(long, value_name = "AMOUNT", env = "GAUZE_PROXY_MEMORY_REQUEST", default_value = "32Mi", value_parser = amount)]
    pub proxy_memory_request: Amount,

    /// Memory that a sidecar may use at most; empty for no limit
    #[arg(long, value_name = "AMOUNT", env = "GAUZE_PROXY_MEMORY_LIMIT", default_value = "256Mi", value_parser = amount)]
    pub proxy_memory_limit: Amount,

    /// What sidecars say of themselves on stderr: error, warn, info, debug, trace, or target=level,…
    #[arg(long, value_name = "LEVEL", env = "GAUZE_PROXY_LOG_LEVEL", default_value = "info", value_parser = logging::level)]
    pub proxy_log_level: String,

    /// The line that sidecars write on stdout for each request and connection: off, json, text, or a format with Envoy's operators
    #[arg(long, value_name = "FORMAT", env = "GAUZE_PROXY_ACCESS_LOG", default_value = "off")]
    pub proxy_access_log: WrittenFormat,

    /// Seconds for which the containers of a pod that is told to end serve on, so that callers go elsewhere first; 0 for none
    #[arg(long, value_name = "SECONDS", env = "GAUZE_PRE_STOP_SLEEP", default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=PRE_STOP_SLEEP_MAX))]
    pub pre_stop_sleep: u64,
}

/// The longest `--pre-stop-sleep`, in seconds.
pub(super) const PRE_STOP_SLEEP_MAX: u64 = 60;

/// An amount, or none.
pub type Amount = Option<Quantity>;

/// `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// All that injection must know besides the pod and its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injector {
    pub settings: InjectionSettings,
    /// The trust domain of every identity.
    pub trust_domain: String,
    /// Where the control plane runs; no pod there is injected.
    pub system_namespace: String,
    /// What belongs to the mesh, as far as it is known now.
    pub mesh_networks: Vec<IpNet>,
}

impl Injector {
    /// What sidecars dial.
    pub fn control_plane_address(&self) -> String {
        let default = || format!("gauze-control-plane.{}.svc:{CONTROL_PLANE_PORT}", self.system_namespace);
        self.settings.control_plane_address.clone().unwrap_or_else(default)
    }
}

impl PullPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

fn amount(text: &str) -> Result<Amount, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: super::quantity::NotAQuantity| error.to_string())
}

#[cfg(test)]
pub(super) fn defaults() -> InjectionSettings {
    tests::parse(&[]).expect("no flag is needed")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        injection: InjectionSettings,
    }

    pub(super) fn parse(arguments: &[&str]) -> Result<InjectionSettings, String> {
        let all = ["program"].iter().chain(arguments);
        Program::try_parse_from(all).map(|program| program.injection).map_err(|error| error.to_string())
    }

    #[test]
    fn no_flag_is_needed_and_an_empty_amount_is_none() {
        let settings = parse(&[]).unwrap();
        assert_eq!(settings.proxy_cpu_limit, None);
        assert_eq!(settings.proxy_memory_limit, Some("256Mi".parse().unwrap()));
        assert_eq!(parse(&["--proxy-memory-limit="]).unwrap().proxy_memory_limit, None);
        assert_eq!(
            parse(&["--proxy-image-pull-policy=Never"]).unwrap().proxy_image_pull_policy,
            PullPolicy::Never
        );
    }

    #[test]
    fn what_could_not_work_is_refused_with_the_flag_named() {
        for (flag, value) in [
            ("--proxy-cpu-request", "ten"),
            ("--proxy-memory-limit", "-1"),
            ("--proxy-image-pull-policy", "Sometimes"),
            ("--proxy-log-level", "info=loud"),
            ("--proxy-access-log", "xml"),
            ("--pre-stop-sleep", "61"),
        ] {
            let refused = parse(&[&format!("{flag}={value}")]).expect_err(value);
            assert!(refused.contains(flag), "{refused}");
        }
    }
}
