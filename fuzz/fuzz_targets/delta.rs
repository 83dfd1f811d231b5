//! Incremental ADS: both halves, a line between them that delivers in order and breaks off, a world that changes, a
//! server that lies and a client that asks for anything. After each step what serves is whole; in the end, once the
//! lies are over and a new stream has been opened, both halves hold what the world says.
#![no_main]

use std::collections::{BTreeSet, VecDeque};

use arbitrary::Arbitrary;
use gauze_model::{Kind, Name, Snapshot};
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use gauze_xds::{DeltaClient, DeltaServer, KINDS, Node, kind_of, type_url};
use libfuzzer_sys::fuzz_target;

#[path = "delta/invariants.rs"]
mod invariants; // what must hold after each step, and in the end
#[path = "delta/world.rs"]
mod world; // what there is to say

use invariants::Stream;
use world::{World, key, listener};

#[derive(Arbitrary, Debug)]
enum Step {
    /// The proxy wants a listener.
    Want(u8),
    /// It does not any more.
    Unwant(u8),
    /// What stands under a name becomes this, and the server hears of it.
    Change(u8, u8),
    /// The oldest request arrives.
    ToServer,
    /// The oldest response arrives.
    ToClient,
    /// The stream breaks, and is opened anew to a server that knows nothing of it.
    Reconnect,
    /// A response that no honest server would send.
    Lie(Lie),
    /// A request that no gauze proxy would send.
    Ask(Ask),
}

#[derive(Arbitrary, Debug)]
struct Lie {
    kind: u8,
    resources: Vec<(u8, u8)>,
    removed: Vec<u8>,
    nonce: u8,
    strange: bool,
}

#[derive(Arbitrary, Debug)]
struct Ask {
    kind: u8,
    subscribe: Vec<u8>,
    unsubscribe: Vec<u8>,
    versions: Vec<(u8, u8)>,
    nonce: u8,
    strange: bool,
}

/// A proxy, a control plane, and the line between them.
struct Mesh {
    client: DeltaClient,
    wanted: BTreeSet<Name>,
    server: DeltaServer,
    world: World,
    stream: Stream,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
}

fuzz_target!(|steps: Vec<Step>| {
    let node = Node { id: "web-0".to_owned(), ..Node::default() };
    let mut mesh = Mesh {
        client: DeltaClient::new(node),
        wanted: BTreeSet::new(),
        server: DeltaServer::new(),
        world: World::default(),
        stream: Stream::default(),
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
    };
    for step in steps.iter().take(300) {
        let before = mesh.client.snapshot();
        mesh.take(step);
        mesh.check(&before);
    }
    mesh.settle();
});

impl Mesh {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Want(which) => {
                self.wanted.insert(listener(*which));
                let said = self.client.want(listener(*which));
                self.say(said);
            }
            Step::Unwant(which) => {
                self.wanted.remove(&listener(*which));
                let said = self.client.unwant(&listener(*which));
                self.say(said);
            }
            Step::Change(which, how) => self.change(*which, *how),
            Step::ToServer => self.hear(),
            Step::ToClient => self.answer(),
            Step::Reconnect => self.reconnect(),
            Step::Lie(lie) => {
                let answer = self.client.on_response(lie.response());
                self.say(answer);
            }
            Step::Ask(ask) => {
                let world = &self.world;
                let (_, responses) =
                    self.server.on_request(ask.request(), &mut |kind, name| world.answer(kind, name));
                self.send(responses);
            }
        }
    }

    fn say(&mut self, requests: Vec<DeltaDiscoveryRequest>) {
        self.stream.check_requests(&requests);
        self.to_server.extend(requests);
    }

    fn send(&mut self, responses: Vec<DeltaDiscoveryResponse>) {
        self.stream.check_responses(&responses, &self.server);
        self.to_client.extend(responses);
    }

    fn change(&mut self, which: u8, how: u8) {
        self.world.set(&key(which), how);
        let world = &self.world;
        let responses =
            self.server.on_change(&[key(which)].into(), &mut |kind, name| world.answer(kind, name));
        self.send(responses);
    }

    fn hear(&mut self) {
        let Some(request) = self.to_server.pop_front() else { return };
        let world = &self.world;
        let (_, responses) = self.server.on_request(request, &mut |kind, name| world.answer(kind, name));
        self.send(responses);
    }

    fn answer(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let nonce = response.nonce.clone();
        let said = self.client.on_response(response);
        let answers = said.iter().filter(|request| request.response_nonce == nonce).count();
        assert_eq!(answers, 1, "a response has one answer: {said:?}");
        self.say(said);
    }

    fn reconnect(&mut self) {
        self.server = DeltaServer::new();
        self.stream = Stream::default();
        self.to_server.clear();
        self.to_client.clear();
        let said = self.client.hello();
        self.say(said);
    }

    fn check(&self, before: &Snapshot) {
        let now = self.client.snapshot();
        invariants::check_whole(&now);
        invariants::check_inbound_stays(before, &now, &self.wanted);
    }

    /// The world is decided and sound, the stream is new, and all that is said arrives.
    fn settle(&mut self) {
        self.world.settle();
        self.reconnect();
        let mut deliveries = 0;
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            let before = self.client.snapshot();
            self.hear();
            self.answer();
            self.check(&before);
            deliveries += 1;
            assert!(deliveries < 1000, "they never come to rest");
        }
        invariants::check_settled(&self.client, &self.wanted, &self.server, &self.world);
    }
}

impl Lie {
    fn response(&self) -> DeltaDiscoveryResponse {
        let resources = self.resources.iter().take(6).map(|(which, how)| {
            let mut resource = world::resource(&key(*which), *how).resource.clone();
            // Nobody can make other bytes of the same version; all else can be a lie.
            resource.version = format!("lie {how}");
            if self.strange && how % 3 == 0 {
                resource.name = "no name".to_owned();
            }
            resource
        });
        DeltaDiscoveryResponse {
            type_url: strange_type(self.kind, self.strange),
            nonce: format!("lie {}", self.nonce),
            resources: resources.collect(),
            removed_resources: self.removed.iter().take(6).map(|which| name(*which, self.strange)).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

impl Ask {
    fn request(&self) -> DeltaDiscoveryRequest {
        let names = |which: &[u8]| which.iter().take(6).map(|which| name(*which, self.strange)).collect();
        let version = |(which, how): &(u8, u8)| {
            (name(*which, false), world::resource(&key(*which), *how).version.clone())
        };
        DeltaDiscoveryRequest {
            type_url: strange_type(self.kind, self.strange),
            resource_names_subscribe: names(&self.subscribe),
            resource_names_unsubscribe: names(&self.unsubscribe),
            initial_resource_versions: self.versions.iter().take(6).map(version).collect(),
            response_nonce: self.nonce.to_string(),
            ..DeltaDiscoveryRequest::default()
        }
    }
}

fn strange_type(kind: u8, strange: bool) -> String {
    match KINDS.get(usize::from(kind % 5)) {
        Some(kind) => type_url(*kind).to_owned(),
        None if strange => "type.googleapis.com/no.such.Type".to_owned(),
        None => type_url(Kind::Cluster).to_owned(),
    }
}

fn name(which: u8, strange: bool) -> String {
    match which {
        250.. if strange => {
            ["", "*", "no name", "cluster/a/b/080", "inbound/shop", "/"][usize::from(which - 250)].to_owned()
        }
        _ => key(which).1.to_string(),
    }
}

/// The kind and name of something that crosses the wire.
fn read(type_url: &str, name: &str) -> Option<(Kind, Name)> {
    Some((kind_of(type_url)?, name.parse().ok()?))
}
