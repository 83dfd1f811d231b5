//! The rules as `nft list table inet gauze` shows them, and as `nft -f` reads them.

use std::fmt::{Display, Formatter, Result};

use ipnet::IpNet;

use super::rules::{Chain, Hook, Match, Rule, Table, Verdict};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            print_chain(chain, f)?;
        }
        writeln!(f, "}}")
    }
}

fn print_chain(chain: &Chain, f: &mut Formatter<'_>) -> Result {
    // nft gives the one priority of both a name in one hook only.
    let (hook, interface) = match chain.hook {
        Hook::Prerouting => ("prerouting priority dstnat", "iifname"),
        Hook::Output => ("output priority -100", "oifname"),
    };
    writeln!(f, "\tchain {} {{", chain.name)?;
    writeln!(f, "\t\ttype nat hook {hook}; policy accept;")?;
    for rule in &chain.rules {
        print_rule(rule, interface, f)?;
    }
    writeln!(f, "\t}}")
}

fn print_rule(rule: &Rule, interface: &str, f: &mut Formatter<'_>) -> Result {
    write!(f, "\t\t")?;
    for matched in &rule.matches {
        match matched {
            Match::Tcp => write!(f, "meta l4proto tcp ")?,
            Match::Port(port) => write!(f, "tcp dport {port} ")?,
            Match::Destination(network) => print_destination(network, f)?,
            Match::User(uid) => write!(f, "meta skuid {uid} ")?,
            Match::Loopback => write!(f, "{interface} \"lo\" ")?,
        }
    }
    match rule.verdict {
        Verdict::Return => writeln!(f, "return"),
        Verdict::Redirect(port) => writeln!(f, "redirect to :{port}"),
    }
}

/// A single host is written without its length.
fn print_destination(network: &IpNet, f: &mut Formatter<'_>) -> Result {
    let family = if matches!(network, IpNet::V4(_)) { "ip" } else { "ip6" };
    match network.prefix_len() == network.max_prefix_len() {
        true => write!(f, "{family} daddr {} ", network.addr()),
        false => write!(f, "{family} daddr {network} "),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::redirect::{RedirectSettings, rules};

    fn printed(arguments: &str) -> String {
        let arguments = format!("redirect {arguments}");
        let settings = RedirectSettings::try_parse_from(arguments.split_whitespace()).expect(&arguments);
        rules::table(&settings).to_string()
    }

    #[test]
    fn by_default_all_tcp_is_redirected_but_the_proxys_own_and_its_probes() {
        assert_eq!(
            printed(""),
            "table inet gauze {
\tchain inbound {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport 15020 return
\t\tmeta l4proto tcp redirect to :15006
\t}

\tchain outbound {
\t\ttype nat hook output priority -100; policy accept;
\t\tip daddr 192.0.2.1 tcp dport 15002 redirect to :15001
\t\tip6 daddr 2001:db8::1 tcp dport 15002 redirect to :15001
\t\tmeta skuid 1337 return
\t\toifname \"lo\" return
\t\tmeta l4proto tcp redirect to :15001
\t}
}
"
        );
    }

    #[test]
    fn what_is_to_be_skipped_stands_above_the_redirect() {
        let arguments = "--proxy-uid 2102 --outbound-port 4140 --inbound-port 4143 --metrics-port 4191 \
            --skip-inbound-ports 22,9000-9090 --skip-outbound-ports 3306 --skip-outbound-cidrs 10.1.2.3/8,fd00::/64 --skip-uids 0,7";
        assert_eq!(
            printed(arguments),
            "table inet gauze {
\tchain inbound {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport 4191 return
\t\ttcp dport 22 return
\t\ttcp dport 9000-9090 return
\t\tmeta l4proto tcp redirect to :4143
\t}

\tchain outbound {
\t\ttype nat hook output priority -100; policy accept;
\t\tip daddr 192.0.2.1 tcp dport 15002 redirect to :4140
\t\tip6 daddr 2001:db8::1 tcp dport 15002 redirect to :4140
\t\tmeta skuid 2102 return
\t\tmeta skuid 0 return
\t\tmeta skuid 7 return
\t\toifname \"lo\" return
\t\ttcp dport 3306 return
\t\tip daddr 10.0.0.0/8 return
\t\tip6 daddr fd00::/64 return
\t\tmeta l4proto tcp redirect to :4140
\t}
}
"
        );
    }
}
