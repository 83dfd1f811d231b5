//! Proxies without sockets: real clients of the protocol, driven by hand.

use std::collections::BTreeSet;

use gauze_model::name::ServicePort;
use gauze_xds::{DeltaClient, Node};
use serde_json::{Value, json};

use super::*;
use crate::status::HoldingState;
use crate::world::{Event, Object, ObjectKey, ObjectKind};

struct Proxy<'p> {
    push: &'p Push,
    id: StreamId,
    client: DeltaClient,
    /// Names of the resources received, and of those removed, in order.
    received: Vec<String>,
}

fn pod(name: &str) -> Object {
    let pod = json!({
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "serviceAccountName": "web",
            "initContainers": [{"name": "gauze-proxy", "restartPolicy": "Always"}],
            "containers": [],
        },
        "status": {"podIPs": [{"ip": "10.1.0.1"}]},
    });
    Object::Pod(Arc::new(serde_json::from_value(pod).unwrap()))
}

fn service(number: u16) -> Object {
    let service = json!({
        "metadata": {"namespace": "shop", "name": format!("s{number}")},
        "spec": {"clusterIP": address(number), "ports": [{"name": "http", "port": 80}]},
    });
    Object::Service(Arc::new(serde_json::from_value(service).unwrap()))
}

fn address(number: u16) -> String {
    format!("10.96.{}.{}", number / 250, number % 250 + 1)
}

fn split(root: u16, backends: Value) -> Object {
    let split = json!({
        "metadata": {"namespace": "shop", "name": "split"},
        "spec": {"service": format!("s{root}"), "backends": backends},
    });
    Object::TrafficSplit(Arc::new(serde_json::from_value(split).unwrap()))
}

fn push_of(objects: impl IntoIterator<Item = Object>) -> Push {
    let push = Push::new(MeshSettings::default(), Arc::default());
    let events = objects.into_iter().map(Event::Apply).chain([Event::Synced]).collect();
    push.update(vec![Update { events, problems: Vec::new() }], Instant::now());
    push
}

fn apply(push: &Push, events: Vec<Event>) {
    push.update(vec![Update { events, problems: Vec::new() }], Instant::now());
}

impl Proxy<'_> {
    fn connect<'p>(push: &'p Push, pod: &str) -> Proxy<'p> {
        Proxy::reconnect(push, pod, DeltaClient::new(Node::default()))
    }

    fn reconnect<'p>(push: &'p Push, pod: &str, mut client: DeltaClient) -> Proxy<'p> {
        let workload = Workload::find(&push.world(), "shop", pod).unwrap();
        let (id, _wake) = push.open(workload);
        let hello = client.hello();
        let mut proxy = Proxy { push, id, client, received: Vec::new() };
        proxy.say(hello);
        proxy
    }

    fn dial(&mut self, number: u16) {
        let address = format!("{}:80", address(number)).parse().unwrap();
        let requests = self.client.want(Name::Outbound { viewer: "shop".to_owned(), address });
        self.say(requests);
    }

    /// Sends requests, and answers the responses until both are silent.
    fn say(&mut self, requests: Vec<DeltaDiscoveryRequest>) {
        for request in requests {
            let responses = self.push.hear(self.id, request).unwrap();
            self.take(responses);
        }
    }

    fn take(&mut self, responses: Vec<DeltaDiscoveryResponse>) {
        for response in responses {
            self.received.extend(response.resources.iter().map(|resource| resource.name.clone()));
            self.received.extend(response.removed_resources.iter().cloned());
            let requests = self.client.on_response(response);
            self.say(requests);
        }
    }

    /// Takes what is owed; returns the names received.
    fn catch_up(&mut self) -> Vec<String> {
        self.received.clear();
        let responses = self.push.owed(self.id).unwrap();
        self.take(responses);
        std::mem::take(&mut self.received)
    }
}

/// What the proxies hold of the objects of this kind: one letter for each resource (Current, Behind, Refused, a Policy of it closed).
fn states(push: &Push, kind: &str) -> String {
    let proxies = push.heard().proxies;
    let resources = proxies.iter().flat_map(|proxy| &proxy.resources);
    let of_kind = resources.filter(|resource| resource.origins.iter().any(|origin| origin.kind == kind));
    let letters = of_kind.map(|resource| match resource.state {
        HoldingState::Current => 'C',
        HoldingState::Behind => 'B',
        HoldingState::Refused { .. } => 'R',
        HoldingState::Closed(_) => 'P',
    });
    letters.collect()
}

#[test]
fn a_change_reaches_those_who_hold_it_and_nobody_else() {
    let push = push_of([pod("a"), pod("b"), service(1), service(2)]);
    let (mut a, mut b) = (Proxy::connect(&push, "a"), Proxy::connect(&push, "b"));
    a.dial(1);
    b.dial(2);
    apply(&push, vec![Event::Apply(split(1, json!([{"service": "s2", "weight": 1}])))]);
    assert!(a.catch_up().contains(&"routes/shop/s1/80".to_owned()));
    assert_eq!(b.catch_up(), Vec::<String>::new());
}

#[test]
fn what_comes_out_as_the_same_bytes_is_not_sent() {
    let push = push_of([pod("a"), service(1)]);
    let mut a = Proxy::connect(&push, "a");
    a.dial(1);
    apply(&push, vec![Event::Apply(service(1)), Event::Synced]);
    assert_eq!(a.catch_up(), Vec::<String>::new());
}

#[test]
fn who_comes_late_gets_the_latest_state_only() {
    let push = push_of([pod("a"), service(1), service(2), service(3)]);
    let mut a = Proxy::connect(&push, "a");
    a.dial(1);
    for weight in 1..50 {
        let backends =
            json!([{"service": "s2", "weight": weight}, {"service": "s3", "weight": 100 - weight}]);
        apply(&push, vec![Event::Apply(split(1, backends))]);
    }
    let received = a.catch_up();
    assert_eq!(received.iter().filter(|name| *name == "routes/shop/s1/80").count(), 1, "{received:?}");
}

#[test]
fn a_name_is_translated_once_for_all_who_ask() {
    let push = push_of([pod("a"), pod("b"), pod("c"), service(1)]);
    for name in ["a", "b", "c"] {
        Proxy::connect(&push, name).dial(1);
    }
    // The listener, its routes, and the cluster with its endpoints.
    assert_eq!(push.metrics.translate_duration.get_sample_count(), 3);
}

#[test]
fn a_reconnect_with_what_it_held_is_sent_only_what_changed() {
    let push = push_of([pod("a"), service(1), service(2)]);
    let mut before = Proxy::connect(&push, "a");
    before.dial(1);
    before.dial(2);
    push.close(before.id);

    // Another control plane, which knows nothing but the objects; one has changed meanwhile.
    let other =
        push_of([pod("a"), service(1), service(2), split(1, json!([{"service": "s2", "weight": 1}]))]);
    let after = Proxy::reconnect(&other, "a", before.client);
    let received: BTreeSet<_> = after.received.iter().map(String::as_str).collect();
    assert!(received.contains("routes/shop/s1/80"), "{received:?}");
    assert!(
        !received.contains("routes/shop/s2/80") && !received.contains("cluster/shop/s2/80"),
        "{received:?}"
    );
}

#[test]
fn an_object_is_followed_until_every_proxy_holds_it_and_until_none_does() {
    let push = push_of([pod("a"), service(1), service(2)]);
    let mut a = Proxy::connect(&push, "a");
    a.dial(1);
    assert_eq!(states(&push, "TrafficSplit"), "");
    apply(&push, vec![Event::Apply(split(1, json!([{"service": "s2", "weight": 1}])))]);
    assert!(states(&push, "TrafficSplit").contains('B'));
    a.catch_up();
    let held = states(&push, "TrafficSplit");
    assert!(!held.is_empty() && held.chars().all(|state| state == 'C'), "{held}");

    let key =
        ObjectKey { kind: ObjectKind::TrafficSplit, namespace: "shop".to_owned(), name: "split".to_owned() };
    apply(&push, vec![Event::Delete(key)]);
    assert!(states(&push, "TrafficSplit").contains('B'), "it is still followed");
    a.catch_up();
    assert_eq!(states(&push, "TrafficSplit"), "");
}

#[test]
fn a_refusal_is_known_by_its_pod_until_a_later_version_is_taken() {
    let push = push_of([pod("a"), service(1)]);
    let a = Proxy::connect(&push, "a");
    let name = Name::Cluster(ServicePort::new("shop", "s1", 80));
    let type_url = gauze_xds::type_url(gauze_model::Kind::Cluster).to_owned();
    let ask = DeltaDiscoveryRequest {
        type_url: type_url.clone(),
        resource_names_subscribe: vec![name.to_string()],
        ..Default::default()
    };
    let nonce = push.hear(a.id, ask).unwrap().remove(0).nonce;
    let nack = DeltaDiscoveryRequest {
        type_url,
        response_nonce: nonce,
        error_detail: Some(Default::default()),
        ..Default::default()
    };
    push.hear(a.id, nack).unwrap();
    assert_eq!(states(&push, "Service"), "R");
    assert_eq!(push.metrics.rejections.with_label_values(&["cluster"]).get(), 1);
}

#[test]
fn a_proxy_that_left_counts_for_five_minutes() {
    let push = push_of([pod("a"), service(1)]);
    let mut a = Proxy::connect(&push, "a");
    a.dial(1);
    let left = Instant::now();
    push.close(a.id);
    let connected = |at| push.lock().proxies(at).iter().map(|proxy| proxy.connected).collect::<Vec<_>>();
    assert_eq!(connected(left + Duration::from_secs(299)), [false]);
    assert_eq!(connected(left + Duration::from_secs(302)), [] as [bool; 0]);
    assert_eq!(push.lock().answers.len(), 0, "nobody asks any more");
}

#[test]
fn a_pod_counts_once_whatever_it_left_behind() {
    let push = push_of([pod("a")]);
    let first = Proxy::connect(&push, "a");
    push.close(first.id);
    let second = Proxy::connect(&push, "a");
    let third = Proxy::connect(&push, "a");
    push.close(second.id);
    assert_eq!(push.proxies().len(), 1);
    assert_eq!(push.metrics.connected_proxies.get(), 1);
    push.close(third.id);
    assert_eq!(push.proxies().iter().filter(|proxy| !proxy.connected).count(), 1);
}

#[test]
fn a_pod_has_a_few_streams_at_most_and_the_newest_stay() {
    let push = push_of([pod("a")]);
    let workload = Workload::find(&push.world(), "shop", "a").unwrap();
    let ids: Vec<StreamId> = (0..=STREAMS_PER_POD_MAX).map(|_| push.open(workload.clone()).0).collect();
    assert_eq!(push.owed(ids[0]), Err(Refusal::Replaced));
    assert!(ids[1..].iter().all(|id| push.owed(*id).is_ok()));
}

#[tokio::test]
async fn changes_in_a_row_become_one() {
    let push = push_of([service(1)]);
    let before = push.metrics.world_updates.get();
    let (sender, updates) = mpsc::channel(10);
    for number in 2..=6 {
        let events = vec![Event::Apply(service(number))];
        sender.send(Update { events, problems: Vec::new() }).await.unwrap();
    }
    drop(sender);
    push.follow(updates).await;
    assert_eq!(push.metrics.world_updates.get() - before, 1);
    assert_eq!(push.world().objects().count(), 6);
}

#[test]
fn a_stream_ends_with_its_pod() {
    let push = push_of([pod("a")]);
    let a = Proxy::connect(&push, "a");
    apply(&push, vec![Event::Delete(pod("a").key())]);
    assert_eq!(push.owed(a.id).err(), Some(Refusal::PodGone));
    push.close(a.id);
    assert!(push.proxies().is_empty());
}

#[test]
fn what_nobody_asks_for_costs_nothing() {
    let push = push_of((1..10_000).map(service).chain([pod("a")]));
    let mut a = Proxy::connect(&push, "a");
    for number in 1..=20 {
        a.dial(number);
    }
    apply(&push, vec![Event::Synced]);
    assert_eq!(push.metrics.names.get(), 60);
    assert_eq!(push.metrics.translate_duration.get_sample_count(), 120);
}
