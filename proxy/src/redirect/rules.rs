//! Which rules bring a pod's TCP to the proxy: a pure function of the settings. The order is the point:
//! the first rule that matches decides.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Ports, RedirectSettings};
use crate::self_check::{PROBE_PORT, PROBE_V4, PROBE_V6};

/// A table of family `inet`: its chains see IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) chains: [Chain; 2],
}

/// A base chain of type `nat` at priority `dstnat`; what no rule matches is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// What comes from the network.
    Prerouting,
    /// What this machine sends.
    Output,
}

/// All matches must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Tcp,
    /// TCP to one of these ports.
    Port(Ports),
    Destination(IpNet),
    /// The user whose socket it is.
    User(u32),
    /// Over the loopback interface, on the side that the hook is on.
    Loopback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Leave it as it is.
    Return,
    /// To this port of this machine.
    Redirect(u16),
}

/// The rules for these settings.
pub(super) fn table(settings: &RedirectSettings) -> Table {
    Table { name: "gauze", chains: [inbound(settings), outbound(settings)] }
}

fn inbound(settings: &RedirectSettings) -> Chain {
    let skipped = settings.skipped.skip_inbound_ports.0.iter();
    let mut rules = vec![pass(Match::Loopback), pass(Match::Port(settings.metrics_port.into()))];
    rules.extend(skipped.map(|port| pass(Match::Port(*port))));
    rules.push(Rule { matches: vec![Match::Tcp], verdict: Verdict::Redirect(settings.inbound_port) });
    Chain { name: "inbound", hook: Hook::Prerouting, rules }
}

fn outbound(settings: &RedirectSettings) -> Chain {
    let to_proxy = Verdict::Redirect(settings.outbound_port);
    // Above the exemption of the proxy's own user, or the proxy could not test any rule.
    let mut rules: Vec<Rule> = [PROBE_V4, PROBE_V6]
        .map(|probe| Rule {
            matches: vec![host(probe.ip()), Match::Port(PROBE_PORT.into())],
            verdict: to_proxy,
        })
        .into();
    rules.push(pass(Match::User(settings.proxy_uid)));
    rules.extend(settings.skip_uids.0.iter().map(|uid| pass(Match::User(*uid))));
    rules.push(pass(Match::Loopback));
    let skipped = &settings.skipped;
    rules.extend(skipped.skip_outbound_ports.0.iter().map(|port| pass(Match::Port(*port))));
    rules.extend(
        skipped.skip_outbound_cidrs.0.iter().map(|network| pass(Match::Destination(network.trunc()))),
    );
    rules.push(Rule { matches: vec![Match::Tcp], verdict: to_proxy });
    Chain { name: "outbound", hook: Hook::Output, rules }
}

fn pass(matched: Match) -> Rule {
    Rule { matches: vec![matched], verdict: Verdict::Return }
}

fn host(address: IpAddr) -> Match {
    Match::Destination(IpNet::from(address))
}
