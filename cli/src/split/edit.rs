//! Changes the weights of a TrafficSplit in its own text: comments, order and spelling stay as the user wrote them.
//! What was written is read again and compared; if the text cannot be changed safely, nothing is.

use std::ops::Range;

use serde_json::{Value, json};

/// Why a split was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EditProblem {
    /// No document of this text is that split.
    NotHere,
    /// The split has no such backend; it has these.
    NoBackend { wanted: String, backends: Vec<String> },
    /// The split names that backend more than once.
    NamedTwice { backend: String },
    /// The weights do not stand one by one in the text.
    NotInPlace,
}

/// Sets weights of the TrafficSplit `name` within `text`, a YAML file of one or more documents.
/// A backend is named in full, or by what follows the root Service's name: `v1` for `cart-v1`.
pub(crate) fn set_weights(
    text: &str,
    namespace: Option<&str>,
    name: &str,
    weights: &[(String, u32)],
) -> Result<String, EditProblem> {
    let is_it = |split: &Value| {
        split["kind"] == "TrafficSplit"
            && split["metadata"]["name"] == name
            && namespace.is_none_or(|namespace| split["metadata"]["namespace"] == namespace)
    };
    for document in documents(text) {
        let Ok(split) = serde_saphyr::from_str::<Value>(&text[document.clone()]) else { continue };
        if is_it(&split) {
            let changed = set_in_document(&text[document.clone()], &split, weights)?;
            return Ok(format!("{}{changed}{}", &text[..document.start], &text[document.end..]));
        }
    }
    Err(EditProblem::NotHere)
}

/// The documents of a YAML stream, without the `---` lines between them.
fn documents(text: &str) -> Vec<Range<usize>> {
    let mut documents = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            documents.push(start..at);
            start = at + line.len();
        }
        at += line.len();
    }
    documents.push(start..at);
    documents
}

/// The split with other weights.
pub(crate) fn with_weights(split: &Value, weights: &[(String, u32)]) -> Result<Value, EditProblem> {
    let mut wanted = split.clone();
    for (backend, weight) in weights {
        let index = find_backend(split, backend)?;
        wanted["spec"]["backends"][index]["weight"] = json!(weight);
    }
    Ok(wanted)
}

fn set_in_document(text: &str, split: &Value, weights: &[(String, u32)]) -> Result<String, EditProblem> {
    let wanted = with_weights(split, weights)?;
    let backends = wanted["spec"]["backends"].as_array().map_or(&[][..], Vec::as_slice);
    let places = weight_places(text);
    if places.len() != backends.len() {
        return Err(EditProblem::NotInPlace);
    }
    let mut changed = text.to_owned();
    // From the end, so that the places before stay where they are.
    for (place, (backend, before)) in
        places.into_iter().zip(backends.iter().zip(backends_of(split))).collect::<Vec<_>>().into_iter().rev()
    {
        if backend["weight"] != before["weight"] {
            changed.replace_range(place, &backend["weight"].to_string());
        }
    }
    match serde_saphyr::from_str::<Value>(&changed) {
        Ok(read) if read == wanted => Ok(changed),
        _ => Err(EditProblem::NotInPlace),
    }
}

/// The backends of a split; none if it is no split.
pub(crate) fn backends_of(split: &Value) -> &[Value] {
    split["spec"]["backends"].as_array().map_or(&[], Vec::as_slice)
}

fn find_backend(split: &Value, wanted: &str) -> Result<usize, EditProblem> {
    let root = split["spec"]["service"].as_str().unwrap_or_default();
    let long = format!("{root}-{wanted}");
    let names: Vec<&str> =
        backends_of(split).iter().map(|backend| backend["service"].as_str().unwrap_or_default()).collect();
    let found = names.iter().position(|name| *name == wanted);
    let found = found.or_else(|| names.iter().position(|name| *name == long));
    if let Some(found) = found.filter(|found| names[found + 1..].contains(&names[*found])) {
        return Err(EditProblem::NamedTwice { backend: names[found].to_owned() });
    }
    found.ok_or_else(|| EditProblem::NoBackend {
        wanted: wanted.to_owned(),
        backends: names.into_iter().map(str::to_owned).collect(),
    })
}

/// Where the values of `weight:` stand after `backends:`, comments left out.
fn weight_places(text: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut at = 0;
    let mut in_backends = false;
    for line in text.split_inclusive('\n') {
        let code = without_comment(line);
        let from = if in_backends { Some(0) } else { code.find("backends") };
        if let Some(from) = from {
            in_backends = true;
            places
                .extend(values_in_line(code, from).into_iter().map(|place| at + place.start..at + place.end));
        }
        at += line.len();
    }
    places
}

fn values_in_line(code: &str, mut from: usize) -> Vec<Range<usize>> {
    let mut values = Vec::new();
    while let Some(found) = code[from..].find(KEY) {
        let after = from + found + KEY.len();
        from = after;
        let rest = code[after..].trim_start_matches(['"', '\'']);
        let Some(value) = rest.strip_prefix(':') else { continue };
        let start = code.len() - value.trim_start().len();
        let length = code[start..].find([',', '}', ' ', '\t', '\n', '\r']).unwrap_or(code.len() - start);
        values.push(start..start + length);
        from = start + length;
    }
    values
}

const KEY: &str = "weight";

/// A `#` after a blank begins a comment (YAML 1.2, 6.6).
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        if character == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = character;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# The shop\nkind: Service\nmetadata: {name: cart}\n---\n# Our canary, weight: careful\napiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata:\n  name: cart\n  namespace: shop\nspec:\n  service: cart\n  backends:\n    - service: cart-v1   # old\n      weight: 90         # weight: most\n    - weight: 10\n      service: cart-v2\n";

    fn set(text: &str, weights: &[(&str, u32)]) -> Result<String, EditProblem> {
        let weights: Vec<_> = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        set_weights(text, Some("shop"), "cart", &weights)
    }

    #[test]
    fn only_the_numbers_change() {
        let expected = FILE.replace("weight: 90 ", "weight: 50 ").replace("weight: 10\n", "weight: 50\n");
        assert_eq!(set(FILE, &[("cart-v1", 50), ("cart-v2", 50)]), Ok(expected));
    }

    #[test]
    fn a_backend_may_be_called_by_its_version_and_the_others_stay() {
        assert_eq!(set(FILE, &[("v2", 0)]), Ok(FILE.replace("weight: 10\n", "weight: 0\n")));
    }

    #[test]
    fn other_ways_to_write_a_split() {
        let head = "kind: TrafficSplit\nmetadata: {name: cart, namespace: shop}\n";
        for (before, after) in [
            (
                "spec: {service: cart, backends: [{service: cart-v1, weight: 90}, {service: cart-v2, weight: 10}]}\n",
                "spec: {service: cart, backends: [{service: cart-v1, weight: 1}, {service: cart-v2, weight: 2}]}\n",
            ),
            (
                "spec:\n  service: cart\n  backends:\n  - {service: cart-v1, weight: 90}\n  - {service: cart-v2, weight: 10}\n",
                "spec:\n  service: cart\n  backends:\n  - {service: cart-v1, weight: 1}\n  - {service: cart-v2, weight: 2}\n",
            ),
            (
                "spec:\n  backends:\n  - service: cart-v1\n    \"weight\": \"500m\"\n  - service: cart-v2\n    weight: 10\n  service: cart\n",
                "spec:\n  backends:\n  - service: cart-v1\n    \"weight\": 1\n  - service: cart-v2\n    weight: 2\n  service: cart\n",
            ),
        ] {
            assert_eq!(
                set(&format!("{head}{before}"), &[("v1", 1), ("v2", 2)]),
                Ok(format!("{head}{after}"))
            );
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let no_backend = EditProblem::NoBackend {
            wanted: "v3".into(),
            backends: vec!["cart-v1".into(), "cart-v2".into()],
        };
        assert_eq!(set(FILE, &[("v3", 1)]), Err(no_backend));
        assert_eq!(set("kind: Service\n", &[("v1", 1)]), Err(EditProblem::NotHere));
        let twice = FILE.replace("      service: cart-v2\n", "      service: cart-v1\n");
        assert_eq!(set(&twice, &[("v1", 1)]), Err(EditProblem::NamedTwice { backend: "cart-v1".into() }));
        let without = FILE.replace("    - weight: 10\n      service: cart-v2\n", "    - service: cart-v2\n");
        assert_eq!(set(&without, &[("v2", 1)]), Err(EditProblem::NotInPlace));
    }
}
