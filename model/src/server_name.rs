//! Where a TLS connection goes by the server name that its ClientHello asks for (Gateway API `TLSRoute`). Pure:
//! whoever reads the ClientHello says what it asks for, and draws among the shares.

use serde::{Deserialize, Serialize};

use crate::listener::WeightedCluster;
use crate::origin::Origin;
use crate::route::{HostPattern, host_of};

/// What carries the TLS connections that ask for some server names (Envoy `FilterChainMatch.server_names`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsRule<S = WeightedCluster> {
    /// The user's rule; `spec.rules[0]`.
    pub origin: Origin,
    /// Never empty. [`HostPattern::Any`], which is also for connections that ask for no name, stands alone.
    pub server_names: Vec<HostPattern>,
    /// Where its connections go, by weight. If no weight is above 0 they are refused.
    pub shares: Vec<S>,
}

/// The rule for a connection: of the name itself, else of the longest wildcard around it, else of every connection; of
/// several equal ones the first. `None`: no rule is for it, so it is refused, as a request is that no rule matches.
pub fn by_server_name<'r, S>(rules: &'r [TlsRule<S>], asked: Option<&str>) -> Option<&'r TlsRule<S>> {
    let asked = asked.map(host_of);
    let fits = |rule: &'r TlsRule<S>| {
        let names = rule.server_names.iter().filter(|name| name.covers(asked.as_deref()));
        names.map(HostPattern::specificity).min().map(|best| (best, rule))
    };
    let best = rules.iter().filter_map(fits).min_by(|(one, _), (other, _)| one.cmp(other));
    best.map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a.b: 0` is a rule for `a.b`; rules are told apart by their paths.
    fn rules(names: &[&[&str]]) -> Vec<TlsRule<()>> {
        let pattern = |name: &&str| match name.strip_prefix("*.") {
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None if *name == "*" => HostPattern::Any,
            None => HostPattern::Exact((*name).to_owned()),
        };
        let rule = |(at, names): (usize, &&[&str])| TlsRule {
            origin: Origin::default().at(at.to_string()),
            server_names: names.iter().map(pattern).collect(),
            shares: Vec::new(),
        };
        names.iter().enumerate().map(rule).collect()
    }

    #[test]
    fn the_most_specific_server_name_decides() {
        const NAMES: &[&[&str]] =
            &[&["*.example.com"], &["a.example.com", "b.example.com"], &["*.a.example.com"]];
        const WITH_ANY: &[&[&str]] = &[&["*"], &["*.com"], &["a.com"], &["a.com", "*.b.com"]];
        for (what, names, asked, wanted) in [
            ("the name itself goes before a wildcard", NAMES, Some("a.example.com"), Some("1")),
            ("any name of a rule counts", NAMES, Some("b.example.com"), Some("1")),
            ("a wildcard is for what no rule names", NAMES, Some("c.example.com"), Some("0")),
            ("the longest wildcard counts", NAMES, Some("x.a.example.com"), Some("2")),
            ("a wildcard stands for several labels", NAMES, Some("x.y.c.example.com"), Some("0")),
            ("a wildcard is not for its own suffix", NAMES, Some("example.com"), None),
            ("nor for what merely ends like it", NAMES, Some("notexample.com"), None),
            ("nor for an empty label", NAMES, Some(".example.com"), None),
            ("case does not count", NAMES, Some("A.Example.COM"), Some("1")),
            ("a final dot does not count", NAMES, Some("a.example.com."), Some("1")),
            ("what no rule names is nobody's", NAMES, Some("a.example.org"), None),
            ("what asks for nothing is nobody's", NAMES, None, None),
            ("without rules everything is nobody's", &[], Some("a.example.com"), None),
            ("a rule for every name comes last", WITH_ANY, Some("b.com"), Some("1")),
            ("and is for names that no other has", WITH_ANY, Some("a.org"), Some("0")),
            ("and for connections that ask for none", WITH_ANY, None, Some("0")),
            ("of two rules with one name the first counts", WITH_ANY, Some("a.com"), Some("2")),
        ] {
            let rules = rules(names);
            let found = by_server_name(&rules, asked).map(|rule| rule.origin.path.as_str());
            assert_eq!(found, wanted, "{what}");
        }
    }
}
