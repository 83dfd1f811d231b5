//! What `kubectl get` shows of our kinds: one text a column, since an API server prints only the first of several
//! values that a path finds. All of it follows from the conditions.

use serde_json::Value;

use super::Truth;
use super::ours::{DatedCondition, Entry, Shape};

/// Longest text of a column, in bytes; what does not fit is counted.
const COLUMN_MAX: usize = 120;

/// The fields of a status for the columns of its kind; none for kinds that are not ours to define.
pub(super) fn columns(shape: Shape, entries: &[Entry]) -> Vec<(&'static str, String)> {
    let targets = match shape {
        Shape::Parents => return Vec::new(),
        Shape::Ancestors if !entries.is_empty() => {
            Some(in_short(entries.iter().map(|entry| target(&entry.reference))))
        }
        Shape::Ancestors | Shape::Split => None,
    };
    let columns =
        [("targets", targets), ("accepted", accepted(entries)), ("programmed", programmed(entries))];
    columns.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

/// `cart`, `web:http`, `pods app=cart`, or the whole `namespace`.
fn target(reference: &Value) -> String {
    let name = reference["name"].as_str().unwrap_or_default();
    match (reference["kind"].as_str(), reference["sectionName"].as_str()) {
        (Some("Namespace"), _) => "namespace".to_owned(),
        (Some("Pod"), _) => pods(&reference["selector"]),
        (_, Some(section)) => format!("{name}:{section}"),
        (_, None) => name.to_owned(),
    }
}

fn pods(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!(" {key}={}", value.as_str().unwrap_or_default()));
    let more = selector["matchExpressions"].as_array().is_some_and(|more| !more.is_empty());
    format!("pods{}{}", labels.collect::<String>(), if more { " …" } else { "" })
}

/// All that fit, and how many do not.
fn in_short(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.map(cut).collect();
    let mut short = String::new();
    for (index, text) in texts.iter().enumerate() {
        if index > 0 && short.len() + text.len() > COLUMN_MAX {
            return format!("{short},+{}", texts.len() - index);
        }
        short += if index > 0 { "," } else { "" };
        short += text;
    }
    short
}

/// A selector may have many labels; the definition bounds the field.
fn cut(text: String) -> String {
    match text.len() <= COLUMN_MAX {
        true => text,
        false => format!("{}…", &text[..text.floor_char_boundary(COLUMN_MAX)]),
    }
}

fn all<'e>(entries: &'e [Entry], condition_type: &str) -> impl Iterator<Item = &'e DatedCondition> {
    let conditions = entries.iter().flat_map(|entry| &entry.conditions);
    conditions.filter(move |said| said.condition.condition_type == condition_type)
}

/// True, False, or at how many of its targets it is.
fn accepted(entries: &[Entry]) -> Option<String> {
    let of = all(entries, "Accepted").count();
    let yes = all(entries, "Accepted").filter(|said| said.condition.status == Truth::True).count();
    match (yes, of) {
        (_, 0) => None,
        (0, _) => Some("False".to_owned()),
        _ if yes == of => Some("True".to_owned()),
        _ => Some(format!("{yes}/{of}")),
    }
}

/// `37/40`, or why that is not to be had. It is the object's, at whichever target.
fn programmed(entries: &[Entry]) -> Option<String> {
    let said = &all(entries, "Programmed").next()?.condition;
    let count = |message: &str| {
        let end = message.find(|c: char| !c.is_ascii_digit() && c != '/').unwrap_or(message.len());
        message[..end].to_owned()
    };
    Some(match (said.status, said.reason.as_ref()) {
        (Truth::Unknown, _) => "Unknown".to_owned(),
        (_, "Overridden") => "Overridden".to_owned(),
        _ => count(&said.message),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Condition;
    use super::*;

    fn said(
        condition_type: &'static str,
        status: Truth,
        reason: &'static str,
        message: &str,
    ) -> DatedCondition {
        let (condition_type, reason) = (condition_type.into(), reason.into());
        let condition =
            Condition { condition_type, status, reason, message: message.to_owned(), observed_generation: 1 };
        DatedCondition { condition, last_transition_time: None }
    }

    fn entry(reference: Value, accepted: Truth, message: &str) -> Entry {
        let mut conditions = vec![said("Accepted", accepted, "Some", "")];
        conditions
            .extend((accepted == Truth::True).then(|| said("Programmed", Truth::False, "Some", message)));
        Entry { reference, conditions }
    }

    #[test]
    fn the_columns_say_the_whole_in_short() {
        let service = |name: &str| json!({ "group": "", "kind": "Service", "name": name });
        let port = json!({ "group": "", "kind": "Service", "name": "web", "sectionName": "http" });
        let pods = json!({ "kind": "Pod", "selector": { "matchLabels": { "app": "cart" }, "matchExpressions": [{}] } });
        let namespace = json!({ "kind": "Namespace", "name": "shop" });
        let long = service(&"x".repeat(100));
        let labels: serde_json::Map<String, Value> =
            (10..99).map(|number| (format!("a{number}"), json!("b"))).collect();
        let many = json!({ "kind": "Pod", "selector": { "matchLabels": labels } });
        let cut = (10..99).map(|number| format!(" a{number}=b")).collect::<String>();
        use Truth::{False, True};
        for (what, entries, expected) in [
            ("nothing is known", vec![], ["-", "-", "-"]),
            (
                "one target",
                vec![entry(service("cart"), True, "37/40; shop/a refused it")],
                ["cart", "True", "37/40"],
            ),
            (
                "of two targets one refuses it",
                vec![entry(service("cart"), False, ""), entry(port, True, "0/0")],
                ["cart,web:http", "1/2", "0/0"],
            ),
            ("refused everywhere", vec![entry(namespace, False, "")], ["namespace", "False", "-"]),
            ("pods", vec![entry(pods, True, "3/3")], ["pods app=cart …", "True", "3/3"]),
            (
                "pods by many labels",
                vec![entry(many, True, "3/3")],
                [&format!("{}…", &format!("pods{cut}")[..COLUMN_MAX]), "True", "3/3"],
            ),
            (
                "too many to be named",
                vec![
                    entry(service("a"), True, "1/1"),
                    entry(long.clone(), True, "1/1"),
                    entry(long, True, "1/1"),
                ],
                [&format!("a,{},+1", "x".repeat(100)), "True", "1/1"],
            ),
        ] {
            let columns = columns(Shape::Ancestors, &entries);
            let column = |wanted: &str| {
                let found = columns.iter().find(|(name, _)| *name == wanted);
                found.map_or("-", |(_, text)| text.as_str()).to_owned()
            };
            assert_eq!(
                ["targets", "accepted", "programmed"].map(column),
                expected.map(str::to_owned),
                "{what}"
            );
        }
    }

    #[test]
    fn a_split_says_that_a_route_overrides_it_or_that_nobody_knows() {
        for (status, reason, message, expected) in [
            (Truth::True, "Programmed", "2/2", "2/2"),
            (Truth::False, "Overridden", "spec.service: a route is there", "Overridden"),
            (Truth::Unknown, "ReplicaUnreachable", "1/2 without the proxies of x", "Unknown"),
        ] {
            let conditions = vec![
                said("Accepted", Truth::True, "Accepted", ""),
                said("Programmed", status, reason, message),
            ];
            let entries = [Entry { reference: Value::Null, conditions }];
            let expected = [("accepted", "True".to_owned()), ("programmed", expected.to_owned())];
            assert_eq!(columns(Shape::Split, &entries), expected);
            assert_eq!(columns(Shape::Parents, &entries), []);
        }
    }
}
