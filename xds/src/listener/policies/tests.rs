use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use gauze_model::listener::{Inbound, Mtls};
use gauze_model::snapshot::Resource;
use gauze_model::{Code, Kind, Listener, Name, Origin, SpiffeId};
use prost::Message as _;

use super::*;
use crate::{Accepted, discovery, from_xds, to_xds};

fn policy(name: &str, action: Action) -> Policy {
    let text = |text: &str| vec![text.parse().unwrap()];
    Policy {
        origin: Origin {
            kind: "AuthorizationPolicy".into(),
            namespace: "shop".into(),
            name: name.into(),
            ..Origin::default()
        },
        action,
        ports: Some([8080].into()),
        rules: vec![Rule {
            from: vec![Source { identities: text("*/sa/web"), ..Source::default() }],
            to: vec![Operation { paths: text("/admin*"), ..Operation::default() }],
        }],
        broken: false,
    }
}

fn name() -> Name {
    "inbound/shop/cart-0".parse().unwrap()
}

fn inbound(policies: Vec<Policy>) -> Resource {
    Resource::Listener(Arc::new(Listener::Inbound(Inbound {
        origin: Origin { kind: "Pod".into(), ..Origin::default() },
        identity: SpiffeId::new("cluster.local", "shop", "cart"),
        addresses: vec!["10.1.0.4".parse().unwrap()],
        mtls: Mtls::Permissive,
        ports: BTreeMap::new(),
        mesh_networks: Vec::new(),
        policies,
    })))
}

/// The resource with the facts of its second policy changed.
fn changed(policies: &[Policy], change: impl FnOnce(&mut Vec<Value>)) -> discovery::Resource {
    use envoy_types::pb::envoy::config::listener::v3::Listener as Message;
    use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
    let mut resource = to_xds(&name(), &inbound(policies.to_vec()));
    let mut message = Message::decode(resource.resource.as_ref().unwrap().value.as_slice()).unwrap();
    let mut facts = Facts::read(message.metadata.take()).unwrap();
    let mut entries = facts.take("policies", list_of).unwrap().unwrap();
    if let Some(ValueKind::ListValue(entry)) = &mut entries[1].kind {
        change(&mut entry.values);
    }
    message.metadata = Some(facts.with("policies", values(entries)).into_metadata());
    let type_url = resource.resource.unwrap().type_url;
    resource.resource = Some(Any { type_url, value: message.encode_to_vec() });
    resource
}

/// A fact among facts.
fn fact(key: &str, value: Value) -> Value {
    let mut facts = list_of(Facts::default().with(key, value).into_value()).unwrap();
    facts.remove(0)
}

#[test]
fn a_policy_that_cannot_be_read_is_closed_and_refuses_neither_the_listener_nor_the_others() {
    let (allow, deny) = (policy("allow", Action::Allow), policy("deny", Action::Deny));
    type Change = fn(&mut Vec<Value>);
    let cases: [(&str, Change, Policy, &str); 6] = [
        (
            "it requires a feature that this version does not have",
            |facts| facts.push(fact("requires", list(["moon_phase".to_owned()]))),
            deny.clone().closed(),
            "metadata.policies[1]: requires the feature `moon_phase`, which this version does not have",
        ),
        (
            "it says more than this version knows",
            |facts| facts.push(fact("mood", string("good".to_owned()))),
            deny.clone().closed(),
            "metadata.policies[1].mood: not supported",
        ),
        (
            "its rules have another form",
            |facts| facts[3] = fact("rules", list(["deny".to_owned()])),
            deny.clone().closed(),
            "metadata.policies[1].rules[0]: not a list",
        ),
        (
            "it has no rules",
            |facts| drop(facts.remove(3)),
            deny.clone().closed(),
            "metadata.policies[1]: neither `rules` nor `closed`",
        ),
        (
            "its ports are none: then it is for all",
            |facts| facts[2] = fact("ports", list(["http".to_owned()])),
            Policy { ports: None, ..deny.clone().closed() },
            "metadata.policies[1].ports[0]: `http` is not a port",
        ),
        (
            "its action is unknown: then it denies",
            |facts| facts[1] = fact("action", string("delay".to_owned())),
            Policy { ports: None, ..deny.clone().closed() },
            "metadata.policies[1].action: `delay` is not an action",
        ),
    ];
    for (what, change, closed, problem) in cases {
        let policies = [allow.clone(), deny.clone()];
        let Accepted { resource, closed: found, .. } =
            from_xds(Kind::Listener, &changed(&policies, change)).expect(what);
        assert_eq!(resource, inbound(vec![allow.clone(), closed]), "{what}");
        let found: Vec<_> = found
            .into_iter()
            .map(|it| (it.code, it.origin.map(|it| it.name), format!("{}: {}", it.path, it.problem)))
            .collect();
        assert_eq!(found, [(Code::POLICY_CLOSED, Some("deny".to_owned()), problem.to_owned())], "{what}");
    }
}

#[test]
fn what_was_closed_before_stays_closed_and_is_no_news() {
    let policies = vec![policy("allow", Action::Allow).closed(), policy("audit", Action::Audit).closed()];
    let written = to_xds(&name(), &inbound(policies.clone()));
    let expected = Accepted { name: name(), resource: inbound(policies), closed: Vec::new() };
    assert_eq!(from_xds(Kind::Listener, &written), Ok(expected));
}
