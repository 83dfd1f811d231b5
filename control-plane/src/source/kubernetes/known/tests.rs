use serde_json::{Value, json};

use super::super::read::read;
use super::super::standing::{Standing, Stands};
use super::*;
use crate::status::Ours;
use crate::world::ObjectKind;

const SERVICES: Watched = Watched::Object(ObjectKind::Service);
const SPLITS: Watched = Watched::Object(ObjectKind::TrafficSplit);

fn service(name: &str, address: &str) -> Read {
    let given = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"clusterIP": address}});
    read(SERVICES, given)
}

fn split(service: Value) -> Read {
    let given = json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"service": service, "backends": []}});
    read(SPLITS, given)
}

fn deleted(name: &str) -> Said {
    Said::Delete { namespace: "shop".to_owned(), name: name.to_owned() }
}

/// The events, in short.
fn events(update: &Update) -> Vec<String> {
    let event = |event: &Event| match event {
        Event::Apply(object) => format!("apply {}", object.key()),
        Event::Delete(key) => format!("delete {key}"),
        Event::MeshNetworks(networks) => format!("networks {networks:?}"),
        Event::Synced => "synced".to_owned(),
    };
    update.events.iter().map(event).collect()
}

#[test]
fn nothing_is_synced_before_all_kinds_are_read() {
    let mut known = Known::nothing_of(&[SERVICES, SPLITS]);
    let now = Instant::now();
    let first = known.hear(vec![(SERVICES, Said::All(vec![service("cart", "10.0.0.1")]))], now);
    assert_eq!(events(&first), ["apply Service/shop/cart"]);
    let second = known.hear(vec![(SPLITS, Said::All(vec![]))], now);
    assert_eq!(events(&second), ["synced"]);
    let third = known.hear(vec![(SPLITS, Said::All(vec![]))], now);
    assert_eq!(events(&third), [""; 0]);
}

#[test]
fn what_vanished_while_nobody_watched_is_deleted_and_nothing_else() {
    let mut known = Known::nothing_of(&[SERVICES]);
    let now = Instant::now();
    let both = vec![service("cart", "10.0.0.1"), service("web", "10.0.0.2")];
    known.hear(vec![(SERVICES, Said::All(both))], now);
    let anew = vec![service("pay", "10.0.0.3"), service("web", "10.0.0.2")];
    let update = known.hear(vec![(SERVICES, Said::All(anew))], now);
    assert_eq!(
        events(&update),
        ["apply Service/shop/pay", "delete Service/shop/cart"],
        "`web` did not change"
    );
    let gone = known.hear(vec![(SERVICES, deleted("web")), (SERVICES, deleted("web"))], now);
    assert_eq!(events(&gone), ["delete Service/shop/web"]);
}

#[test]
fn a_malformed_object_costs_only_itself_and_keeps_its_last_good_version() {
    let mut known = Known::nothing_of(&[SPLITS]);
    let now = Instant::now();
    known.hear(vec![(SPLITS, Said::All(vec![split(json!("cart"))]))], now);

    let broken = known.hear(vec![(SPLITS, Said::Apply(split(json!(7))))], now);
    assert_eq!(events(&broken), [""; 0]);
    assert_eq!(
        broken.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["TrafficSplit/shop/cart spec.service: invalid type: integer `7`, expected a string (M1003)"]
    );
    let anew = known.hear(vec![(SPLITS, Said::All(vec![split(json!(7))]))], now);
    assert_eq!(events(&anew), [""; 0], "read anew, it is still there");
    assert_eq!(anew.problems.len(), 1);

    let mended = known.hear(vec![(SPLITS, Said::Apply(split(json!("cart"))))], now);
    assert_eq!((events(&mended), mended.problems), (vec![], vec![]), "it is again what it was");
    known.hear(vec![(SPLITS, Said::Apply(split(json!(7))))], now);
    let gone = known.hear(vec![(SPLITS, deleted("cart"))], now);
    assert_eq!((events(&gone), gone.problems), (vec!["delete TrafficSplit/shop/cart".to_owned()], vec![]));
}

#[test]
fn a_status_that_stands_there_is_kept_beside_the_world_and_changes_nothing_in_it() {
    let standing = Standing::default();
    let mut known = Known::nothing_of(&[SPLITS]);
    let now = Instant::now();
    let split = |version: &str, status: Value| {
        let metadata = json!({"name": "cart", "namespace": "shop", "uid": "u", "resourceVersion": version});
        read(
            SPLITS,
            json!({"apiVersion": "split.smi-spec.io/v1alpha4", "metadata": metadata, "status": status, "spec": {"service": "cart", "backends": []}}),
        )
    };
    let mut hear = |said: Said| {
        let mut said = vec![(SPLITS, said)];
        standing.hear(&mut said);
        known.hear(said, now)
    };
    assert_eq!(events(&hear(Said::All(vec![split("1", Value::Null)]))).len(), 2);
    let echo = hear(Said::Apply(split("2", json!({"split": "cart=1", "conditions": []}))));
    assert_eq!(echo, Update::default());
    let key = ObjectKey::new(ObjectKind::TrafficSplit, "shop", "cart");
    let expected = Stands {
        api_version: "split.smi-spec.io/v1alpha4".to_owned(),
        uid: "u".to_owned(),
        resource_version: "2".to_owned(),
        ours: Ours { split: Some("cart=1".to_owned()), entries: Vec::new() },
        ..Stands::default()
    };
    assert_eq!(*standing.statuses()[&key], expected);
    assert_eq!(standing.take_changed(), [key].into());
    hear(Said::All(vec![]));
    assert_eq!(standing.statuses().len(), 0);
}

#[test]
fn a_watch_that_fails_for_long_is_a_problem_and_all_of_them_are_another() {
    let mut known = Known::nothing_of(&[SERVICES, SPLITS]);
    let start = Instant::now();
    let problems = |known: &Known, seconds| -> Vec<Code> {
        known.problems(start + Duration::from_secs(seconds)).iter().map(|problem| problem.code).collect()
    };
    known.hear(vec![(SPLITS, Said::Failing("forbidden".to_owned()))], start);
    known.hear(vec![(SPLITS, Said::Failing("forbidden".to_owned()))], start + Duration::from_secs(4));
    assert_eq!(problems(&known, 4), []);
    assert_eq!(problems(&known, 5), [Code::KIND_NOT_WATCHED]);
    known.hear(vec![(SERVICES, Said::Failing("refused".to_owned()))], start);
    assert_eq!(problems(&known, 5), [Code::API_SERVER_AWAY]);
    known.hear(vec![(SERVICES, Said::Working), (SPLITS, Said::Working)], start);
    assert_eq!(problems(&known, 60), []);
}

#[test]
fn networks_are_told_once_and_as_few() {
    let mut known = Known::nothing_of(&[Watched::Node]);
    let now = Instant::now();
    let node = |name: &str, cidr: &str| {
        read(Watched::Node, json!({"metadata": {"name": name}, "spec": {"podCIDRs": [cidr]}}))
    };
    let all = vec![node("a", "10.1.0.0/24"), node("b", "10.1.1.0/24")];
    let first = known.hear(vec![(Watched::Node, Said::All(all))], now);
    assert_eq!(events(&first), ["networks [10.1.0.0/23]", "synced"]);
    let same = known.hear(vec![(Watched::Node, Said::Apply(node("a", "10.1.0.0/24")))], now);
    assert_eq!(events(&same), [""; 0]);
    let fewer = known.hear(vec![(Watched::Node, Said::All(vec![node("a", "10.1.0.0/24")]))], now);
    assert_eq!(events(&fewer), ["networks [10.1.0.0/24]"]);
}
