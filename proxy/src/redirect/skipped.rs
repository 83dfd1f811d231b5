//! What the redirect passes by. The init step acts on it; the sidecar is told the same, for the control
//! plane reads a pod's arguments to learn which of its ports speak mesh TLS.

use std::fmt::Display;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;

/// Ports and networks that are not carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SkippedSettings {
    /// Ports of the app that are reached past the proxy: `PORT,..`, or nothing
    #[arg(long, env = "GAUZE_SKIP_INBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub skip_inbound_ports: List<Port>,

    /// Ports that the app dials past the proxy: `PORT,..`, or nothing
    #[arg(long, env = "GAUZE_SKIP_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub skip_outbound_ports: List<Port>,

    /// Networks that the app dials past the proxy: `CIDR,..`, or nothing
    #[arg(long, env = "GAUZE_SKIP_OUTBOUND_CIDRS", default_value = "", value_name = "CIDRS")]
    pub skip_outbound_cidrs: List<IpNet>,
}

/// Values between commas; an empty text is an empty list, so that a template may always write the flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

/// A TCP port, 1 to 65535.
pub type Port = std::num::NonZeroU16;

impl<T: FromStr<Err: Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        if text.trim().is_empty() {
            return Ok(List::default());
        }
        let read = |value: &str| value.trim().parse().map_err(|problem| format!("`{value}`: {problem}"));
        text.split(',').map(read).collect::<Result<_, _>>().map(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_empty_and_names_the_value_that_it_cannot_read() {
        let ports = |text: &str| {
            text.parse::<List<Port>>().map(|List(ports)| ports.iter().map(|port| port.get()).collect())
        };
        let refused = |text: &str| Err(text.to_owned());
        for (text, expected) in [
            ("", Ok(vec![])),
            (" ", Ok(vec![])),
            ("22", Ok(vec![22])),
            ("22, 9090", Ok(vec![22, 9090])),
            ("22,", refused("``: cannot parse integer from empty string")),
            ("22,http", refused("`http`: invalid digit found in string")),
            ("0", refused("`0`: number would be zero for non-zero type")),
            ("70000", refused("`70000`: number too large to fit in target type")),
        ] {
            assert_eq!(ports(text), expected, "`{text}`");
        }
        assert!("10.0.0.0/8,fd00::/64".parse::<List<IpNet>>().is_ok());
        assert!("10.0.0.0".parse::<List<IpNet>>().is_err(), "a network has a length");
    }
}
