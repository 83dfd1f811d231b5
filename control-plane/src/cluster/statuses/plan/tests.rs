use serde_json::{Value, json};

use super::*;
use crate::world::{MeshSettings, Object};

const SECOND: Duration = Duration::from_secs(1);

/// A world of `count` splits whose root does not exist.
fn splits(count: usize) -> World {
    let split = |number| {
        let metadata = json!({ "name": format!("s{number}"), "namespace": "shop", "generation": 1 });
        let spec = json!({ "service": "nobody", "backends": [{ "service": "v1", "weight": 1 }] });
        let split = json!({ "metadata": metadata, "spec": spec });
        Object::TrafficSplit(Arc::new(serde_json::from_value(split).unwrap()))
    };
    World::of(MeshSettings::default(), (0..count).map(split))
}

/// What the API server holds of them.
fn standing(world: &World, status: impl Fn(&ObjectKey) -> Value) -> Statuses {
    let stands = |key: ObjectKey| {
        let (ours, foreign) = Ours::read(Shape::of(key.kind).unwrap(), &status(&key));
        (key, Arc::new(Stands { ours, foreign, ..Stands::default() }))
    };
    Arc::new(world.objects().map(|object| stands(object.key())).collect())
}

fn planned(world: &World, statuses: &Statuses, now: Instant) -> Plan {
    let mut plan = Plan::beginning(now);
    plan.want(world, &[], &Heard::default(), statuses, now);
    plan
}

fn keys(orders: &[Order]) -> Vec<&str> {
    orders.iter().map(|order| order.key.name.as_str()).collect()
}

#[test]
fn thousands_of_statuses_are_written_at_a_rate_and_what_stands_there_never_again() {
    let world = splits(1_000);
    let statuses = standing(&world, |_| Value::Null);
    let start = Instant::now();
    let mut plan = planned(&world, &statuses, start);
    let (mut written, mut seconds) = (BTreeMap::new(), 0);
    while plan.waiting() > 0 {
        let now = start + SECOND * seconds;
        let orders = plan.take_due(now);
        assert!(orders.len() <= WRITES_PER_SECOND as usize, "{}", orders.len());
        for order in orders {
            let status = order.wanted.clone().at("now", &order.stands.ours).to_json(order.shape, &[]);
            assert!(written.insert(order.key.clone(), status).is_none(), "{} twice", order.key);
            plan.note(order, Ok(()), now);
        }
        seconds += 1;
    }
    assert_eq!((written.len(), seconds), (1_000, 20));
    // A new leader, whose watch has brought all of it.
    let statuses = standing(&world, |key| written[key].clone());
    assert_eq!(planned(&world, &statuses, start).waiting(), 0);
}

#[test]
fn a_refused_write_is_tried_ever_more_rarely_and_a_conflict_soon() {
    let world = splits(1);
    let statuses = standing(&world, |_| Value::Null);
    let start = Instant::now();
    let mut plan = planned(&world, &statuses, start);
    let mut pauses = Vec::new();
    let mut now = start;
    for failed in [Failed::Conflict, Failed::Refused("no".to_owned()), Failed::Refused("no".to_owned())] {
        let order = plan.take_due(now).pop().unwrap();
        plan.note(order, Err(failed), now);
        plan.look(statuses.keys().cloned(), &statuses, now);
        let next = plan.next(now).unwrap();
        pauses.push(next.duration_since(now));
        now = next;
    }
    assert_eq!(pauses, [SECOND / 20, SECOND * 2, SECOND * 4]);
    assert_eq!(keys(&plan.take_due(now)), ["s0"]);
}

#[test]
fn what_we_said_of_a_route_goes_when_no_parent_of_it_is_ours_and_what_others_said_stays() {
    let parent = json!({ "name": "gateway" });
    let route =
        json!({ "metadata": { "name": "cart", "namespace": "shop" }, "spec": { "parentRefs": [parent] } });
    let route = Object::HttpRoute(Arc::new(serde_json::from_value(route).unwrap()));
    let world = World::of(MeshSettings::default(), [route]);
    let theirs = json!({ "parentRef": parent, "controllerName": "example.com/gateway", "conditions": [] });
    let ours = json!({ "parentRef": { "name": "cart" }, "controllerName": status::CONTROLLER_NAME, "conditions": [] });
    let now = Instant::now();
    let both = standing(&world, |_| json!({ "parents": [ours, theirs] }));
    let order = planned(&world, &both, now).take_due(now).pop().unwrap();
    assert_eq!(order.wanted.to_json(order.shape, &order.stands.foreign), json!({ "parents": [theirs] }));
    let only_theirs = standing(&world, |_| json!({ "parents": [theirs] }));
    assert_eq!(planned(&world, &only_theirs, now).waiting(), 0);
}

#[test]
fn a_trouble_is_told_once_and_that_it_is_mended_too_whatever_lies_between() {
    let said = |status: &str, reason: &str, message: &str| {
        let condition =
            json!({ "type": "Programmed", "status": status, "reason": reason, "message": message });
        Ours::read(Shape::Split, &json!({ "conditions": [condition] })).0
    };
    let mut troubles = BTreeSet::new();
    let mut stands = Ours::default();
    let mut told = Vec::new();
    for wanted in [
        said("True", "NotUsedYet", "0/0"),
        said("False", "PartiallyProgrammed", "1/2; shop/web-0 refused it: x: no"),
        said("False", "PartiallyProgrammed", "2/3; shop/web-0 refused it: x: no"),
        said("False", "Reconciling", "2/3"),
        said("True", "Programmed", "3/3"),
        said("True", "Programmed", "4/4"),
    ] {
        let announced = events::of(&stands, &wanted, &mut troubles);
        told.push(announced.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        stands = wanted;
    }
    let expected = [
        "",
        "Warning PartiallyProgrammed 1/2; shop/web-0 refused it: x: no",
        "",
        "",
        "Normal Programmed 3/3",
        "",
    ];
    assert_eq!(told, expected);
}
