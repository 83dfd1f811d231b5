//! `gauze proxy stats`: what a sidecar has counted, from its `/metrics`; histograms as count and quantiles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::sidecar;
use crate::metrics::{Histogram, Labels, Sample, parse};
use crate::output;
use crate::source::Place;
use crate::table::Table;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The pod, or the only one of an app: web-0, web, shop/web
    pod: String,
    /// Only what has this in its name or labels; several must all be there
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// What is zero too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: output::Output,
}

/// One row: a counter, a gauge, or a whole histogram.
#[derive(Clone, Debug, PartialEq)]
struct Stat {
    name: String,
    labels: Labels,
    value: StatValue,
}

#[derive(Clone, Debug, PartialEq)]
enum StatValue {
    Number(f64),
    Histogram { buckets: Histogram, sum: f64 },
}

pub(super) async fn run(arguments: &Arguments, place: &Place) -> anyhow::Result<()> {
    let text = sidecar::find(place, &arguments.pod).await?.admin().get("/metrics").await?;
    let is_wanted = |stat: &Stat| (arguments.all || stat.is_used()) && stat.has(&arguments.filter);
    let stats: Vec<Stat> = stats(parse(&text)).into_iter().filter(is_wanted).collect();
    let nothing = "nothing was counted that this asks for; --all shows zeros too";
    let values = stats.iter().map(Stat::to_json).collect();
    output::print(arguments.output.format, &table(&stats), &Value::Array(values), nothing)
}

/// The rows, by name and labels; the series of a histogram are one row.
fn stats(samples: Vec<Sample>) -> Vec<Stat> {
    let mut histograms: BTreeMap<(String, Labels), (Histogram, f64)> = BTreeMap::new();
    for bucket in samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let name = bucket.name.trim_end_matches("_bucket").to_owned();
        let mut labels = bucket.labels.clone();
        labels.remove("le");
        histograms.entry((name, labels)).or_default().0.add(bucket);
    }
    let mut rows = Vec::new();
    for Sample { name, labels, value } in samples {
        let of_histogram = |suffix: &str| Some((name.strip_suffix(suffix)?.to_owned(), labels.clone()));
        if name.ends_with("_bucket")
            || of_histogram("_count").is_some_and(|key| histograms.contains_key(&key))
        {
            continue;
        }
        match of_histogram("_sum").and_then(|key| histograms.get_mut(&key)) {
            Some((_, sum)) => *sum = value,
            None => rows.push(Stat { name, labels, value: StatValue::Number(value) }),
        }
    }
    rows.extend(histograms.into_iter().map(|((name, labels), (buckets, sum))| Stat {
        name,
        labels,
        value: StatValue::Histogram { buckets, sum },
    }));
    rows.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    rows
}

impl Stat {
    fn is_used(&self) -> bool {
        match &self.value {
            StatValue::Number(number) => *number != 0.0,
            StatValue::Histogram { buckets, .. } => buckets.count() > 0.0,
        }
    }

    fn has(&self, filters: &[String]) -> bool {
        let series = format!("{}{{{}}}", self.name, self.label_text());
        filters.iter().all(|filter| series.contains(filter))
    }

    /// `direction=outbound tls=mutual`: labels that are not empty.
    fn label_text(&self) -> String {
        let labels = self.labels.iter().filter(|(_, value)| !value.is_empty());
        labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    fn value_text(&self) -> String {
        match &self.value {
            StatValue::Number(number) => number.to_string(),
            StatValue::Histogram { buckets, .. } => {
                let [p50, p99] = [0.5, 0.99].map(|share| buckets.quantile_ms(share));
                format!("{} (p50 {p50:.1} ms, p99 {p99:.1} ms)", buckets.count())
            }
        }
    }

    fn to_json(&self) -> Value {
        let mut value = json!({ "name": self.name, "labels": self.labels });
        match &self.value {
            StatValue::Number(number) => value["value"] = json!(number),
            StatValue::Histogram { buckets, sum } => {
                value["count"] = json!(buckets.count());
                value["sum"] = json!(sum);
                for (name, share) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
                    value[name] = json!(buckets.quantile_ms(share));
                }
            }
        }
        value
    }
}

fn table(stats: &[Stat]) -> Table {
    let mut table = Table::new(&["METRIC", "VALUE", "LABELS"]);
    for stat in stats {
        table.push(vec![stat.name.clone().into(), stat.value_text().into(), stat.label_text().into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"gauze_ready 1
gauze_draining 0
gauze_requests_total{direction="outbound",peer_app="cart",error=""} 3
gauze_request_duration_seconds_bucket{direction="outbound",le="0.001"} 1
gauze_request_duration_seconds_bucket{direction="outbound",le="0.01"} 2
gauze_request_duration_seconds_bucket{direction="outbound",le="+Inf"} 2
gauze_request_duration_seconds_sum{direction="outbound"} 0.004
gauze_request_duration_seconds_count{direction="outbound"} 2
gauze_thread_count 4
"#;

    #[test]
    fn a_histogram_is_one_row_and_a_name_that_ends_in_count_is_none_of_one() {
        let rows: Vec<[String; 3]> = stats(parse(TEXT))
            .iter()
            .map(|stat| [stat.name.clone(), stat.value_text(), stat.label_text()])
            .collect();
        let row =
            |name: &str, value: &str, labels: &str| [name.to_owned(), value.to_owned(), labels.to_owned()];
        assert_eq!(
            rows,
            [
                row("gauze_draining", "0", ""),
                row("gauze_ready", "1", ""),
                row("gauze_request_duration_seconds", "2 (p50 1.0 ms, p99 9.8 ms)", "direction=outbound"),
                row("gauze_requests_total", "3", "direction=outbound peer_app=cart"),
                row("gauze_thread_count", "4", ""),
            ]
        );
    }

    #[test]
    fn a_filter_is_looked_for_in_name_and_labels() {
        let all = stats(parse(TEXT));
        let found = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            all.iter().filter(|stat| stat.has(&filters)).count()
        };
        assert_eq!(
            [found(&[]), found(&["outbound"]), found(&["requests", "cart"]), found(&["none"])],
            [5, 2, 1, 0]
        );
        assert_eq!(all.iter().filter(|stat| stat.is_used()).count(), 4);
    }
}
