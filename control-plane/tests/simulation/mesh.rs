//! Proxies, the control plane, and the queues between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use gauze_control_plane::translate::{self, translate};
use gauze_control_plane::world::{Event, MeshSettings, Touched, World};
use gauze_model::snapshot::{Change, Resource};
use gauze_model::{Kind, Name, Snapshot};
use gauze_xds::delta::{Answer, Holding};
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use gauze_xds::{DeltaClient, DeltaServer, EncodedResource, KINDS, Node, from_xds, to_xds};

use crate::objects;

pub(crate) struct Mesh {
    world: World,
    /// What was translated, until it is touched.
    answers: BTreeMap<Name, translate::Answer>,
    /// What changed and was not pushed yet.
    touched: Touched,
    proxies: Vec<Proxy>,
}

struct Proxy {
    delta: DeltaClient,
    wanted: BTreeSet<Name>,
    stream: Option<Stream>,
}

/// Both directions of a connection, and the control plane's end of it.
#[derive(Default)]
struct Stream {
    delta: DeltaServer,
    requests: VecDeque<DeltaDiscoveryRequest>,
    responses: VecDeque<DeltaDiscoveryResponse>,
}

impl Mesh {
    /// A control plane that is not synced yet, and proxies that are not connected yet.
    pub(crate) fn new(random: &mut Rng) -> Mesh {
        let mut mesh = Mesh {
            world: World::new(MeshSettings::default()),
            answers: BTreeMap::new(),
            touched: Touched::default(),
            proxies: (0..objects::PODS).map(|pod| Proxy::new([objects::inbound(pod)])).collect(),
        };
        for _ in 0..random.u8(..30) {
            mesh.change(objects::change(random));
        }
        mesh
    }

    /// One thing happens.
    pub(crate) fn step(&mut self, random: &mut Rng) {
        let index = random.usize(..self.proxies.len());
        match random.u8(..100) {
            0..8 => self.change(objects::change(random)),
            8..10 => self.change(Event::Synced),
            10..18 => self.push(),
            18..24 => self.proxies[index].want(objects::dialled(random)),
            24..27 => self.proxies[index].unwant(random),
            27..29 => self.proxies[index].stream = None,
            29..33 => self.proxies[index].connect(),
            33 => self.proxies[index].restart(),
            34 if random.u8(..4) == 0 => self.restart(),
            35..68 => self.hear(index),
            _ => self.proxies[index].hear(),
        }
        self.proxies[index].check_leads_somewhere();
    }

    /// Everything is connected, told and acknowledged.
    pub(crate) fn come_to_rest(&mut self) {
        self.change(Event::Synced);
        self.push();
        for index in 0..self.proxies.len() {
            self.proxies[index].connect();
            while self.proxies[index].is_busy() {
                self.hear(index);
                self.proxies[index].hear();
                self.proxies[index].check_leads_somewhere();
            }
        }
    }

    /// What each proxy serves is what its names yield, and the control plane knows that.
    pub(crate) fn check_at_rest(&self) {
        for proxy in &self.proxies {
            assert_eq!(*proxy.delta.snapshot(), self.expected(proxy));
            assert_eq!(proxy.delta.rejections(), []);
            let stream = proxy.stream.as_ref().expect("connected");
            for ((kind, name), held) in stream.delta.held() {
                let acknowledged = match self.fresh_answer(*kind, name) {
                    Some(resource) => Holding::Version(EncodedResource::new(name.clone(), &resource).version),
                    None => Holding::Absent,
                };
                assert_eq!(held.acknowledged, acknowledged, "{kind:?} {name}");
            }
        }
    }

    fn change(&mut self, event: Event) {
        let touched = self.world.apply(event);
        self.touched.extend(touched);
    }

    /// Tells all streams what was touched.
    fn push(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        let changed: Vec<Name> = self.answers.keys().filter(|name| touched.contains(name)).cloned().collect();
        for name in &changed {
            self.answers.insert(name.clone(), translate(&self.world, name).answer);
        }
        let changed = changed.iter().flat_map(|name| KINDS.map(|kind| (kind, name.clone()))).collect();
        for stream in self.proxies.iter_mut().filter_map(|proxy| proxy.stream.as_mut()) {
            let responses = stream
                .delta
                .on_change(&changed, &mut |kind, name| answer(&mut self.answers, &self.world, kind, name));
            stream.responses.extend(responses);
        }
    }

    /// The control plane hears the next request of a proxy.
    fn hear(&mut self, index: usize) {
        let Some(stream) = &mut self.proxies[index].stream else { return };
        let Some(request) = stream.requests.pop_front() else { return };
        let (heard, responses) = stream
            .delta
            .on_request(request, &mut |kind, name| answer(&mut self.answers, &self.world, kind, name));
        assert_eq!((heard.rejections, heard.unreadable), (Vec::new(), Vec::new()));
        stream.responses.extend(responses);
    }

    /// Another replica takes over: streams and memory are gone, the world is the same.
    fn restart(&mut self) {
        self.answers.clear();
        self.touched = Touched::default();
        self.proxies.iter_mut().for_each(|proxy| proxy.stream = None);
    }

    /// What a proxy that asks for its names today serves in the end.
    fn expected(&self, proxy: &Proxy) -> Snapshot {
        let served = proxy.delta.snapshot();
        let mut change = Change::default();
        let mut ahead: Vec<(Kind, Name)> =
            proxy.wanted.iter().map(|name| (Kind::Listener, name.clone())).collect();
        while let Some((kind, name)) = ahead.pop() {
            // How a pod accepts is never taken away, so the last one counts where there is none now.
            let kept = served.get(kind, &name).filter(|_| matches!(name, Name::Inbound { .. }));
            match self.fresh_answer(kind, &name).or(kept) {
                None => drop(change.absent.insert((kind, name))),
                Some(resource) => {
                    let led_to = resource.refers_to();
                    change.upsert.insert((kind, name), resource);
                    let known =
                        |key: &(Kind, Name)| change.upsert.contains_key(key) || change.absent.contains(key);
                    ahead.extend(led_to.into_iter().filter(|key| !known(key)));
                }
            }
        }
        Snapshot::default().apply(change)
    }

    /// From scratch, and as it comes over the wire.
    fn fresh_answer(&self, kind: Kind, name: &Name) -> Option<Resource> {
        let answer = translate(&self.world, name).answer;
        let written = to_xds(name, answer.resource(kind)?);
        Some(from_xds(kind, &written).expect("what is translated can be read").resource)
    }
}

fn answer(answers: &mut BTreeMap<Name, translate::Answer>, world: &World, kind: Kind, name: &Name) -> Answer {
    let known = answers.entry(name.clone()).or_insert_with(|| translate(world, name).answer);
    match known {
        translate::Answer::Undecided => Answer::Undecided,
        translate::Answer::Absent | translate::Answer::Known(_) => match known.resource(kind) {
            Some(resource) => Answer::Known(Arc::new(EncodedResource::new(name.clone(), resource))),
            None => Answer::Absent,
        },
    }
}

impl Proxy {
    fn new(wanted: impl IntoIterator<Item = Name>) -> Proxy {
        let mut delta = DeltaClient::new(Node::default());
        let wanted: BTreeSet<Name> = wanted.into_iter().collect();
        for name in &wanted {
            delta.want(name.clone());
        }
        Proxy { delta, wanted, stream: None }
    }

    fn want(&mut self, name: Name) {
        self.wanted.insert(name.clone());
        let requests = self.delta.want(name);
        self.say(requests);
    }

    fn unwant(&mut self, random: &mut Rng) {
        let given_up = self.wanted.iter().nth(random.usize(..self.wanted.len().max(1))).cloned();
        let Some(name) = given_up.filter(|name| !matches!(name, Name::Inbound { .. })) else { return };
        self.wanted.remove(&name);
        let requests = self.delta.unwant(&name);
        self.say(requests);
    }

    /// Where there is no stream, what is said is lost.
    fn say(&mut self, requests: Vec<DeltaDiscoveryRequest>) {
        if let Some(stream) = &mut self.stream {
            stream.requests.extend(requests);
        }
    }

    fn connect(&mut self) {
        if self.stream.is_none() {
            self.stream = Some(Stream::default());
            let hello = self.delta.hello();
            self.say(hello);
        }
    }

    fn restart(&mut self) {
        *self = Proxy::new(std::mem::take(&mut self.wanted));
    }

    /// The proxy hears the next response.
    fn hear(&mut self) {
        let Some(response) = self.stream.as_mut().and_then(|stream| stream.responses.pop_front()) else {
            return;
        };
        let requests = self.delta.on_response(response);
        self.say(requests);
    }

    fn is_busy(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| !stream.requests.is_empty() || !stream.responses.is_empty())
    }

    /// Whatever serves leads only to what is held, or is known not to exist.
    fn check_leads_somewhere(&self) {
        let snapshot = self.delta.snapshot();
        for (key, resource) in snapshot.resources() {
            for led_to in resource.refers_to() {
                assert!(snapshot.knows(&led_to), "{key:?} leads to {led_to:?}, which is not known");
            }
        }
    }
}
