//! Authorization policies, in the listener's metadata: a list with an entry for each, and each entry is read for itself.
//! One that cannot be read is replaced by its closed form (the same action and ports, as far as they can be read), and
//! the listener that carries it is accepted all the same: who keeps an older one may keep a door open.

use std::collections::BTreeSet;

use envoy_types::pb::google::protobuf::Value;
use gauze_model::Origin;
use gauze_model::authorization::{Action, Operation, Policy, Rule, Source, StringMatch};

use crate::metadata::{Facts, list, list_of, string, string_of, strings_of, values};
use crate::path::{At as _, Fault, Read, each};
use crate::values::read_port;
use crate::{FEATURES, unknown_feature};

pub(super) fn write(policies: &[Policy]) -> Value {
    values(policies.iter().map(|policy| write_policy(policy).into_value()))
}

fn write_policy(policy: &Policy) -> Facts {
    let Policy { origin, action, ports, rules, broken } = policy;
    let mut facts = Facts::origin(origin).with("action", string(word(*action).to_owned()));
    if let Some(ports) = ports {
        facts = facts.with("ports", numbers(ports));
    }
    match broken {
        true => facts.with("closed", list([])),
        false => facts.with("rules", values(rules.iter().map(|rule| write_rule(rule).into_value()))),
    }
}

fn write_rule(rule: &Rule) -> Facts {
    let Rule { from, to } = rule;
    Facts::default()
        .with("from", values(from.iter().map(|source| write_source(source).into_value())))
        .with("to", values(to.iter().map(|operation| write_operation(operation).into_value())))
}

fn write_source(source: &Source) -> Facts {
    let Source { identities, not_identities, namespaces, not_namespaces } = source;
    Facts::default()
        .with("identities", matches(identities))
        .with("not_identities", matches(not_identities))
        .with("namespaces", matches(namespaces))
        .with("not_namespaces", matches(not_namespaces))
}

fn write_operation(operation: &Operation) -> Facts {
    let Operation { methods, not_methods, paths, not_paths, ports, not_ports } = operation;
    Facts::default()
        .with("methods", matches(methods))
        .with("not_methods", matches(not_methods))
        .with("paths", matches(paths))
        .with("not_paths", matches(not_paths))
        .with("ports", numbers(ports))
        .with("not_ports", numbers(not_ports))
}

fn matches(of: &[StringMatch]) -> Value {
    list(of.iter().map(ToString::to_string))
}

fn numbers(ports: &BTreeSet<u16>) -> Value {
    list(ports.iter().map(ToString::to_string))
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Audit => "audit",
    }
}

/// The policies, and what is wrong with those that are closed because of it.
pub(super) fn read(entries: Value) -> (Vec<Policy>, Vec<Fault>) {
    let entries = match list_of(entries) {
        Ok(entries) => entries,
        // How many there are and what they are about is not known either.
        Err(fault) => return (vec![unknown()], vec![fault.at("policies").at("metadata").closed()]),
    };
    let mut closed = Vec::new();
    let policies = entries.into_iter().enumerate().map(|(index, entry)| {
        let (policy, fault) = read_policy(entry);
        closed.extend(
            fault.map(|fault| fault.by(&policy.origin).item(index).at("policies").at("metadata").closed()),
        );
        policy
    });
    let policies = policies.collect();
    (policies, closed)
}

fn read_policy(entry: Value) -> (Policy, Option<Fault>) {
    let mut policy = unknown();
    let fault = Facts::from_value(entry).and_then(|facts| read_facts(facts, &mut policy)).err();
    match fault {
        None => (policy, None),
        Some(fault) => (policy.closed(), Some(fault)),
    }
}

/// What is not known of a policy is taken for what keeps out most.
fn unknown() -> Policy {
    Policy { origin: Origin::default(), action: Action::Deny, ports: None, rules: Vec::new(), broken: true }
}

/// First what must hold of the closed form too.
fn read_facts(mut facts: Facts, policy: &mut Policy) -> Read<()> {
    policy.origin = facts.take_origin()?;
    let action = facts.take("action", |value| string_of(value).and_then(|word| read_action(&word)))?;
    policy.action = action.ok_or_else(|| Fault::new("missing").at("action"))?;
    policy.ports = facts.take("ports", read_numbers)?;
    let required = facts.take("requires", strings_of)?.unwrap_or_default();
    if let Some(feature) = required.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        return Err(unknown_feature(feature));
    }
    let is_closed = facts.take("closed", strings_of)?.is_some();
    let rules = facts.take("rules", |value| each(list_of(value)?, read_rule))?;
    facts.end()?;
    policy.rules = match (is_closed, rules) {
        (true, None) => return Ok(()),
        (false, Some(rules)) => rules,
        _ => return Err(Fault::new("neither `rules` nor `closed`")),
    };
    policy.broken = false;
    Ok(())
}

fn read_action(word: &str) -> Read<Action> {
    let all = [Action::Allow, Action::Deny, Action::Audit];
    let action = all.into_iter().find(|action| self::word(*action) == word);
    action.ok_or_else(|| Fault::beyond(format!("`{word}` is not an action")))
}

fn read_rule(value: Value) -> Read<Rule> {
    let mut facts = Facts::from_value(value)?;
    let from = facts.take("from", |value| each(list_of(value)?, read_source))?;
    let to = facts.take("to", |value| each(list_of(value)?, read_operation))?;
    facts.end()?;
    let missing = |field: &str| Fault::new("missing").at(field);
    Ok(Rule { from: from.ok_or_else(|| missing("from"))?, to: to.ok_or_else(|| missing("to"))? })
}

fn read_source(value: Value) -> Read<Source> {
    let mut facts = Facts::from_value(value)?;
    let mut matches = |key: &str| read_matches(&mut facts, key);
    let source = Source {
        identities: matches("identities")?,
        not_identities: matches("not_identities")?,
        namespaces: matches("namespaces")?,
        not_namespaces: matches("not_namespaces")?,
    };
    facts.end().map(|()| source)
}

fn read_operation(value: Value) -> Read<Operation> {
    let mut facts = Facts::from_value(value)?;
    let operation = Operation {
        methods: read_matches(&mut facts, "methods")?,
        not_methods: read_matches(&mut facts, "not_methods")?,
        paths: read_matches(&mut facts, "paths")?,
        not_paths: read_matches(&mut facts, "not_paths")?,
        ports: required(facts.take("ports", read_numbers)?, "ports")?,
        not_ports: required(facts.take("not_ports", read_numbers)?, "not_ports")?,
    };
    facts.end().map(|()| operation)
}

fn read_matches(facts: &mut Facts, key: &str) -> Read<Vec<StringMatch>> {
    let read = |text: String| text.parse().map_err(|fault| Fault::new(format!("{fault}")));
    required(facts.take(key, |value| each(strings_of(value)?, read))?, key)
}

/// A list that is missing is not taken for one that says nothing.
fn required<T>(field: Option<T>, key: &str) -> Read<T> {
    field.ok_or_else(|| Fault::new("missing").at(key))
}

fn read_numbers(value: Value) -> Read<BTreeSet<u16>> {
    let read = |text: String| {
        let number: u32 = text.parse().map_err(|_| Fault::new(format!("`{text}` is not a port")))?;
        read_port(number)
    };
    each(strings_of(value)?, read).map(|ports| ports.into_iter().collect())
}

#[cfg(test)]
mod tests;
