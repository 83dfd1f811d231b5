//! Arbitrary authorization policies.

use gauze_model::authorization::{Action, Operation, Policy, Rule, Source, StringMatch};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::origin;

pub(super) fn policy() -> impl Strategy<Value = Policy> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Audit)];
    let ports = option::of(btree_set(any::<u16>(), 0..3));
    let rules = vec(rule(), 0..3);
    (origin(), action, ports, rules, prop::bool::weighted(0.2)).prop_map(
        |(origin, action, ports, rules, is_broken)| {
            let policy = Policy { origin, action, ports, rules, broken: false };
            if is_broken { policy.closed() } else { policy }
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    (vec(source(), 0..3), vec(operation(), 0..3)).prop_map(|(from, to)| Rule { from, to })
}

fn source() -> impl Strategy<Value = Source> {
    (matches(), matches(), matches(), matches()).prop_map(
        |(identities, not_identities, namespaces, not_namespaces)| Source {
            identities,
            not_identities,
            namespaces,
            not_namespaces,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let ports = || btree_set(any::<u16>(), 0..3);
    (matches(), matches(), matches(), matches(), ports(), ports()).prop_map(
        |(methods, not_methods, paths, not_paths, ports, not_ports)| Operation {
            methods,
            not_methods,
            paths,
            not_paths,
            ports,
            not_ports,
        },
    )
}

fn matches() -> impl Strategy<Value = Vec<StringMatch>> {
    let text = "[a-z0-9:/. é-]{1,12}";
    let one = prop_oneof![
        Just(StringMatch::Any),
        text.prop_map(StringMatch::Exact),
        text.prop_map(StringMatch::Prefix),
        text.prop_map(StringMatch::Suffix),
    ];
    vec(one, 0..3)
}
