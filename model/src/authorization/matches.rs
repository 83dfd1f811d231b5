//! Whether a rule matches a call, certainly or possibly.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use super::path::Readings;
use super::{Action, By, Call, Operation, Policy, Rule, Source, StringMatch};

/// A call, and what is found out about it once, should a policy ask.
pub(super) struct Asked<'a> {
    pub(super) call: &'a Call<'a>,
    identity: OnceCell<String>,
    readings: OnceCell<Readings<'a>>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(call: &'a Call<'a>) -> Asked<'a> {
        Asked { call, identity: OnceCell::new(), readings: OnceCell::new() }
    }
}

/// How sure it is that something matches. `certain` implies `possible`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// However what is not known turns out.
    pub certain: bool,
    /// Depending on what is not known.
    pub possible: bool,
}

impl Match {
    pub(super) const UNKNOWN: Match = Match { certain: false, possible: true };

    pub(super) fn known(is: bool) -> Match {
        Match { certain: is, possible: is }
    }

    fn not(self) -> Match {
        Match { certain: !self.possible, possible: !self.certain }
    }

    fn and(self, other: Match) -> Match {
        Match { certain: self.certain && other.certain, possible: self.possible && other.possible }
    }
}

impl Action {
    /// Whether a match is sure enough to act.
    pub(super) fn is_enough(self, found: Match) -> bool {
        match self {
            Action::Allow => found.certain,
            Action::Deny | Action::Audit => found.possible,
        }
    }

    /// As the field `action` has it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
            Action::Audit => "Audit",
        }
    }
}

/// The first rule of the policy that the call matches, as surely as the policy's action asks for.
pub(super) fn matching<'p>(policy: &'p Policy, asked: &Asked<'_>) -> Option<By<'p>> {
    if policy.broken {
        return (policy.action == Action::Deny).then_some(By { policy, rule: None });
    }
    let is_enough = |found| policy.action.is_enough(found);
    let matches = |Rule { from, to }: &Rule| {
        let comes_from = |source| is_enough(source_matches(source, asked));
        let asks_for = |operation| is_enough(operation_matches(operation, asked));
        (from.is_empty() || from.iter().any(comes_from)) && (to.is_empty() || to.iter().any(asks_for))
    };
    policy.rules.iter().position(matches).map(|index| By { policy, rule: Some(index) })
}

pub(super) fn source_matches(source: &Source, asked: &Asked<'_>) -> Match {
    let Source { identities, not_identities, namespaces, not_namespaces } = source;
    let Some(peer) = asked.call.peer else {
        // Who says nothing of itself is none of those who are named, and an ALLOW does not believe that it is another.
        let is_named = !identities.is_empty() || !namespaces.is_empty();
        return if is_named { Match::known(false) } else { Match::UNKNOWN };
    };
    let is_home = peer.trust_domain == asked.call.trust_domain;
    let is = |identities: &[StringMatch]| {
        Match::known(any(identities, asked.identity.get_or_init(|| peer.to_string())))
    };
    let is_in = |namespaces: &[StringMatch]| Match::known(is_home && any(namespaces, &peer.namespace));
    // A stranger's namespace is its own matter, whatever it is called.
    let is_elsewhere =
        |namespaces: &[StringMatch]| if is_home { is_in(namespaces).not() } else { Match::UNKNOWN };
    said(identities, is)
        .and(said(not_identities, |identities| is(identities).not()))
        .and(said(namespaces, is_in))
        .and(said(not_namespaces, is_elsewhere))
}

pub(super) fn operation_matches(operation: &Operation, asked: &Asked<'_>) -> Match {
    let Operation { methods, not_methods, paths, not_paths, ports, not_ports } = operation;
    let is_one = |ports: &BTreeSet<u16>| ports.contains(&asked.call.port);
    Match::known(ports.is_empty() || is_one(ports))
        .and(Match::known(!is_one(not_ports)))
        .and(said(methods, |methods| method_matches(methods, asked)))
        .and(said(not_methods, |methods| method_matches(methods, asked).not()))
        .and(said(paths, |paths| path_matches(paths, asked)))
        .and(said(not_paths, |paths| path_matches(paths, asked).not()))
}

/// An empty list says nothing.
fn said(list: &[StringMatch], matches: impl FnOnce(&[StringMatch]) -> Match) -> Match {
    if list.is_empty() { Match::known(true) } else { matches(list) }
}

/// Methods are compared as they are (RFC 9110, section 9.1), but some servers take `post` for `POST`.
fn method_matches(methods: &[StringMatch], asked: &Asked<'_>) -> Match {
    let Some(http) = asked.call.http else { return Match::UNKNOWN };
    let is_other_case = http.method.bytes().any(|b| b.is_ascii_lowercase());
    let certain = any(methods, http.method);
    Match { certain, possible: certain || (is_other_case && any(methods, &http.method.to_ascii_uppercase())) }
}

fn path_matches(paths: &[StringMatch], asked: &Asked<'_>) -> Match {
    let Some(http) = asked.call.http else { return Match::UNKNOWN };
    asked.readings.get_or_init(|| Readings::of(http.path)).matches(|reading| any(paths, reading))
}

fn any(list: &[StringMatch], value: &str) -> bool {
    list.iter().any(|entry| entry.is_match(value))
}
