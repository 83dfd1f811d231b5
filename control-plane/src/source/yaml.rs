//! YAML text into documents that know where each field stands.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Line and column, counting from 1.
pub(super) type Position = (u64, u64);

/// A YAML node and all below it.
pub(super) type Node = Spanned<Content>;

#[derive(Clone, Debug)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Text that is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotYaml {
    pub message: String,
    pub position: Position,
}

/// Largest number of documents, and of nodes, in one file: the objects of ten thousand Services.
const DOCUMENTS_MAX: usize = 100_000;
const NODES_MAX: usize = 10_000_000;

/// Largest number of nodes that aliases of one file may stand for: a few short lines could stand for billions.
const ALIASED_MAX: usize = 100_000;

/// All documents of a file, without the empty ones.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, NotYaml> {
    let options = serde_saphyr::options! {
        // `value: yes` is the word, as in YAML 1.2; only `true` and `false` are booleans.
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIASED_MAX,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| NotYaml {
        position: error.location().map_or((1, 1), |at| (at.line(), at.column())),
        message: error.without_snippet().to_string(),
    })
}

pub(super) fn position(node: &Node) -> Position {
    (node.referenced.line(), node.referenced.column())
}

/// Where a field stands, or else the nearest one around it. `path` is as in `spec.rules[0].name`.
pub(super) fn find(node: &Node, path: &str) -> Position {
    let mut at = node;
    for step in steps(path) {
        let inner = match &at.value {
            Content::Scalar(_) => None,
            Content::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            Content::Map(fields) => field(fields, step),
        };
        let Some(inner) = inner else { break };
        at = inner;
    }
    position(at)
}

/// The field of that name, if the node is a map that has it.
pub(super) fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Content::Map(fields) => field(fields, name),
        Content::Scalar(_) | Content::List(_) => None,
    }
}

fn field<'n>(fields: &'n [(String, Node)], name: &str) -> Option<&'n Node> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// `spec.rules[0].name` by steps; what stands in brackets, an index or a key with dots, is one.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    path.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        matches!((c, depth), ('.', 0) | ('[', 1) | (']', 0))
    })
    .filter(|step| !step.is_empty())
}

pub(super) fn to_value(node: &Node) -> Value {
    match &node.value {
        Content::Scalar(value) => value.clone(),
        Content::List(items) => Value::Array(items.iter().map(to_value).collect()),
        Content::Map(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), to_value(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Content::Scalar(Value::Number(number)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry::<String, Node>()? {
            fields.push(field);
        }
        Ok(Content::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_where_it_stands() {
        let text = "kind: A\n---\nmetadata:\n  annotations:\n    gauze.dev/mtls: strict\nspec:\n  rules:\n  - a\n  - name: b\n";
        let documents = parse(text).expect("YAML");
        let found: Vec<_> = [
            "metadata.annotations[gauze.dev/mtls]",
            "spec.rules[0]",
            "spec.rules[1].name",
            "spec.rules[1].missing",
            "spec.rules[7]",
            "",
        ]
        .map(|path| find(&documents[1], path))
        .to_vec();
        assert_eq!(found, [(5, 21), (8, 5), (9, 11), (9, 5), (8, 5), (3, 1)]);
    }

    #[test]
    fn values_are_those_of_yaml() {
        let text = "a: [1, -2, 1.5, true, null, text, yes, \"7\", 10.96.0.1, 2024-01-01T00:00:00Z]\nb: {}\n";
        let documents = parse(text).expect("YAML");
        let expected = serde_json::json!({
            "a": [1, -2, 1.5, true, null, "text", "yes", "7", "10.96.0.1", "2024-01-01T00:00:00Z"],
            "b": {},
        });
        assert_eq!(to_value(&documents[0]), expected);
    }

    #[test]
    fn what_is_not_yaml_says_where() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").expect_err("not YAML");
        assert!(error.position.0 >= 2, "{error:?}");
    }
}
