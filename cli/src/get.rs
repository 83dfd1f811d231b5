//! `gauze get`: what objects there are, in a directory or in a cluster, whether it is accepted, and whether it is live.

use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::{self, Format};
use crate::source::{self, Place};
use crate::table::{Cell, Table, Tone};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this kind: split, route, service, pod … [default: what has a status, and what has problems]
    kind: Option<String>,
    /// Only this object
    name: Option<String>,
    /// Read the files of the directory only, and ask no control plane
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    output: output::Output,
}

/// One line: an object and what is said about one of its parents.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    kind: String,
    namespace: String,
    name: String,
    conditions: Vec<Condition>,
    problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    name: String,
    status: String,
    reason: String,
    message: String,
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let seen = match arguments.offline {
        true => place.files().objects()?,
        false => place.source().await?.objects().await?,
    };
    if !seen.live {
        source::say_offline();
    }
    let chosen = choose(&seen.objects, &arguments, place.namespace.as_deref())?;
    let rows: Vec<Row> = chosen.iter().flat_map(|object| rows(object)).collect();
    let loose = match arguments.kind {
        None => seen.objects["problems"].as_array().cloned().unwrap_or_default(),
        Some(_) => Vec::new(),
    };
    match arguments.output.format {
        Format::Table => print_table(&rows, &loose),
        format => {
            let objects: Vec<&Value> = chosen;
            output::print_value(format, &serde_json::json!({ "objects": objects, "problems": loose }))?;
        }
    }
    let broken = !loose.is_empty() || rows.iter().any(Row::is_broken);
    Ok(if broken { Exit::Problems } else { Exit::Fine })
}

/// The objects that were asked for.
fn choose<'o>(
    objects: &'o Value,
    arguments: &Arguments,
    namespace: Option<&str>,
) -> Result<Vec<&'o Value>, Failure> {
    let all = objects["objects"].as_array().map_or(&[][..], Vec::as_slice);
    let kind = arguments.kind.as_deref().map(kind_named).transpose()?;
    let (in_name, name) = arguments.name.as_deref().map_or((None, None), |name| {
        let (namespace, name) = files::split_name(name);
        (namespace, Some(name))
    });
    let namespace = namespace.or(in_name);
    let wanted = |object: &&Value| {
        kind.map_or_else(|| has_something_to_say(object), |kind| object["kind"] == kind)
            && namespace.is_none_or(|namespace| object["namespace"] == namespace)
            && name.is_none_or(|name| object["name"] == name)
    };
    let chosen: Vec<&Value> = all.iter().filter(wanted).collect();
    if chosen.is_empty() && (name.is_some() || all.is_empty()) {
        let what = arguments.kind.as_deref().unwrap_or("object");
        return Err(Failure::Usage(match &arguments.name {
            Some(name) => format!("there is no {what} {name}; `gauze get {what}` shows those that are there"),
            None => "there are no objects here".to_owned(),
        }));
    }
    Ok(chosen)
}

fn has_something_to_say(object: &Value) -> bool {
    let some = |field: &str| object[field].as_array().is_some_and(|list| !list.is_empty());
    some("parents") || some("problems")
}

/// The kinds as people call them.
const KINDS: [(&str, &[&str]); 12] = [
    ("Namespace", &["namespace", "namespaces", "ns"]),
    ("ServiceAccount", &["serviceaccount", "serviceaccounts", "sa"]),
    ("Pod", &["pod", "pods", "po"]),
    ("Service", &["service", "services", "svc"]),
    ("EndpointSlice", &["endpointslice", "endpointslices", "endpoints"]),
    ("HTTPRoute", &["httproute", "httproutes", "route", "routes"]),
    ("GRPCRoute", &["grpcroute", "grpcroutes"]),
    ("TLSRoute", &["tlsroute", "tlsroutes"]),
    ("TrafficSplit", &["trafficsplit", "trafficsplits", "split", "splits", "ts"]),
    ("HTTPRouteGroup", &["httproutegroup", "httproutegroups", "routegroup", "routegroups", "htr"]),
    ("TrafficPolicy", &["trafficpolicy", "trafficpolicies", "policy", "policies"]),
    ("AuthorizationPolicy", &["authorizationpolicy", "authorizationpolicies", "authorization", "authz"]),
];

fn kind_named(text: &str) -> Result<&'static str, Failure> {
    let lower = text.to_ascii_lowercase();
    let found = KINDS.iter().find(|(_, names)| names.contains(&lower.as_str()));
    found.map(|(kind, _)| *kind).ok_or_else(|| {
        let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        Failure::Usage(format!("`{text}` is no kind of object; they are {}", kinds.join(", ")))
    })
}

fn rows(object: &Value) -> Vec<Row> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems = object["problems"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |conditions: Vec<Condition>| Row {
        kind: text(&object["kind"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        problems: problems
            .iter()
            .filter(|problem| !is_told(problem, &conditions))
            .map(describe_problem)
            .collect(),
        conditions,
    };
    let parents = object["parents"].as_array().map_or(&[][..], Vec::as_slice);
    if parents.is_empty() {
        return vec![row(Vec::new())];
    }
    let condition = |value: &Value| Condition {
        name: text(&value["type"]),
        status: text(&value["status"]),
        reason: text(&value["reason"]),
        message: text(&value["message"]),
    };
    let conditions = |parent: &Value| {
        parent["conditions"].as_array().map_or(&[][..], Vec::as_slice).iter().map(condition).collect()
    };
    parents.iter().map(|parent| row(conditions(parent))).collect()
}

/// Whether a condition says the same already, with the place in the file.
fn is_told(problem: &Value, conditions: &[Condition]) -> bool {
    let (message, place) =
        (problem["message"].as_str().unwrap_or_default(), place(problem).unwrap_or_default());
    let says_it = |said: &str| !message.is_empty() && said.contains(message) && said.contains(&place);
    conditions.iter().any(|condition| condition.is_complaint() && says_it(&condition.message))
}

/// `split.yaml:12:5 spec.backends[1]: there is no … (M5004)`
fn describe_problem(problem: &Value) -> String {
    let field = problem["origin"]["path"].as_str().unwrap_or_default();
    let message = problem["message"].as_str().unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or_default();
    let place = place(problem).map_or_else(String::new, |place| format!("{place} "));
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    format!("{place}{field}{message} ({code})")
}

/// `split.yaml:12:5`
fn place(problem: &Value) -> Option<String> {
    let place = &problem["place"];
    Some(format!("{}:{}:{}", place["file"].as_str()?, place["line"], place["column"]))
}

impl Condition {
    /// Not as it should be, and more than a count that the table shows already; or accepted, with a remark.
    fn is_complaint(&self) -> bool {
        let remark = self.name == "Accepted" && !["", "accepted"].contains(&self.message.as_str());
        remark || !self.is_good() && (self.name != "Programmed" || self.message.contains(' '))
    }

    /// Of most conditions `True` is good (GEP-1364 names the exception).
    fn is_good(&self) -> bool {
        (self.status == "True") == (self.name != "PartiallyInvalid")
    }
}

impl Row {
    fn condition(&self, name: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.name == name)
    }

    fn is_broken(&self) -> bool {
        !self.problems.is_empty()
            || self.conditions.iter().any(|condition| condition.status != "Unknown" && !condition.is_good())
    }

    /// A condition in one word: `True`, or the reason why not.
    fn cell(&self, name: &str) -> Cell {
        match self.condition(name) {
            None => Cell::from(""),
            Some(condition) if condition.status == "True" => Cell::new("True", Tone::Good),
            Some(condition) if condition.status == "False" => Cell::new(condition.reason.clone(), Tone::Bad),
            Some(condition) => Cell::new(condition.reason.clone(), Tone::Doubtful),
        }
    }

    /// How many proxies hold it: the message of `Programmed` begins with it.
    fn programmed(&self) -> Cell {
        let Some(condition) = self.condition("Programmed") else { return Cell::from("") };
        let count = condition.message.split_whitespace().next().filter(|word| word.contains('/'));
        let text = count.unwrap_or(&condition.reason).trim_end_matches([':', ',', ';', '.']).to_owned();
        let tone = match condition.status.as_str() {
            "True" => Tone::Good,
            "False" => Tone::Bad,
            _ => Tone::Doubtful,
        };
        Cell::new(text, tone)
    }

    /// Everything that is wrong, in the words of the conditions and problems.
    fn complaints(&self) -> impl Iterator<Item = String> {
        let conditions = self.conditions.iter().filter(|condition| condition.is_complaint());
        let conditions = conditions.map(|condition| format!("{}: {}", condition.name, condition.message));
        conditions.chain(self.problems.iter().cloned())
    }
}

/// All that is wrong, an object a line; what `GET /objects` answers.
pub(crate) fn complaints(objects: &Value) -> Vec<String> {
    let rows = objects["objects"].as_array().into_iter().flatten().flat_map(rows).collect::<Vec<Row>>();
    list(&rows, objects["problems"].as_array().map_or(&[], Vec::as_slice))
}

fn list(rows: &[Row], loose: &[Value]) -> Vec<String> {
    let of_rows = rows.iter().flat_map(|row| {
        row.complaints().map(|text| format!("{}/{}/{} {text}", row.kind, row.namespace, row.name))
    });
    let mut all: Vec<String> = of_rows.chain(loose.iter().map(describe_problem)).collect();
    all.dedup();
    all
}

fn print_table(rows: &[Row], loose: &[Value]) {
    let table = table(rows);
    if table.is_empty() {
        eprintln!("nothing here has a status; `gauze get service`, `gauze get pod` … show what there is");
    } else {
        print!("{}", table.render(crate::terminal::output()));
    }
    let complaints = list(rows, loose);
    if !complaints.is_empty() {
        println!("\n{}", complaints.join("\n"));
    }
}

/// Conditions have columns where anything has conditions.
fn table(rows: &[Row]) -> Table {
    let with_conditions = rows.iter().any(|row| !row.conditions.is_empty());
    let mut head = vec!["KIND", "NAMESPACE", "NAME"];
    if with_conditions {
        head.extend(["ACCEPTED", "RESOLVED", "PROGRAMMED"]);
    }
    let mut table = Table::new(&head);
    for row in rows {
        table.push(vec![
            row.kind.clone().into(),
            row.namespace.clone().into(),
            row.name.clone().into(),
            row.cell("Accepted"),
            row.cell("ResolvedRefs"),
            row.programmed(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::terminal::Style;

    fn split() -> Value {
        json!({
            "kind": "TrafficSplit", "namespace": "shop", "name": "cart",
            "parents": [{ "conditions": [
                { "type": "Accepted", "status": "True", "reason": "Accepted", "message": "" },
                { "type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "spec.backends[1]: there is no Service cart-v3" },
                { "type": "Programmed", "status": "True", "reason": "Programmed", "message": "1/1 proxies hold it" },
            ] }],
            "problems": [],
        })
    }

    #[test]
    fn conditions_are_one_word_each_and_the_rest_stands_below() {
        let rows = rows(&split());
        let expected = "KIND          NAMESPACE  NAME  ACCEPTED  RESOLVED         PROGRAMMED\n\
                        TrafficSplit  shop       cart  True      BackendNotFound  1/1\n";
        assert_eq!(table(&rows).render(Style::PLAIN), expected);
        let complaints: Vec<String> = rows[0].complaints().collect();
        assert_eq!(complaints, ["ResolvedRefs: spec.backends[1]: there is no Service cart-v3"]);
        assert!(rows[0].is_broken());
    }

    #[test]
    fn what_is_not_live_everywhere_yet_is_no_complaint_by_itself() {
        let mut split = split();
        split["parents"][0]["conditions"] =
            json!([{ "type": "Programmed", "status": "False", "reason": "Pending", "message": "0/1" }]);
        assert_eq!(complaints(&json!({ "objects": [split] })), Vec::<String>::new());
    }

    #[test]
    fn a_part_that_is_invalid_is_a_complaint_and_a_remark_is_told_too() {
        let mut split = split();
        split["parents"][0]["conditions"] = json!([
            { "type": "Accepted", "status": "True", "reason": "Accepted", "message": "spec.backends: all weights are 0" },
            { "type": "PartiallyInvalid", "status": "True", "reason": "UnsupportedValue", "message": "spec.matches[0]: a slip" },
        ]);
        let rows = rows(&split);
        let complaints: Vec<String> = rows[0].complaints().collect();
        let expected =
            ["Accepted: spec.backends: all weights are 0", "PartiallyInvalid: spec.matches[0]: a slip"];
        assert_eq!((complaints, rows[0].is_broken()), (expected.map(str::to_owned).to_vec(), true));
    }

    #[test]
    fn a_problem_says_file_line_field_and_code() {
        let problem = json!({
            "code": "M1003", "message": "is no field of this kind", "origin": { "path": "spec.bakends" },
            "place": { "file": "split.yaml", "line": 12, "column": 3 },
        });
        assert_eq!(
            describe_problem(&problem),
            "split.yaml:12:3 spec.bakends: is no field of this kind (M1003)"
        );
    }

    #[test]
    fn what_a_condition_says_with_its_place_is_not_said_again() {
        let message = |place: &str| format!("spec.bakends: is no field of this kind (M1003){place}");
        let told = |place: &str| {
            let condition = json!({ "type": "Accepted", "status": "False", "reason": "Invalid", "message": message(place) });
            let mut split = split();
            split["parents"] = json!([{ "conditions": [condition] }]);
            split["problems"] = json!([{
                "code": "M1003", "message": "is no field of this kind", "origin": { "path": "spec.bakends" },
                "place": { "file": "split.yaml", "line": 12, "column": 3 },
            }]);
            complaints(&json!({ "objects": [split] })).len()
        };
        assert_eq!((told(" (split.yaml:12:3)"), told("")), (1, 2));
    }

    #[test]
    fn kinds_are_called_as_people_call_them() {
        assert_eq!(kind_named("ts"), Ok("TrafficSplit"));
        assert_eq!(kind_named("HTTPRoute"), Ok("HTTPRoute"));
        assert!(
            matches!(kind_named("deployment"), Err(Failure::Usage(text)) if text.contains("TrafficSplit"))
        );
    }
}
