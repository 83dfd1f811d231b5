use gauze_model::listener::Mtls;

use super::*;
use crate::EncodedResource;
use crate::delta::fixtures::{cluster, endpoints, inbound, name, outbound, response, routes, said};

const WEB: &str = "outbound/shop/10.0.0.1:80";
const INBOUND: &str = "inbound/shop/web-0";
const CART: &str = "routes/shop/cart/80";
const V1: &str = "cluster/shop/v1/80";
const V2: &str = "cluster/shop/v2/80";

fn new() -> DeltaClient {
    DeltaClient::new(Node { id: "web-0".into(), ..Node::default() })
}

/// A client that serves `WEB` -> `CART` -> `V1`.
fn warmed() -> DeltaClient {
    let mut client = new();
    client.want(name(WEB));
    client.on_response(response("1", Kind::Listener, &[&outbound(CART)], &[]));
    client.on_response(response("2", Kind::Routes, &[&routes("cart", &[V1])], &[]));
    client.on_response(response("3", Kind::Cluster, &[&cluster(V1)], &[]));
    client.on_response(response("4", Kind::Endpoints, &[&endpoints(V1, &["10.1.0.1:80"])], &[]));
    client
}

/// All that serves, and `!` before what is known not to exist.
fn serves(client: &DeltaClient) -> Vec<String> {
    let snapshot = client.snapshot();
    let held = snapshot.resources().map(|((kind, name), _)| format!("{kind:?} {name}"));
    let absent = snapshot.absent.iter().map(|(kind, name)| format!("!{kind:?} {name}"));
    held.chain(absent).collect()
}

/// The clusters that the routes which serve lead to.
fn routed(client: &DeltaClient) -> Vec<String> {
    client.snapshot().routes.values().flat_map(|table| table.clusters()).map(ToString::to_string).collect()
}

#[test]
fn a_name_is_followed_step_by_step_and_serves_once_all_is_there() {
    let mut client = new();
    assert_eq!(said(&client.want(name(WEB))), [format!("Listener node web-0 +{WEB}")]);
    let mut hear = |nonce: &str, kind, resource: &EncodedResource| {
        let requests = client.on_response(response(nonce, kind, &[resource], &[]));
        (said(&requests), serves(&client).len())
    };
    let asked = vec!["Listener ack 1".to_owned(), format!("Routes +{CART}")];
    assert_eq!(hear("1", Kind::Listener, &outbound(CART)), (asked, 0));
    let asked = vec!["Routes ack 2".to_owned(), format!("Cluster +{V1}"), format!("Endpoints +{V1}")];
    assert_eq!(hear("2", Kind::Routes, &routes("cart", &[V1])), (asked, 0));
    assert_eq!(hear("3", Kind::Endpoints, &endpoints(V1, &[])), (vec!["Endpoints ack 3".to_owned()], 1));
    assert_eq!(hear("4", Kind::Cluster, &cluster(V1)), (vec!["Cluster ack 4".to_owned()], 4));
}

#[test]
fn what_is_known_not_to_exist_keeps_nobody_waiting() {
    let mut client = new();
    client.want(name(WEB));
    client.on_response(response("1", Kind::Listener, &[&outbound(CART)], &[]));
    client.on_response(response("2", Kind::Routes, &[&routes("cart", &[V1])], &[]));
    client.on_response(response("3", Kind::Cluster, &[], &[V1]));
    client.on_response(response("4", Kind::Endpoints, &[], &[V1]));
    let expected = [
        format!("Listener {WEB}"),
        format!("Routes {CART}"),
        format!("!Cluster {V1}"),
        format!("!Endpoints {V1}"),
    ];
    assert_eq!(serves(&client), expected);
}

#[test]
fn a_route_serves_on_until_its_next_version_is_warm_and_what_it_left_goes_last() {
    let mut client = warmed();
    let requests = client.on_response(response("5", Kind::Routes, &[&routes("cart", &[V2])], &[]));
    let expected = ["Routes ack 5".to_owned(), format!("Cluster +{V2}"), format!("Endpoints +{V2}")];
    assert_eq!((said(&requests), routed(&client)), (expected.to_vec(), vec![V1.to_owned()]));

    client.on_response(response("6", Kind::Cluster, &[&cluster(V2)], &[]));
    assert_eq!(routed(&client), [V1], "the endpoints are still missing");

    let requests = client.on_response(response("7", Kind::Endpoints, &[&endpoints(V2, &[])], &[]));
    let expected = [format!("Endpoints ack 7 -{V1}"), format!("Cluster -{V1}")];
    assert_eq!((said(&requests), routed(&client)), (expected.to_vec(), vec![V2.to_owned()]));
    assert!(!client.snapshot().clusters.contains_key(&name(V1)));
}

#[test]
fn a_cluster_that_the_next_version_may_do_without_is_not_taken_away_before() {
    let mut client = warmed();
    client.on_response(response("5", Kind::Routes, &[&routes("cart", &[V2])], &[]));
    client.on_response(response("6", Kind::Cluster, &[], &[V1]));
    assert!(client.snapshot().clusters.contains_key(&name(V1)), "the route that serves leads there");

    client.on_response(response("7", Kind::Cluster, &[&cluster(V2)], &[]));
    client.on_response(response("8", Kind::Endpoints, &[&endpoints(V2, &[])], &[]));
    assert_eq!(routed(&client), [V2]);
    assert!(!client.snapshot().clusters.contains_key(&name(V1)));
}

#[test]
fn a_cluster_that_is_removed_under_a_settled_route_is_known_not_to_exist() {
    let mut client = warmed();
    client.on_response(response("5", Kind::Cluster, &[], &[V1]));
    assert!(client.snapshot().absent.contains(&(Kind::Cluster, name(V1))));
    client.on_response(response("6", Kind::Cluster, &[&cluster(V1)], &[]));
    assert_eq!(client.snapshot(), warmed().snapshot());
}

#[test]
fn a_listener_that_turns_to_other_routes_waits_for_them() {
    let mut client = warmed();
    client.on_response(response("5", Kind::Listener, &[&outbound("routes/shop/new/80")], &[]));
    client.on_response(response("6", Kind::Routes, &[&routes("new", &[V1, V2])], &[]));
    assert_eq!(routed(&client), [V1]);
    client.on_response(response("7", Kind::Cluster, &[&cluster(V2)], &[]));
    let requests = client.on_response(response("8", Kind::Endpoints, &[&endpoints(V2, &[])], &[]));
    assert_eq!(routed(&client), [V1, V2]);
    assert_eq!(said(&requests), ["Endpoints ack 8".to_owned(), format!("Routes -{CART}")]);
}

#[test]
fn a_nack_names_what_is_refused_and_the_rest_counts() {
    let mut client = warmed();
    client.on_response(response("5", Kind::Routes, &[&routes("cart", &[V1, V2])], &[]));
    let mut bad = endpoints(V1, &["10.1.0.9:80"]);
    bad.resource.resource.as_mut().unwrap().value = vec![0xff];
    let both = [&bad, &endpoints(V2, &[])];
    let requests = client.on_response(response("6", Kind::Endpoints, &both, &[]));
    let line = &said(&requests)[0];
    assert!(line.starts_with(&format!("Endpoints nack 6 ({V1}: failed to decode")), "{line}");

    client.on_response(response("7", Kind::Cluster, &[&cluster(V2)], &[]));
    assert_eq!(routed(&client), [V1, V2], "the good one of the response was taken");
    assert_eq!(client.snapshot().endpoints[&name(V1)], warmed().snapshot().endpoints[&name(V1)]);
    assert_eq!(client.rejections().len(), 1);

    client.on_response(response("8", Kind::Endpoints, &[&endpoints(V1, &["10.1.0.9:80"])], &[]));
    assert_eq!(client.rejections(), [], "put right");
}

#[test]
fn how_a_pod_accepts_is_never_taken_away() {
    let mut client = new();
    client.want(name(INBOUND));
    client.on_response(response("1", Kind::Listener, &[], &[INBOUND]));
    assert_eq!(serves(&client), [format!("!Listener {INBOUND}")], "it never had one");
    client.on_response(response("2", Kind::Listener, &[&inbound(Mtls::Strict)], &[]));
    let requests = client.on_response(response("3", Kind::Listener, &[], &[INBOUND]));
    assert_eq!(
        (said(&requests), serves(&client)),
        (vec!["Listener ack 3".to_owned()], vec![format!("Listener {INBOUND}")])
    );
}

#[test]
fn a_new_stream_is_told_all_names_and_held_versions_but_never_an_empty_list() {
    let mut client = new();
    assert_eq!(said(&client.hello()), [""; 0], "an empty first request would be the wildcard");
    client.want(name(INBOUND));
    assert_eq!(said(&client.hello()), [format!("Listener node web-0 +{INBOUND}")]);

    let mut client = warmed();
    client.want(name(INBOUND));
    let expected = [
        format!("Cluster node web-0 +{V1} (held)"),
        format!("Endpoints +{V1} (held)"),
        format!("Listener +{INBOUND} +{WEB} (held)"),
        format!("Routes +{CART} (held)"),
    ];
    assert_eq!(said(&client.hello()), expected);
    assert_eq!(client.hello()[0].initial_resource_versions[V1], cluster(V1).version);
}

#[test]
fn what_is_shared_stays_when_one_of_two_is_given_up() {
    let mut client = warmed();
    client.want(name(INBOUND));
    client.on_response(response("5", Kind::Listener, &[&inbound(Mtls::Strict)], &[]));
    let expected = [
        format!("Cluster -{V1}"),
        format!("Endpoints -{V1}"),
        format!("Listener -{WEB}"),
        format!("Routes -{CART}"),
    ];
    assert_eq!(said(&client.unwant(&name(WEB))), expected);
    assert_eq!(serves(&client), [format!("Listener {INBOUND}")]);
    assert_eq!(said(&client.unwant(&name(WEB))), [""; 0]);
}

#[test]
fn a_late_answer_to_what_was_given_up_is_let_pass() {
    let mut client = warmed();
    client.unwant(&name(WEB));
    let requests = client.on_response(response("5", Kind::Cluster, &[&cluster(V1)], &[]));
    assert_eq!((said(&requests), serves(&client)), (vec!["Cluster ack 5".to_owned()], Vec::new()));
}

#[test]
fn what_a_former_stream_refused_is_not_held_against_a_server_that_went_back_to_what_is_held() {
    let mut client = warmed();
    client.on_response(response("5", Kind::Cluster, &[&cluster(V1), &cluster(V1)], &[]));
    assert_eq!(client.rejections().len(), 1);
    client.hello(); // the server finds V1 as it is held, and has nothing to say of it
    assert_eq!(client.rejections(), []);
}

#[test]
fn answers_that_break_the_protocol_are_refused_by_name() {
    let with = |break_it: fn(&mut crate::discovery::Resource)| {
        let mut broken = cluster(V1);
        broken.resource.version = "next".to_owned();
        break_it(&mut broken.resource);
        vec![broken]
    };
    let other_type = |resource: &mut crate::discovery::Resource| {
        resource.resource.as_mut().unwrap().type_url = type_url(Kind::Endpoints).to_owned();
    };
    let future = |resource: &mut crate::discovery::Resource| {
        let features = crate::metadata::list(["teleport".to_owned()]);
        let requires = crate::metadata::Facts::default().with("requires", features);
        resource.metadata = Some(requires.into_metadata());
    };
    let twice = "cluster/shop/v1/80: answered more than once in one response";
    let none: &[&str] = &[];
    let cases = [
        ("unasked", vec![cluster(V2)], none, "cluster/shop/v2/80: never asked for"),
        ("twice", vec![cluster(V1), cluster(V1)], none, twice),
        ("there and not", vec![cluster(V1)], &[V1], twice),
        (
            "of another type",
            with(other_type),
            none,
            "cluster/shop/v1/80: `type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment` is not supported",
        ),
        (
            "of another name inside",
            with(|resource| resource.resource = cluster(V2).resource.resource),
            none,
            "cluster/shop/v1/80: name: is not the resource's name",
        ),
        (
            "it expires",
            with(|resource| resource.ttl = Some(Default::default())),
            none,
            "cluster/shop/v1/80: ttl: not supported",
        ),
        (
            "it wants what we do not have",
            with(future),
            none,
            "cluster/shop/v1/80: requires the feature `teleport`, which this version does not have",
        ),
    ];
    for (case, resources, removed, problem) in cases {
        let mut client = warmed();
        let resources: Vec<&EncodedResource> = resources.iter().collect();
        let requests = client.on_response(response("5", Kind::Cluster, &resources, removed));
        assert_eq!(said(&requests), [format!("Cluster nack 5 ({problem})")], "{case}");
        assert_eq!(client.snapshot(), warmed().snapshot(), "{case}");
    }
}

#[test]
fn a_name_that_is_none_is_refused_as_it_came() {
    let mut nameless = cluster(V1);
    nameless.resource.name = "nonsense".to_owned();
    let requests = warmed().on_response(response("5", Kind::Cluster, &[&nameless], &[]));
    let line = &said(&requests)[0];
    assert!(line.starts_with("Cluster nack 5 (nonsense: `nonsense` is not a resource name"), "{line}");
}

#[test]
fn a_type_that_was_never_asked_for_is_refused_whole() {
    let odd = DeltaDiscoveryResponse {
        type_url: "x/Secret".into(),
        nonce: "9".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let requests = warmed().on_response(odd);
    assert_eq!(requests[0].type_url, "x/Secret");
    assert_eq!(said(&requests), ["? nack 9 (: the type `x/Secret` was never asked for)"]);
}

#[test]
fn the_same_answer_again_changes_nothing_that_serves() {
    let mut client = warmed();
    let before = client.snapshot();
    client.on_response(response("5", Kind::Endpoints, &[&endpoints(V1, &["10.1.0.1:80"])], &[]));
    assert!(Arc::ptr_eq(&client.snapshot(), &before));
}
