//! What the redirect passes by. The init step acts on it; the sidecar is told the same, for the control
//! plane reads a pod's arguments to learn which of its ports speak mesh TLS.

use std::fmt::{self, Display, Formatter};
use std::num::NonZeroU16;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;

/// Ports and networks that are not carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SkippedSettings {
    /// Ports of the app that are reached past the proxy: `25,9000-9100`, or nothing
    #[arg(long, env = "GAUZE_SKIP_INBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub skip_inbound_ports: List<Ports>,

    /// Ports that the app dials past the proxy: `25,9000-9100`, or nothing
    #[arg(long, env = "GAUZE_SKIP_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub skip_outbound_ports: List<Ports>,

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

/// A TCP port, or all from the first to the last: `25`, `9000-9100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Ports {
        Ports { first: port, last: port }
    }
}

/// As it is written.
impl Display for Ports {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Ports, &'static str> {
        const FORM: &str = "expected a port, or FIRST-LAST";
        let port = |text: &str| text.trim().parse::<NonZeroU16>().map(NonZeroU16::get).map_err(|_| FORM);
        let ports = match text.split_once('-') {
            Some((first, last)) => Ports { first: port(first)?, last: port(last)? },
            None => port(text)?.into(),
        };
        if ports.first <= ports.last { Ok(ports) } else { Err("the last port is below the first") }
    }
}

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
            text.parse::<List<Ports>>().map(|List(ports)| ports.iter().map(Ports::to_string).collect())
        };
        let list = |ports: &[&str]| Ok(ports.iter().map(ToString::to_string).collect::<Vec<_>>());
        let refused = |text: &str| Err(text.to_owned());
        for (text, expected) in [
            ("", list(&[])),
            (" ", list(&[])),
            ("22", list(&["22"])),
            ("22, 9000-9100, 80-80", list(&["22", "9000-9100", "80"])),
            ("1-65535", list(&["1-65535"])),
            ("22,", refused("``: expected a port, or FIRST-LAST")),
            ("22,http", refused("`http`: expected a port, or FIRST-LAST")),
            ("0", refused("`0`: expected a port, or FIRST-LAST")),
            ("1-70000", refused("`1-70000`: expected a port, or FIRST-LAST")),
            ("90-80", refused("`90-80`: the last port is below the first")),
        ] {
            assert_eq!(ports(text), expected, "`{text}`");
        }
        assert!("10.0.0.0/8,fd00::/64".parse::<List<IpNet>>().is_ok());
        assert!("10.0.0.0".parse::<List<IpNet>>().is_err(), "a network has a length");
    }
}
