//! What must hold after each step, and in the end.

use std::collections::BTreeSet;

use gauze_model::{Kind, Name, Snapshot};
use gauze_xds::delta::Holding;
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use gauze_xds::{DeltaClient, DeltaServer};

use crate::read;
use crate::world::{Key, World, listener};

/// What was said on one stream.
#[derive(Default)]
pub struct Stream {
    introduced: bool,
    types: BTreeSet<String>,
    nonces: BTreeSet<String>,
}

impl Stream {
    /// A proxy names what it wants: never the wildcard, not even by saying nothing at first.
    pub fn check_requests(&mut self, requests: &[DeltaDiscoveryRequest]) {
        for request in requests {
            assert_eq!(request.node.is_some(), !self.introduced, "the first request introduces it, no other");
            self.introduced = true;
            let answers = !request.response_nonce.is_empty();
            let first = self.types.insert(request.type_url.clone());
            let subscribed = &request.resource_names_subscribe;
            assert!(!first || answers || !subscribed.is_empty(), "the wildcard: {request:?}");
            for name in subscribed.iter().chain(&request.resource_names_unsubscribe) {
                let (kind, name) = read(&request.type_url, name).expect("a name of ours");
                assert!(name.is_of(kind), "{name} as {kind:?}");
            }
            let given_up = |name| request.resource_names_unsubscribe.contains(name);
            assert!(!subscribed.iter().any(given_up), "asked for and given up at once: {request:?}");
        }
    }

    /// A server says what was asked for, each name once.
    pub fn check_responses(&mut self, responses: &[DeltaDiscoveryResponse], server: &DeltaServer) {
        let subscribed: BTreeSet<_> = server.subscribed().cloned().collect();
        for response in responses {
            assert!(self.nonces.insert(response.nonce.clone()), "the nonce {} again", response.nonce);
            let named: Vec<_> = response.resources.iter().map(|resource| &resource.name).collect();
            assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "a name twice: {named:?}");
            for name in named {
                let key = read(&response.type_url, name).expect("a name of ours");
                assert!(subscribed.contains(&key), "{key:?} was never asked for");
            }
            assert!(!response.resources.is_empty() || !response.removed_resources.is_empty(), "says nothing");
        }
    }
}

/// Whatever serves leads only to what serves, or is known not to exist.
pub fn check_whole(snapshot: &Snapshot) {
    for (key, resource) in snapshot.resources() {
        for led_to in resource.refers_to() {
            assert!(snapshot.knows(&led_to), "{key:?} leads to {led_to:?}, of which nothing is known");
        }
    }
    for key in &snapshot.absent {
        assert!(snapshot.get(key.0, &key.1).is_none(), "{key:?} is held and known not to exist");
    }
}

/// How a pod accepts is never taken away, only given up.
pub fn check_inbound_stays(before: &Snapshot, now: &Snapshot, wanted: &BTreeSet<Name>) {
    let inbound = listener(2);
    let held = |snapshot: &Snapshot| snapshot.listeners.contains_key(&inbound);
    let given_up = !wanted.contains(&inbound);
    assert!(!held(before) || held(now) || given_up, "the pod's own listener is gone");
}

/// Both halves hold what the world says of all that is wanted, and of nothing else.
pub fn check_settled(client: &DeltaClient, wanted: &BTreeSet<Name>, server: &DeltaServer, world: &World) {
    let snapshot = client.snapshot();
    let mut ahead: Vec<Key> = wanted.iter().map(|name| (Kind::Listener, name.clone())).collect();
    let mut led_to: BTreeSet<Key> = ahead.iter().cloned().collect();
    while let Some(key) = ahead.pop() {
        let should = world.read(&key);
        let held = snapshot.get(key.0, &key.1);
        let stays = matches!(key.1, Name::Inbound { .. }) && should.is_none();
        assert!(stays || held == should, "{key:?} is {held:?}, and should be {should:?}");
        let sent = server.held().get(&key).unwrap_or_else(|| panic!("{key:?} is not subscribed to"));
        match should {
            None => assert_eq!(sent.acknowledged, Holding::Absent, "{key:?}"),
            Some(_) => assert!(matches!(sent.acknowledged, Holding::Version(_)), "{key:?}: {sent:?}"),
        }
        assert_eq!(sent.acknowledged, sent.sent, "{key:?}");
        assert_eq!(sent.rejected, None, "{key:?}");
        let next = held.map(|resource| resource.refers_to()).unwrap_or_default();
        ahead.extend(next.into_iter().filter(|next| led_to.insert(next.clone())));
    }
    let known: BTreeSet<Key> =
        snapshot.resources().map(|(key, _)| key).chain(snapshot.absent.clone()).collect();
    assert_eq!(known, led_to, "nothing else is known");
    assert_eq!(server.subscribed().cloned().collect::<BTreeSet<_>>(), led_to, "nothing else is asked for");
    assert!(client.rejections().is_empty(), "{:?}", client.rejections());
}
