//! Where TLS connections of a dialled address lead by the server name that they ask for: a filter chain for each rule,
//! and at last one without filters, by which Envoy closes what no rule is for.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch};
use gauze_model::route::HostPattern;
use gauze_model::server_name::TlsRule;

use super::filters::{read_tcp_shares, tcp_shares};
use super::same_chain;
use crate::metadata::{Facts, read_only_origin};
use crate::path::{At as _, Fault, Read, each};

/// The chains of some rules; none of none.
pub(super) fn write(rules: &[TlsRule]) -> Vec<FilterChain> {
    let takes_all = rules.iter().any(|rule| rule.server_names.contains(&HostPattern::Any));
    let rest = (!rules.is_empty() && !takes_all).then(|| chain(Vec::new()));
    rules.iter().map(write_rule).chain(rest).collect()
}

fn write_rule(rule: &TlsRule) -> FilterChain {
    let TlsRule { origin, server_names, shares } = rule;
    let takes_all = server_names.contains(&HostPattern::Any);
    let names = server_names.iter().filter(|_| !takes_all).map(HostPattern::to_string);
    FilterChain {
        filters: tcp_shares(shares).into_iter().collect(),
        metadata: Some(Facts::origin(origin).into_metadata()),
        ..chain(names.collect())
    }
}

/// TLS that asks for one of these names; of none: any TLS.
fn chain(server_names: Vec<String>) -> FilterChain {
    let matches = FilterChainMatch {
        server_names,
        transport_protocol: "tls".to_owned(),
        ..FilterChainMatch::default()
    };
    FilterChain { name: "tls".to_owned(), filter_chain_match: Some(matches), ..FilterChain::default() }
}

/// Reads the chains behind the first `skipped` of a listener.
pub(super) fn read(chains: &[FilterChain], skipped: usize) -> Read<Vec<TlsRule>> {
    let mut rules = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, given) in chains.iter().enumerate() {
        let is_last = index + 1 == chains.len();
        let rule = read_rule(given).item(index + skipped)?;
        for name in &rule.server_names {
            if !seen.insert(name.clone()) {
                return Err(Fault::new(format!("a second chain for `{name}`")).item(index + skipped));
            }
        }
        let closes =
            rule.server_names == [HostPattern::Any] && given.filters.is_empty() && given.metadata.is_none();
        if !closes || !is_last {
            rules.push(rule);
        }
    }
    match chains.is_empty() || seen.contains(&HostPattern::Any) {
        true => Ok(rules),
        false => Err(Fault::new("no chain for TLS that asks for another server name")),
    }
}

fn read_rule(given: &FilterChain) -> Read<TlsRule> {
    let origin = read_only_origin(given.metadata.clone()).at("metadata")?;
    let names = given.filter_chain_match.as_ref().map(|matches| matches.server_names.as_slice());
    let names = names.unwrap_or_default();
    let server_names = match names.is_empty() {
        true => vec![HostPattern::Any],
        false => each(names, |name| read_name(name)).at("server_names").at("filter_chain_match")?,
    };
    let shares = match given.filters.is_empty() {
        true => Vec::new(),
        false => read_tcp_shares(&given.filters).at("filters").by(&origin)?,
    };
    let wanted = FilterChain {
        filters: given.filters.clone(),
        metadata: given.metadata.clone(),
        ..chain(names.to_vec())
    };
    same_chain(given, &wanted).by(&origin)?;
    Ok(TlsRule { origin, server_names, shares })
}

/// In lower case, as Envoy compares it.
fn read_name(name: &str) -> Read<HostPattern> {
    let pattern = match name.strip_prefix("*.") {
        Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
        None => HostPattern::Exact(name.to_owned()),
    };
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let is_name =
        !plain.is_empty() && !plain.contains('*') && !plain.bytes().any(|it| it.is_ascii_uppercase());
    if is_name {
        Ok(pattern)
    } else {
        Err(Fault::new(format!("`{name}` is not a server name in lower case")))
    }
}
