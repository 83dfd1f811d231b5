//! The proxy's half: asks step by step, and lets a listener or route serve only once all that it leads to
//! is held or known not to exist (warming). Until then the previous one serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use gauze_model::snapshot::{Change, Resource};
use gauze_model::{Code, Kind, Name, Snapshot};

use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::{Accepted, KINDS, Rejection, from_xds, kind_of, rejection, type_url};

type Key = (Kind, Name);

/// So many given up names are remembered on one stream; late answers to earlier ones are refused, which does no harm.
const GIVEN_UP_MAX: usize = 4096;

/// What one proxy has asked for, holds, and serves.
#[derive(Debug)]
pub struct DeltaClient {
    node: Node,
    /// Whether the node was said on this stream.
    introduced: bool,
    /// What was asked for by name; all else is asked for because these lead to it.
    wanted: BTreeSet<Key>,
    /// All that is asked for.
    entries: BTreeMap<Key, Entry>,
    /// Where the last answer differs from what serves.
    pending: BTreeSet<Key>,
    /// Given up on this stream: answers to these may still be on their way.
    given_up: BTreeSet<Key>,
    snapshot: Arc<Snapshot>,
}

/// Something asked for.
#[derive(Debug, Default)]
struct Entry {
    last: Last,
    /// Why the answer after that was refused.
    rejection: Option<Rejection>,
    /// The authorization policies of the last good answer that are closed, since they could not be read.
    closed: Vec<Rejection>,
}

/// The last good answer.
#[derive(Debug, Default)]
enum Last {
    #[default]
    None,
    Absent,
    Held {
        version: String,
        resource: Resource,
    },
}

impl DeltaClient {
    /// `node` goes with the first request of each stream.
    pub fn new(node: Node) -> DeltaClient {
        DeltaClient {
            node,
            introduced: false,
            wanted: BTreeSet::new(),
            entries: BTreeMap::new(),
            pending: BTreeSet::new(),
            given_up: BTreeSet::new(),
            snapshot: Arc::default(),
        }
    }

    /// Asks for a listener, and from then on for all that it leads to. Without a stream, drop the requests.
    pub fn want(&mut self, name: Name) -> Vec<DeltaDiscoveryRequest> {
        self.wanted
            .extend(KINDS.into_iter().filter(|kind| name.is_of(*kind)).map(|kind| (kind, name.clone())));
        self.follow(Change::default(), None)
    }

    /// Gives a listener up, and all that only it led to.
    pub fn unwant(&mut self, name: &Name) -> Vec<DeltaDiscoveryRequest> {
        self.wanted.retain(|(_, wanted)| wanted != name);
        self.follow(Change::default(), None)
    }

    /// What to say on a new stream: all that is asked for, with the versions that are held.
    pub fn hello(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.introduced = false;
        self.given_up.clear();
        // A server that still says what was refused says it again on this stream; one that has gone back to what is held
        // says nothing of it.
        self.entries.values_mut().for_each(|entry| entry.rejection = None);
        let greetings: Vec<_> = KINDS.into_iter().filter_map(|kind| self.greeting(kind)).collect();
        self.introduce(greetings)
    }

    /// Takes a response; returns its ACK or NACK, and what is newly asked for or given up.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let DeltaDiscoveryResponse {
            system_version_info: _,
            resources,
            type_url,
            removed_resources,
            removed_resource_names,
            nonce,
            control_plane: _,
            resource_errors: _, // what could not be answered is not answered
        } = response;
        let mut acknowledgement =
            DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..DeltaDiscoveryRequest::default() };
        let Some(kind) = kind_of(&acknowledgement.type_url) else {
            let problem = format!("the type `{}` was never asked for", acknowledgement.type_url);
            let refused = rejected(Kind::Listener, "", problem);
            acknowledgement.error_detail = Some(rejection::to_status(&[refused]));
            return self.introduce(vec![acknowledgement]);
        };
        let mut removed = removed_resources;
        removed.extend(removed_resource_names.into_iter().map(|removed| removed.name));

        let rejections = self.take(kind, &resources, &removed);
        if !rejections.is_empty() {
            acknowledgement.error_detail = Some(rejection::to_status(&rejections));
        }
        let change = self.promote();
        self.follow(change, Some((kind, acknowledgement)))
    }

    /// What serves now: whatever is in it leads only to what is in it, or is known not to exist.
    /// The same `Arc` as before if nothing changed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// What was refused on this stream and has not been put right since; authorization policies that are closed.
    pub fn rejections(&self) -> Vec<Rejection> {
        self.entries.values().flat_map(|entry| entry.rejection.iter().chain(&entry.closed)).cloned().collect()
    }

    /// Takes what is good in a response and returns what is refused.
    fn take(&mut self, kind: Kind, resources: &[discovery::Resource], removed: &[String]) -> Vec<Rejection> {
        let names = resources.iter().map(|resource| &resource.name).chain(removed);
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        names.for_each(|name| *times.entry(name).or_default() += 1);

        let mut rejections = Vec::new();
        for (name, _) in times.iter().filter(|(_, times)| **times > 1) {
            rejections.push(rejected(kind, name, "answered more than once in one response"));
        }
        let once = |name: &str| times.get(name) == Some(&1);
        for resource in resources.iter().filter(|resource| once(&resource.name)) {
            match self.take_resource(kind, resource) {
                Ok(closed) => rejections.extend(closed),
                Err(rejection) => rejections.push(rejection),
            }
        }
        for name in removed.iter().filter(|name| once(name)) {
            self.take_removal(kind, name);
        }
        for rejection in rejections.iter().filter(|rejection| !rejection.is_of_a_policy()) {
            self.note(rejection);
        }
        rejections
    }

    /// Returns the policies that are closed in what is taken.
    fn take_resource(
        &mut self,
        kind: Kind,
        resource: &discovery::Resource,
    ) -> Result<Vec<Rejection>, Rejection> {
        let text = resource.name.as_str();
        let key = text.parse().map(|name| (kind, name)).map_err(|problem| rejected(kind, text, problem))?;
        if self.given_up.contains(&key) {
            return Ok(Vec::new());
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return Err(rejected(kind, text, "never asked for"));
        };
        if matches!(&entry.last, Last::Held { version, .. } if *version == resource.version) {
            entry.rejection = None;
            return Ok(entry.closed.clone());
        }
        let Accepted { name: _, resource: read, closed } = from_xds(kind, resource)?;
        let last = Last::Held { version: resource.version.clone(), resource: read };
        *entry = Entry { last, rejection: None, closed: closed.clone() };
        self.pending.insert(key);
        Ok(closed)
    }

    /// Removals of what was never asked for mean nothing. How a pod accepts is never taken away: what was
    /// held goes on serving.
    fn take_removal(&mut self, kind: Kind, name: &str) {
        let Ok(name) = name.parse::<Name>() else { return };
        let key = (kind, name);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if matches!(key.1, Name::Inbound { .. }) && matches!(entry.last, Last::Held { .. }) {
            return;
        }
        *entry = Entry { last: Last::Absent, ..Entry::default() };
        self.pending.insert(key);
    }

    fn note(&mut self, rejection: &Rejection) {
        let Ok(name) = rejection.name.parse() else { return };
        if let Some(entry) = self.entries.get_mut(&(rejection.kind, name)) {
            entry.rejection = Some(rejection.clone());
        }
    }

    /// Decides which of the pending answers serve from now on.
    fn promote(&mut self) -> Change {
        let mut change = Change::default();
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Routes, Kind::Listener] {
            let held = self.pending.iter().filter(|key| key.0 == kind).filter_map(|key| self.held(key));
            let warm = held.filter(|(_, resource)| self.is_warm(resource, &change));
            let warm: Vec<(Key, Resource)> =
                warm.map(|(key, resource)| (key.clone(), resource.clone())).collect();
            change.upsert.extend(warm);
        }
        let in_use = self.led_to_while_warming(&change);
        let removed = self.pending.iter().filter(|key| matches!(self.last(key), Last::Absent));
        change.absent = removed.filter(|key| !in_use.contains(key)).cloned().collect();
        self.pending.retain(|key| !change.upsert.contains_key(key) && !change.absent.contains(key));
        change
    }

    /// Whether all that `resource` leads to is held or known not to exist; a route table must also serve.
    fn is_warm(&self, resource: &Resource, change: &Change) -> bool {
        resource.refers_to().iter().all(|key| match self.last(key) {
            Last::None => false,
            Last::Absent => true,
            Last::Held { .. } if key.0 == Kind::Routes => {
                change.upsert.contains_key(key) || self.snapshot.routes.contains_key(&key.1)
            }
            Last::Held { .. } => true,
        })
    }

    /// What the serving versions of listeners and routes lead to whose next version is not warm yet: a
    /// removal of that waits, as its next version may do without it.
    fn led_to_while_warming(&self, change: &Change) -> BTreeSet<Key> {
        let warming = self.pending.iter().filter(|key| !change.upsert.contains_key(key));
        let warming = warming.filter(|key| self.held(key).is_some()).cloned();
        let mut in_use = BTreeSet::new();
        let mut ahead: Vec<Key> = warming.collect();
        while let Some(key) = ahead.pop() {
            let serving = self.snapshot.get(key.0, &key.1);
            let led_to = serving.map(|resource| resource.refers_to()).unwrap_or_default();
            ahead.extend(led_to.into_iter().filter(|next| in_use.insert(next.clone())));
        }
        in_use
    }

    /// Makes `change` serve; asks for what is newly led to, and gives up what nothing leads to any more.
    fn follow(
        &mut self,
        change: Change,
        acknowledgement: Option<(Kind, DeltaDiscoveryRequest)>,
    ) -> Vec<DeltaDiscoveryRequest> {
        let answered = acknowledgement.as_ref().map(|(kind, _)| *kind);
        let moved = change.upsert.keys().chain(&change.absent).map(|key| key.0);
        let leads_elsewhere = answered.is_none_or(leads) || moved.into_iter().any(leads);
        self.serve(change);
        let (news, left) = if leads_elsewhere { self.retarget() } else { (Vec::new(), Vec::new()) };
        let forget = left.iter().filter(|key| self.snapshot.knows(key)).cloned().collect();
        self.serve(Change { forget, ..Change::default() });
        let requests = requests(acknowledgement, &news, &left);
        self.introduce(requests)
    }

    fn serve(&mut self, change: Change) {
        if change != Change::default() {
            self.snapshot = Arc::new(self.snapshot.apply(change));
        }
    }

    /// Brings what is asked for in line with what is led to; returns what is new and what is left behind.
    fn retarget(&mut self) -> (Vec<Key>, Vec<Key>) {
        let led_to = self.led_to();
        let news: Vec<Key> = led_to.iter().filter(|key| !self.entries.contains_key(key)).cloned().collect();
        let left: Vec<Key> = self.entries.keys().filter(|key| !led_to.contains(key)).cloned().collect();
        for key in &news {
            self.given_up.remove(key);
            self.entries.insert(key.clone(), Entry::default());
        }
        if self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.clear();
        }
        for key in &left {
            self.entries.remove(key);
            self.pending.remove(key);
            self.given_up.insert(key.clone());
        }
        (news, left)
    }

    /// All that the wanted names lead to, by the versions that serve and by those that warm.
    fn led_to(&self) -> BTreeSet<Key> {
        let mut led_to = self.wanted.clone();
        let mut ahead: Vec<Key> = self.wanted.iter().cloned().collect();
        while let Some(key) = ahead.pop() {
            let serving = self.snapshot.get(key.0, &key.1).map(|resource| resource.refers_to());
            let warming = self.held(&key).map(|(_, resource)| resource.refers_to());
            let next = serving.into_iter().chain(warming).flatten();
            ahead.extend(next.filter(|next| led_to.insert(next.clone())));
        }
        led_to
    }

    fn last(&self, key: &Key) -> &Last {
        self.entries.get(key).map_or(&Last::None, |entry| &entry.last)
    }

    fn held<'k>(&self, key: &'k Key) -> Option<(&'k Key, &Resource)> {
        match self.last(key) {
            Last::Held { resource, .. } => Some((key, resource)),
            Last::None | Last::Absent => None,
        }
    }

    /// The first request for a type on a new stream. None for a type of which nothing is asked for: an
    /// empty first request would be the wildcard.
    fn greeting(&self, kind: Kind) -> Option<DeltaDiscoveryRequest> {
        let mut request =
            DeltaDiscoveryRequest { type_url: type_url(kind).to_owned(), ..DeltaDiscoveryRequest::default() };
        for ((_, name), entry) in self.entries.iter().filter(|((of, _), _)| *of == kind) {
            request.resource_names_subscribe.push(name.to_string());
            // What holds a closed policy is asked for anew, since this server has not heard of it.
            if let (Last::Held { version, .. }, []) = (&entry.last, entry.closed.as_slice()) {
                request.initial_resource_versions.insert(name.to_string(), version.clone());
            }
        }
        (!request.resource_names_subscribe.is_empty()).then_some(request)
    }

    fn introduce(&mut self, mut requests: Vec<DeltaDiscoveryRequest>) -> Vec<DeltaDiscoveryRequest> {
        if let Some(first) = requests.first_mut().filter(|_| !self.introduced) {
            first.node = Some(self.node.clone());
            self.introduced = true;
        }
        requests
    }
}

/// Whether resources of this kind lead to others.
fn leads(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::Routes)
}

/// One request for each type that there is something to say about, the acknowledgement first.
fn requests(
    acknowledgement: Option<(Kind, DeltaDiscoveryRequest)>,
    news: &[Key],
    left: &[Key],
) -> Vec<DeltaDiscoveryRequest> {
    let acknowledged = acknowledgement.as_ref().map(|(kind, _)| *kind);
    let mut requests: Vec<(Kind, DeltaDiscoveryRequest)> = acknowledgement.into_iter().collect();
    for kind in KINDS.into_iter().filter(|kind| Some(*kind) != acknowledged) {
        let type_url = type_url(kind).to_owned();
        requests.push((kind, DeltaDiscoveryRequest { type_url, ..DeltaDiscoveryRequest::default() }));
    }
    for (kind, request) in &mut requests {
        request.resource_names_subscribe = names_of(*kind, news);
        request.resource_names_unsubscribe = names_of(*kind, left);
    }
    requests.retain(|(kind, request)| {
        Some(*kind) == acknowledged
            || !request.resource_names_subscribe.is_empty()
            || !request.resource_names_unsubscribe.is_empty()
    });
    requests.into_iter().map(|(_, request)| request).collect()
}

fn names_of(kind: Kind, keys: &[Key]) -> Vec<String> {
    keys.iter().filter(|key| key.0 == kind).map(|key| key.1.to_string()).collect()
}

fn rejected(kind: Kind, name: &str, problem: impl ToString) -> Rejection {
    let (name, path, problem) = (name.to_owned(), String::new(), problem.to_string());
    Rejection { kind, name, code: Code::CONFIGURATION_REFUSED, path, problem, origin: None }
}

#[cfg(test)]
mod tests;
