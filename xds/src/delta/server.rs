//! The control plane's half, one for each stream: answers what is asked for by name, sends only what differs
//! from what the client holds, and remembers what it ACKed and refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use gauze_model::{Kind, Name};
use prost::Message;

use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use crate::{EncodedResource, KINDS, Rejection, kind_of, rejection, type_url};

type Key = (Kind, Name);

/// About so large is a response at most; a larger resource travels alone (gRPC's usual limit is 4 MiB).
const RESPONSE_BYTES: usize = 1024 * 1024;

/// So many responses may be without an ACK; what earlier ones carried counts as not ACKed for good.
const UNACKNOWLEDGED_MAX: usize = 1024;

/// What there is to say about a name.
#[derive(Clone, Debug)]
pub enum Answer {
    Known(Arc<EncodedResource>),
    /// It does not exist: said at once, in `removed_resources`.
    Absent,
    /// Not decided yet: nothing is said.
    Undecided,
}

/// What a request said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub subscribed: BTreeSet<(Kind, Name)>,
    pub unsubscribed: BTreeSet<(Kind, Name)>,
    /// A response was ACKed or NACKed: [`DeltaServer::held`] may have changed.
    pub acknowledged: bool,
    pub rejections: Vec<Rejection>,
    /// Names that are none, or of another type, are answered as not existing; a type that is none, not at all.
    pub unreadable: Vec<String>,
}

/// What the client is known to hold under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Holding {
    /// Nothing was ACKed, nor held from before.
    #[default]
    Nothing,
    /// It ACKed that there is no such resource.
    Absent,
    Version(String),
}

/// One subscription of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What it ACKed last.
    pub acknowledged: Holding,
    /// What was sent last, ACKed or not.
    pub sent: Holding,
    /// The version that it refused last and why; gone when a later one is ACKed.
    pub rejected: Option<(String, Rejection)>,
    /// The authorization policies of what it ACKed last that it could not read, and closed.
    pub closed: Vec<Rejection>,
}

/// What one client has asked for, was sent, and has ACKed.
#[derive(Debug, Default)]
pub struct DeltaServer {
    subscriptions: BTreeMap<Key, Held>,
    /// Responses without an ACK, oldest first.
    unacknowledged: VecDeque<Sent>,
    nonces: u64,
}

/// A response on its way.
#[derive(Debug)]
struct Sent {
    nonce: String,
    kind: Kind,
    carried: Vec<(Name, Holding)>,
}

/// What is to be sent for one kind.
#[derive(Debug, Default)]
struct News {
    resources: Vec<Arc<EncodedResource>>,
    removed: Vec<Name>,
    /// Never subscriptions: the names as they came.
    unreadable: Vec<String>,
}

impl DeltaServer {
    pub fn new() -> DeltaServer {
        DeltaServer::default()
    }

    /// Takes a request; returns what it said, and what must be sent for it.
    pub fn on_request(
        &mut self,
        request: DeltaDiscoveryRequest,
        answers: &mut impl FnMut(Kind, &Name) -> Answer,
    ) -> (Heard, Vec<DeltaDiscoveryResponse>) {
        let DeltaDiscoveryRequest {
            node: _, // who asks is the caller's to check
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            resource_locators_subscribe,
            resource_locators_unsubscribe: _, // never accepted, so nothing to give up
            initial_resource_versions,
            response_nonce,
            error_detail,
        } = request;
        let mut heard = Heard::default();
        let Some(kind) = kind_of(&type_url) else {
            heard.unreadable.push(type_url);
            return (heard, Vec::new());
        };
        if let Some(sent) = self.take_sent(kind, &response_nonce) {
            heard.acknowledged = true;
            heard.rejections =
                error_detail.map(|status| rejection::from_status(kind, &status)).unwrap_or_default();
            self.acknowledge(sent, &heard.rejections);
        }
        for name in &resource_names_unsubscribe {
            heard.unsubscribed.extend(self.unsubscribe(kind, name));
        }
        let locators = resource_locators_subscribe.into_iter().map(|locator| locator.name);
        let mut asked = BTreeSet::new();
        for name in resource_names_subscribe.into_iter().chain(locators) {
            match name.parse::<Name>().ok().filter(|name| name.is_of(kind)) {
                Some(name) => drop(asked.insert((kind, name))),
                None => heard.unreadable.push(name),
            }
        }
        heard.subscribed = self.subscribe(&asked, &initial_resource_versions);
        let mut news = self.news(&asked, answers);
        if !heard.unreadable.is_empty() {
            news.entry(kind).or_default().unreadable = heard.unreadable.clone();
        }
        (heard, self.responses(news))
    }

    /// The answers to these names may have changed; returns what must be sent: what is referred to first,
    /// removals last.
    pub fn on_change(
        &mut self,
        changed: &BTreeSet<(Kind, Name)>,
        answers: &mut impl FnMut(Kind, &Name) -> Answer,
    ) -> Vec<DeltaDiscoveryResponse> {
        let asked = changed.iter().filter(|key| self.subscriptions.contains_key(key)).cloned().collect();
        let news = self.news(&asked, answers);
        self.responses(news)
    }

    /// What the client has asked for.
    pub fn subscribed(&self) -> impl ExactSizeIterator<Item = &(Kind, Name)> {
        self.subscriptions.keys()
    }

    /// What the client has asked for, with what it was sent, holds, and refused.
    pub fn held(&self) -> &BTreeMap<(Kind, Name), Held> {
        &self.subscriptions
    }

    /// The response that a nonce answers; none for one that was never sent or is answered already.
    fn take_sent(&mut self, kind: Kind, nonce: &str) -> Option<Sent> {
        let index = self.unacknowledged.iter().position(|sent| sent.kind == kind && sent.nonce == nonce)?;
        self.unacknowledged.remove(index)
    }

    /// What was carried is held from now on, but for what was refused by name, or all if none is named. What was
    /// refused of a policy closes that policy, and no more.
    fn acknowledge(&mut self, sent: Sent, rejections: &[Rejection]) {
        let whole = rejections.iter().find(|rejection| rejection.name.is_empty());
        let (closed, whole_ones): (Vec<_>, Vec<_>) =
            rejections.iter().partition(|rejection| rejection.is_of_a_policy());
        let by_name: HashMap<&str, &Rejection> =
            whole_ones.into_iter().map(|rejection| (rejection.name.as_str(), rejection)).collect();
        for (name, holding) in sent.carried {
            let text = name.to_string();
            let Some(held) = self.subscriptions.get_mut(&(sent.kind, name)) else { continue };
            match by_name.get(text.as_str()).copied().or(whole) {
                None => {
                    held.acknowledged = holding;
                    held.rejected = None;
                    let of_this = closed.iter().filter(|rejection| rejection.name == text);
                    held.closed = of_this.map(|rejection| (*rejection).clone()).collect();
                }
                Some(rejection) => held.refuse(holding, Rejection { name: text, ..rejection.clone() }),
            }
        }
    }

    fn unsubscribe(&mut self, kind: Kind, name: &str) -> Option<Key> {
        let key = (kind, name.parse().ok()?);
        self.subscriptions.remove(&key).map(|_| key)
    }

    /// Notes what is asked for; returns what was not asked for before. What is asked for again is
    /// answered again.
    fn subscribe(&mut self, asked: &BTreeSet<Key>, versions: &HashMap<String, String>) -> BTreeSet<Key> {
        let mut new = BTreeSet::new();
        for key in asked {
            if let Some(held) = self.subscriptions.get_mut(key) {
                held.sent = Holding::Nothing;
                continue;
            }
            let version = versions.get(&key.1.to_string());
            let before = version.map_or(Holding::Nothing, |version| Holding::Version(version.clone()));
            let held = Held { acknowledged: before.clone(), sent: before, ..Held::default() };
            self.subscriptions.insert(key.clone(), held);
            new.insert(key.clone());
        }
        new
    }

    /// What there is to say about subscribed names that was not said already.
    fn news(
        &mut self,
        asked: &BTreeSet<Key>,
        answers: &mut impl FnMut(Kind, &Name) -> Answer,
    ) -> HashMap<Kind, News> {
        let mut news: HashMap<Kind, News> = HashMap::new();
        for (kind, name) in asked {
            let Some(held) = self.subscriptions.get_mut(&(*kind, name.clone())) else { continue };
            match answers(*kind, name) {
                Answer::Undecided => {}
                Answer::Known(resource) => {
                    if held.send(Holding::Version(resource.version.clone())) {
                        news.entry(*kind).or_default().resources.push(resource);
                    }
                }
                Answer::Absent => {
                    if held.send(Holding::Absent) {
                        news.entry(*kind).or_default().removed.push(name.clone());
                    }
                }
            }
        }
        news
    }

    fn responses(&mut self, mut news: HashMap<Kind, News>) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        for kind in KINDS {
            let resources =
                news.get_mut(&kind).map(|news| mem::take(&mut news.resources)).unwrap_or_default();
            for resources in portions(resources) {
                let carried =
                    resources.iter().map(|it| (it.name.clone(), Holding::Version(it.version.clone())));
                let carried = carried.collect();
                let resources = resources.iter().map(|it| it.resource.clone()).collect();
                responses.push(self.response(kind, resources, Vec::new(), carried));
            }
        }
        for kind in [Kind::Listener, Kind::Routes, Kind::Endpoints, Kind::Cluster] {
            let News { removed, unreadable, .. } = news.remove(&kind).unwrap_or_default();
            if removed.is_empty() && unreadable.is_empty() {
                continue;
            }
            let names = removed.iter().map(ToString::to_string).chain(unreadable).collect();
            let carried = removed.into_iter().map(|name| (name, Holding::Absent)).collect();
            responses.push(self.response(kind, Vec::new(), names, carried));
        }
        responses
    }

    fn response(
        &mut self,
        kind: Kind,
        resources: Vec<Resource>,
        removed_resources: Vec<String>,
        carried: Vec<(Name, Holding)>,
    ) -> DeltaDiscoveryResponse {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        if self.unacknowledged.len() == UNACKNOWLEDGED_MAX {
            self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back(Sent { nonce: nonce.clone(), kind, carried });
        DeltaDiscoveryResponse {
            type_url: type_url(kind).to_owned(),
            nonce,
            resources,
            removed_resources,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

impl Held {
    /// Whether this must be sent: it is not what was sent last.
    fn send(&mut self, next: Holding) -> bool {
        let differs = self.sent != next;
        self.sent = next;
        differs
    }

    fn refuse(&mut self, holding: Holding, rejection: Rejection) {
        if let Holding::Version(version) = holding {
            self.rejected = Some((version, rejection));
        }
    }
}

/// Resources in portions of about [`RESPONSE_BYTES`].
fn portions(resources: Vec<Arc<EncodedResource>>) -> Vec<Vec<Arc<EncodedResource>>> {
    let mut portions: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for resource in resources {
        let size = resource.resource.encoded_len();
        match portions.last_mut().filter(|_| bytes + size <= RESPONSE_BYTES) {
            Some(portion) => portion.push(resource),
            None => {
                bytes = 0;
                portions.push(vec![resource]);
            }
        }
        bytes += size;
    }
    portions
}

#[cfg(test)]
mod tests;
