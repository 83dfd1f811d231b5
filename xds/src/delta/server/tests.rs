use gauze_model::listener::Mtls;

use super::*;
use crate::delta::fixtures::{answered, cluster, endpoints, inbound, name, outbound, routes};

const V1: &str = "cluster/shop/v1/80";
const V2: &str = "cluster/shop/v2/80";
const CART: &str = "routes/shop/cart/80";
const WEB: &str = "outbound/shop/10.0.0.1:80";

/// What there is to say, by kind and name; all else is undecided.
#[derive(Default)]
struct Answers(BTreeMap<Key, Answer>);

impl Answers {
    fn of(resources: impl IntoIterator<Item = EncodedResource>) -> Answers {
        Answers::default().and(resources)
    }

    fn and(mut self, resources: impl IntoIterator<Item = EncodedResource>) -> Answers {
        for resource in resources {
            self.0.insert((resource.kind, resource.name.clone()), Answer::Known(Arc::new(resource)));
        }
        self
    }

    fn without(mut self, kind: Kind, text: &str) -> Answers {
        self.0.insert((kind, name(text)), Answer::Absent);
        self
    }

    fn ask(&self) -> impl FnMut(Kind, &Name) -> Answer + '_ {
        |kind, name| self.0.get(&(kind, name.clone())).cloned().unwrap_or(Answer::Undecided)
    }

    fn names(&self) -> BTreeSet<Key> {
        self.0.keys().cloned().collect()
    }
}

fn subscribe(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url(kind).to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn acknowledge(response: &DeltaDiscoveryResponse, refused: &[Rejection]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail: (!refused.is_empty()).then(|| rejection::to_status(refused)),
        ..DeltaDiscoveryRequest::default()
    }
}

/// Subscribes and returns the lines of the answer.
fn ask(server: &mut DeltaServer, request: DeltaDiscoveryRequest, answers: &Answers) -> Vec<String> {
    answered(&server.on_request(request, &mut answers.ask()).1)
}

fn change(server: &mut DeltaServer, answers: &Answers) -> Vec<DeltaDiscoveryResponse> {
    server.on_change(&answers.names(), &mut answers.ask())
}

fn refusal(of: &str) -> Rejection {
    Rejection {
        kind: Kind::Cluster,
        name: of.to_owned(),
        code: gauze_model::Code::CONFIGURATION_UNSUPPORTED,
        path: "lb_policy".to_owned(),
        problem: "not supported".to_owned(),
        origin: None,
    }
}

#[test]
fn a_name_is_answered_at_once_whether_it_exists_or_not_but_not_before_that_is_decided() {
    let answers = Answers::of([cluster(V1)]).without(Kind::Cluster, V2);
    let mut server = DeltaServer::new();
    let request = subscribe(Kind::Cluster, &[V1, V2, "cluster/shop/later/80"]);
    let (heard, responses) = server.on_request(request, &mut answers.ask());
    assert_eq!(answered(&responses), [format!("Cluster 1 +{V1}"), format!("Cluster 2 -{V2}")]);
    assert_eq!((heard.subscribed.len(), server.subscribed().len()), (3, 3));

    let decided = Answers::of([cluster("cluster/shop/later/80")]);
    assert_eq!(answered(&change(&mut server, &decided)), ["Cluster 3 +cluster/shop/later/80"]);
}

#[test]
fn only_what_differs_from_what_was_sent_is_sent() {
    let answers = Answers::of([endpoints(V1, &["10.0.0.1:80"])]);
    let mut server = DeltaServer::new();
    assert_eq!(ask(&mut server, subscribe(Kind::Endpoints, &[V1]), &answers), [format!("Endpoints 1 +{V1}")]);
    assert_eq!(answered(&change(&mut server, &answers)), [""; 0]);
    let more = Answers::of([endpoints(V1, &["10.0.0.1:80", "10.0.0.2:80"])]);
    assert_eq!(answered(&change(&mut server, &more)), [format!("Endpoints 2 +{V1}")]);
    let others = Answers::of([endpoints(V2, &[])]);
    assert_eq!(answered(&change(&mut server, &others)), [""; 0], "nobody asked for that");
}

#[test]
fn a_reconnect_to_any_replica_sends_only_what_changed() {
    let answers = Answers::of([cluster(V1), cluster(V2)]).without(Kind::Cluster, "cluster/shop/gone/80");
    let mut request = subscribe(Kind::Cluster, &[V1, V2, "cluster/shop/gone/80"]);
    let versions = [(V1, cluster(V1).version), (V2, "older".into()), ("cluster/shop/gone/80", "x".into())];
    request.initial_resource_versions = versions.map(|(name, version)| (name.to_owned(), version)).into();
    let mut server = DeltaServer::new();
    let expected = [format!("Cluster 1 +{V2}"), "Cluster 2 -cluster/shop/gone/80".to_owned()];
    assert_eq!(ask(&mut server, request, &answers), expected);
    let held = &server.held()[&(Kind::Cluster, name(V1))];
    assert_eq!(held.acknowledged, Holding::Version(cluster(V1).version), "held from before");
}

#[test]
fn a_name_that_is_asked_for_again_is_answered_again() {
    let answers = Answers::of([cluster(V1)]);
    let mut server = DeltaServer::new();
    ask(&mut server, subscribe(Kind::Cluster, &[V1]), &answers);
    assert_eq!(ask(&mut server, subscribe(Kind::Cluster, &[V1]), &answers), [format!("Cluster 2 +{V1}")]);
}

#[test]
fn what_is_new_comes_before_what_refers_to_it_and_removals_last() {
    let all = Answers::of([outbound(CART), routes("cart", &[V1]), cluster(V1), endpoints(V1, &[])]);
    let mut server = DeltaServer::new();
    for (kind, names) in [
        (Kind::Listener, vec![WEB]),
        (Kind::Routes, vec![CART]),
        (Kind::Cluster, vec![V1, V2]),
        (Kind::Endpoints, vec![V1, V2]),
    ] {
        ask(&mut server, subscribe(kind, &names), &Answers::default());
    }
    let all = all.without(Kind::Cluster, V2).without(Kind::Endpoints, V2);
    let expected = [
        format!("Cluster 1 +{V1}"),
        format!("Endpoints 2 +{V1}"),
        format!("Listener 3 +{WEB}"),
        format!("Routes 4 +{CART}"),
        format!("Endpoints 5 -{V2}"),
        format!("Cluster 6 -{V2}"),
    ];
    assert_eq!(answered(&change(&mut server, &all)), expected);
}

#[test]
fn an_ack_is_remembered_for_each_name_and_a_nack_for_those_that_it_names() {
    let answers = Answers::of([cluster(V1), cluster(V2)]);
    let mut server = DeltaServer::new();
    let (_, responses) = server.on_request(subscribe(Kind::Cluster, &[V1, V2]), &mut answers.ask());
    let nack = acknowledge(&responses[0], &[refusal(V2)]);
    let (heard, more) = server.on_request(nack, &mut answers.ask());
    assert_eq!((heard.acknowledged, heard.rejections, more.len()), (true, vec![refusal(V2)], 0));

    let good = &server.held()[&(Kind::Cluster, name(V1))];
    assert_eq!(good.acknowledged, Holding::Version(cluster(V1).version));
    let bad = &server.held()[&(Kind::Cluster, name(V2))];
    assert_eq!(bad.acknowledged, Holding::Nothing);
    assert_eq!(bad.rejected, Some((cluster(V2).version, refusal(V2))));

    let removed = Answers::default().without(Kind::Cluster, V2);
    let responses = change(&mut server, &removed);
    server.on_request(acknowledge(&responses[0], &[]), &mut removed.ask());
    let put_right = &server.held()[&(Kind::Cluster, name(V2))];
    assert_eq!((&put_right.acknowledged, &put_right.rejected), (&Holding::Absent, &None));
}

#[test]
fn a_nack_that_names_nothing_refuses_the_whole_response() {
    let answers = Answers::of([cluster(V1), cluster(V2)]);
    let mut server = DeltaServer::new();
    let (_, responses) = server.on_request(subscribe(Kind::Cluster, &[V1, V2]), &mut answers.ask());
    let mut nack = acknowledge(&responses[0], &[refusal("")]);
    nack.error_detail.as_mut().unwrap().details.clear();
    server.on_request(nack, &mut answers.ask());
    let rejected = server.held().values().filter(|held| held.rejected.is_some());
    assert_eq!(rejected.count(), 2);
}

#[test]
fn unknown_and_stale_nonces_mean_nothing() {
    let answers = Answers::of([cluster(V1)]);
    let mut server = DeltaServer::new();
    let (_, responses) = server.on_request(subscribe(Kind::Cluster, &[V1]), &mut answers.ask());
    let mut of_another_type = acknowledge(&responses[0], &[]);
    of_another_type.type_url = type_url(Kind::Routes).to_owned();
    let mut never_sent = acknowledge(&responses[0], &[]);
    never_sent.response_nonce = "77".to_owned();
    for request in [of_another_type, never_sent] {
        let (heard, more) = server.on_request(request, &mut answers.ask());
        assert_eq!((heard, more.len()), (Heard::default(), 0));
    }
    let ack = acknowledge(&responses[0], &[]);
    assert!(server.on_request(ack.clone(), &mut answers.ask()).0.acknowledged);
    assert!(!server.on_request(ack, &mut answers.ask()).0.acknowledged, "answered already");
}

#[test]
fn an_acknowledgement_can_ask_for_more_and_give_up() {
    let answers = Answers::of([cluster(V1), cluster(V2)]);
    let mut server = DeltaServer::new();
    let (_, responses) = server.on_request(subscribe(Kind::Cluster, &[V1]), &mut answers.ask());
    let mut request = acknowledge(&responses[0], &[]);
    request.resource_names_subscribe = vec![V2.to_owned()];
    request.resource_names_unsubscribe = vec![V1.to_owned(), "cluster/shop/never/80".to_owned()];
    let (heard, responses) = server.on_request(request, &mut answers.ask());
    assert_eq!(heard.unsubscribed, BTreeSet::from([(Kind::Cluster, name(V1))]));
    assert_eq!(heard.subscribed, BTreeSet::from([(Kind::Cluster, name(V2))]));
    assert_eq!(answered(&responses), [format!("Cluster 2 +{V2}")]);
    assert_eq!(answered(&change(&mut server, &Answers::default().without(Kind::Cluster, V1))), [""; 0]);
}

#[test]
fn names_that_cannot_be_do_not_exist_and_a_type_that_cannot_be_is_not_answered() {
    let mut server = DeltaServer::new();
    let request = subscribe(Kind::Cluster, &["*", CART]);
    let (heard, responses) = server.on_request(request, &mut Answers::default().ask());
    assert_eq!(heard.unreadable, ["*", CART]);
    assert_eq!(answered(&responses), [format!("Cluster 1 -* -{CART}")]);
    assert_eq!(server.subscribed().len(), 0);

    let request = DeltaDiscoveryRequest { type_url: "x/Secret".into(), ..DeltaDiscoveryRequest::default() };
    let (heard, responses) = server.on_request(request, &mut Answers::default().ask());
    assert_eq!((heard.unreadable, responses.len()), (vec!["x/Secret".to_owned()], 0));
}

#[test]
fn large_answers_travel_in_portions() {
    let many: Vec<String> =
        (0..4000).map(|number| format!("10.{}.{}.1:80", number / 250, number % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let names: Vec<String> = (0..24).map(|number| format!("cluster/shop/s{number}/80")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let answers = Answers::of(names.iter().map(|name| endpoints(name, &many)));
    let mut server = DeltaServer::new();
    let (_, responses) = server.on_request(subscribe(Kind::Endpoints, &names), &mut answers.ask());
    assert!(responses.len() > 1);
    assert!(responses.iter().all(|response| response.encoded_len() < RESPONSE_BYTES + 64 * 1024));
    assert_eq!(responses.iter().map(|response| response.resources.len()).sum::<usize>(), 24);
}

#[test]
fn a_client_that_never_acknowledges_costs_a_bounded_memory() {
    let mut server = DeltaServer::new();
    ask(&mut server, subscribe(Kind::Listener, &["inbound/shop/web-0"]), &Answers::default());
    for round in 0..UNACKNOWLEDGED_MAX + 100 {
        let mtls = if round % 2 == 0 { Mtls::Strict } else { Mtls::Permissive };
        assert_eq!(change(&mut server, &Answers::of([inbound(mtls)])).len(), 1);
    }
    assert_eq!(server.unacknowledged.len(), UNACKNOWLEDGED_MAX);
}
