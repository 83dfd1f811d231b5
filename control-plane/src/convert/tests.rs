use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A split of this version with these weights and, beside them, these fields of `metadata` and `spec`.
fn split(version: Version, weights: &[Value], metadata: &Value, spec: &Value) -> Value {
    let backends: Vec<Value> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| json!({ "service": format!("cart-{index}"), "weight": weight }))
        .collect();
    let mut split = json!({
        "apiVersion": version.api_version(), "kind": "TrafficSplit",
        "metadata": { "name": "cart", "namespace": "shop", "uid": "7d9b", "generation": 3 },
        "spec": { "service": "cart", "backends": backends },
    });
    for (part, fields) in [("metadata", metadata), ("spec", spec)] {
        let part = split[part].as_object_mut().unwrap();
        part.extend(fields.as_object().unwrap().clone());
    }
    split
}

fn plain_split(version: Version, weights: &[Value]) -> Value {
    split(version, weights, &json!({}), &json!({}))
}

fn annotated(key: &str, value: &str) -> Value {
    json!({ "annotations": { key: value } })
}

fn group(name: &str) -> Value {
    json!({ "apiGroup": "specs.smi-spec.io", "kind": "HTTPRouteGroup", "name": name })
}

use Version::{V1alpha1, V1alpha2, V1alpha3, V1alpha4};

#[test]
fn what_is_written_in_one_version_reads_in_another() {
    let none = json!({});
    let matches = json!({ "matches": [group("by-header")] });
    let kept = annotated(
        MATCHES,
        r#"[{"apiGroup":"specs.smi-spec.io","kind":"HTTPRouteGroup","name":"by-header"}]"#,
    );
    for (shows, from, to) in [
        (
            "numbers are quantities in v1alpha1, as strings",
            plain_split(V1alpha4, &[json!(0), json!(100)]),
            plain_split(V1alpha1, &[json!("0"), json!("100")]),
        ),
        (
            "plain quantities are numbers",
            plain_split(V1alpha1, &[json!("0"), json!("100")]),
            plain_split(V1alpha4, &[json!(0), json!(100)]),
        ),
        (
            "quantities that are whole are taken one to one, and how they were written is kept",
            plain_split(V1alpha1, &[json!(90), json!("1e1"), json!("2k"), json!("3000m")]),
            split(
                V1alpha4,
                &[json!(90), json!(10), json!(2000), json!(3)],
                &annotated(WEIGHTS, r#"[90,"1e1","2k","3000m"]"#),
                &none,
            ),
        ),
        (
            "with one fraction all are taken in thousandths",
            plain_split(V1alpha1, &[json!("500m"), json!("99.5"), json!("0")]),
            split(
                V1alpha4,
                &[json!(500), json!(99_500), json!(0)],
                &annotated(WEIGHTS, r#"["500m","99.5","0"]"#),
                &none,
            ),
        ),
        (
            "they read in v1alpha1 as they were written",
            split(V1alpha4, &[json!(500), json!(99_500)], &annotated(WEIGHTS, r#"["500m","99.5"]"#), &none),
            plain_split(V1alpha1, &[json!("500m"), json!("99.5")]),
        ),
        (
            "unless the numbers have changed since",
            split(V1alpha4, &[json!(20), json!(80)], &annotated(WEIGHTS, r#"["500m","99.5"]"#), &none),
            plain_split(V1alpha1, &[json!("20"), json!("80")]),
        ),
        (
            "or a backend was added since",
            split(V1alpha4, &[json!(90), json!(10), json!(1)], &annotated(WEIGHTS, "[90,10]"), &none),
            plain_split(V1alpha1, &[json!("90"), json!("10"), json!("1")]),
        ),
        (
            "or the annotation is nonsense",
            split(V1alpha4, &[json!(20)], &annotated(WEIGHTS, "many"), &none),
            plain_split(V1alpha1, &[json!("20")]),
        ),
        (
            "v1alpha2 keeps that annotation",
            split(V1alpha4, &[json!(500)], &annotated(WEIGHTS, r#"["500m"]"#), &none),
            split(V1alpha2, &[json!(500)], &annotated(WEIGHTS, r#"["500m"]"#), &none),
        ),
        (
            "a fraction from before it was refused is whole for clients that read whole numbers only",
            plain_split(V1alpha4, &[json!(0.5), json!(2)]),
            plain_split(V1alpha3, &[json!(500), json!(2000)]),
        ),
        (
            "and is a quantity in v1alpha1",
            plain_split(V1alpha4, &[json!(0.5), json!(2)]),
            plain_split(V1alpha1, &[json!("500m"), json!("2")]),
        ),
        (
            "v1alpha3 has matches",
            split(V1alpha4, &[json!(1)], &none, &matches),
            split(V1alpha3, &[json!(1)], &none, &matches),
        ),
        (
            "v1alpha2 keeps them in an annotation",
            split(V1alpha4, &[json!(1)], &none, &matches),
            split(V1alpha2, &[json!(1)], &kept, &none),
        ),
        (
            "v1alpha1 too, beside others",
            split(V1alpha4, &[json!(1)], &annotated("mine", "yes"), &matches),
            split(
                V1alpha1,
                &[json!("1")],
                &{
                    let mut all = kept.clone();
                    all["annotations"]["mine"] = json!("yes");
                    all
                },
                &none,
            ),
        ),
        (
            "a client of v1alpha1 that wrote other backends has not lost them",
            split(V1alpha1, &[json!("50"), json!("50"), json!("1")], &kept, &none),
            split(V1alpha4, &[json!(50), json!(50), json!(1)], &none, &matches),
        ),
        (
            "an annotation of an object that has no matches means nothing",
            split(V1alpha4, &[json!(1)], &kept, &none),
            plain_split(V1alpha2, &[json!(1)]),
        ),
        (
            "a status is the same in each",
            {
                let mut split = plain_split(V1alpha4, &[json!(1)]);
                split["status"] = json!({ "split": "cart-0=1", "conditions": [{ "type": "Accepted" }] });
                split
            },
            {
                let mut split = plain_split(V1alpha1, &[json!("1")]);
                split["status"] = json!({ "split": "cart-0=1", "conditions": [{ "type": "Accepted" }] });
                split
            },
        ),
        (
            "of an older version to a still older one",
            split(V1alpha3, &[json!(1)], &none, &matches),
            split(V1alpha1, &[json!("1")], &kept, &none),
        ),
        (
            "parts of an object stay parts",
            json!({ "apiVersion": V1alpha1.api_version(), "kind": "TrafficSplit", "metadata": { "name": "cart" } }),
            json!({ "apiVersion": V1alpha4.api_version(), "kind": "TrafficSplit", "metadata": { "name": "cart" } }),
        ),
        (
            "a backend without a weight stays so",
            json!({ "apiVersion": V1alpha2.api_version(), "kind": "TrafficSplit", "metadata": {}, "spec": { "backends": [{ "service": "a" }, { "service": "b", "weight": 1 }] } }),
            json!({ "apiVersion": V1alpha1.api_version(), "kind": "TrafficSplit", "metadata": {}, "spec": { "backends": [{ "service": "a" }, { "service": "b", "weight": "1" }] } }),
        ),
    ] {
        let version = to["apiVersion"].as_str().unwrap().parse().unwrap();
        assert_eq!(convert(from, version), Ok(to), "{shows}");
    }
}

#[test]
fn what_means_nothing_is_refused_by_its_place() {
    let none = json!({});
    for (object, expected) in [
        (
            plain_split(V1alpha1, &[json!("1"), json!("ten")]),
            "spec.backends[1].weight: invalid value: string \"ten\", expected a weight of 0 or more, for example 90 or \"500m\"",
        ),
        (
            plain_split(V1alpha1, &[json!("2G"), json!("0.5")]),
            "spec.backends[0].weight: it is too large beside a weight with a fraction; write smaller ones",
        ),
        (
            split(V1alpha2, &[json!(1)], &annotated(MATCHES, "[1]"), &none),
            "metadata.annotations[split.gauze.dev/matches]: this is no `matches` of v1alpha4 as JSON (invalid type: integer `1`, \
             expected struct SplitMatch); remove the annotation",
        ),
        (
            json!({ "apiVersion": "split.smi-spec.io/v1", "kind": "TrafficSplit" }),
            "`split.smi-spec.io/v1` is not served here; write split.smi-spec.io/v1alpha4, or v1alpha1 to v1alpha3",
        ),
        (
            json!({ "apiVersion": "split.smi-spec.io/v1alpha1", "kind": "Split" }),
            "only objects of kind TrafficSplit are converted, not `Split`",
        ),
        (json!("text"), "`` is not served here; write split.smi-spec.io/v1alpha4, or v1alpha1 to v1alpha3"),
    ] {
        assert_eq!(convert(object, V1alpha4).unwrap_err().to_string(), expected);
    }
}

/// A split as it is stored: whole numbers, perhaps matches, other people's annotations.
fn stored() -> impl Strategy<Value = Value> {
    let weights = prop::collection::vec(prop_oneof![0..200_u64, 0..=WEIGHT_MAX], 0..5);
    let annotations = prop::option::of(prop::collection::btree_map("[a-z]{1,5}", ".{0,5}", 1..3));
    let matches = prop::option::of(prop::collection::vec("[a-z]{1,5}".prop_map(|name| group(&name)), 0..3));
    (weights, annotations, matches).prop_map(|(weights, annotations, matches)| {
        let metadata = annotations.map_or(json!({}), |annotations| json!({ "annotations": annotations }));
        let spec = matches.map_or(json!({}), |matches| json!({ "matches": matches }));
        let weights: Vec<Value> = weights.into_iter().map(Value::from).collect();
        split(V1alpha4, &weights, &metadata, &spec)
    })
}

/// A quantity of any form.
fn quantity() -> impl Strategy<Value = Value> {
    let suffix =
        prop::sample::select(vec!["", "n", "u", "m", "k", "M", "Ki", "Mi", "e1", "E2", "e-3", "e+1"]);
    prop_oneof![
        (0..200_u32).prop_map(Value::from),
        (0..200_u32).prop_map(|number| number.to_string().into()),
        ("[0-9]{1,3}(\\.[0-9]{0,3})?", suffix)
            .prop_map(|(number, suffix)| format!("{number}{suffix}").into()),
    ]
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_stored_comes_back_from_every_version_as_it_was(
        stored in stored(),
        path in prop::collection::vec(version(), 1..4),
    ) {
        let mut object = stored.clone();
        for version in path {
            object = convert(object, version).unwrap();
            prop_assert_eq!(&object["apiVersion"], version.api_version());
        }
        prop_assert_eq!(convert(object, V1alpha4).unwrap(), stored);
    }

    #[test]
    fn what_v1alpha1_wrote_reads_there_as_it_was_and_means_the_same_in_all(
        weights in prop::collection::vec(quantity(), 1..5),
    ) {
        let written = plain_split(V1alpha1, &weights);
        let read = weights.iter().map(|weight| Weight::deserialize(weight).unwrap());
        let (fractions, whole): (Vec<Weight>, Vec<Weight>) = read.partition(|weight| !weight.is_whole());
        let is_too_large = |weight: &Weight| weight.thousandths > WEIGHT_MAX;
        if !fractions.is_empty() && whole.iter().chain(&fractions).any(is_too_large) {
            prop_assert!(convert(written, V1alpha4).unwrap_err().to_string().contains("it is too large beside"));
            return Ok(());
        }
        let stored = convert(written.clone(), V1alpha4).unwrap();
        let by_v1alpha2 = convert(convert(stored.clone(), V1alpha2).unwrap(), V1alpha4).unwrap();
        prop_assert_eq!(&by_v1alpha2, &stored);

        prop_assert_eq!(convert(stored.clone(), V1alpha1).unwrap(), written);
        let thousandths = |object: &Value| -> Vec<u128> {
            let read = super::weights(object).into_iter().map(|(_, value)| Weight::deserialize(value).unwrap());
            read.map(|weight| u128::from(weight.thousandths)).collect()
        };
        let (before, after) = (thousandths(&plain_split(V1alpha1, &weights)), thousandths(&stored));
        let (sum_before, sum_after) = (before.iter().sum::<u128>(), after.iter().sum::<u128>());
        for (before, after) in before.iter().zip(&after) {
            prop_assert_eq!(before * sum_after, after * sum_before, "a share has changed");
        }
    }
}
