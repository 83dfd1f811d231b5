use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use gauze_model::listener::{Inbound, Mtls};
use gauze_model::snapshot::Resource;
use gauze_model::{Code, Kind, Listener, Name, SpiffeId};
use prost::Message as _;

use super::*;
use crate::delta::{Answer, Held, Holding};
use crate::{Accepted, DeltaClient, DeltaServer, EncodedResource, Node, discovery, from_xds, to_xds};

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
fn a_list_of_policies_that_is_none_denies_everything() {
    let (policies, faults) = read(string("none".to_owned()));
    assert_eq!((policies, faults.len()), (vec![unknown()], 1));
}

#[test]
fn what_was_closed_before_stays_closed_and_is_no_news() {
    let policies = vec![policy("allow", Action::Allow).closed(), policy("audit", Action::Audit).closed()];
    let written = to_xds(&name(), &inbound(policies.clone()));
    let expected = Accepted { name: name(), resource: inbound(policies), closed: Vec::new() };
    assert_eq!(from_xds(Kind::Listener, &written), Ok(expected));
}

/// The name, as a server answers it with this resource; and what the client said of it.
fn exchange(client: &mut DeltaClient, server: &mut DeltaServer, answer: &discovery::Resource) -> Held {
    let encoded = Arc::new(EncodedResource {
        kind: Kind::Listener,
        name: name(),
        version: answer.version.clone(),
        resource: answer.clone(),
        origins: BTreeSet::new(),
    });
    let mut answers = |_: Kind, _: &Name| Answer::Known(Arc::clone(&encoded));
    let mut requests = if server.held().is_empty() { client.hello() } else { Vec::new() };
    let mut responses = server.on_change(&[(Kind::Listener, name())].into(), &mut answers);
    while !requests.is_empty() || !responses.is_empty() {
        responses.extend(requests.into_iter().flat_map(|request| server.on_request(request, &mut answers).1));
        requests = responses.into_iter().flat_map(|response| client.on_response(response)).collect();
        responses = Vec::new();
    }
    server.held()[&(Kind::Listener, name())].clone()
}

#[test]
fn the_server_learns_of_a_closed_policy_also_after_a_reconnect_and_until_it_is_put_right() {
    let policies = [policy("allow", Action::Allow), policy("deny", Action::Deny)];
    let newer = |feature: &str| {
        let feature = fact("requires", list([feature.to_owned()]));
        discovery::Resource { version: "1".into(), ..changed(&policies, |facts| facts.push(feature)) }
    };
    let good = discovery::Resource { version: "2".into(), ..to_xds(&name(), &inbound(policies.to_vec())) };
    let mut client = DeltaClient::new(Node::default());
    client.want(name());
    let closed =
        |held: &Held| held.closed.iter().map(|it| it.origin.clone().unwrap().name).collect::<Vec<_>>();

    let mut server = DeltaServer::new();
    let held = exchange(&mut client, &mut server, &newer("moon_phase"));
    assert_eq!(held.acknowledged, Holding::Version("1".to_owned()));
    assert_eq!((closed(&held), held.rejected), (vec!["deny".to_owned()], None));
    assert_eq!(client.rejections(), held.closed);
    assert!(client.snapshot().get(Kind::Listener, &name()).is_some(), "the listener serves");

    let mut another = DeltaServer::new();
    let held = exchange(&mut client, &mut another, &newer("moon_phase"));
    assert_eq!(closed(&held), ["deny"], "another replica hears of it too");

    let held = exchange(&mut client, &mut another, &good);
    assert_eq!((held.acknowledged, held.closed), (Holding::Version("2".to_owned()), Vec::new()));
    assert_eq!(client.rejections(), []);
}
