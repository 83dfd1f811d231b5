//! Reads the Prometheus text of a sidecar: samples and histograms, and counters kept across its restarts.

use std::collections::BTreeMap;

/// The labels of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// One line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

impl Sample {
    /// A label; empty where there is none.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Reads all samples; lines that are none are skipped.
pub(crate) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Labels::new(), value });
    };
    Some(Sample { name: name.to_owned(), labels: parse_labels(labels.strip_suffix('}')?)?, value })
}

/// `name="value",…` with `\\`, `\"` and `\n` in values.
fn parse_labels(mut text: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = unquote(rest)?;
        labels.insert(name.to_owned(), value);
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

/// The value up to its closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            _ => value.push(character),
        }
    }
    None
}

/// Counters that go on when the process behind them is replaced and begins at zero.
#[derive(Debug, Default)]
pub(crate) struct Counters(BTreeMap<(String, Labels), Counter>);

#[derive(Debug, Default)]
struct Counter {
    last: f64,
    total: f64,
}

impl Counters {
    /// Takes up what a scrape has shown.
    pub(crate) fn update(&mut self, samples: Vec<Sample>) {
        for sample in samples {
            let counter = self.0.entry((sample.name, sample.labels)).or_default();
            let grown = if sample.value >= counter.last { sample.value - counter.last } else { sample.value };
            counter.total += grown;
            counter.last = sample.value;
        }
    }

    /// The process was replaced: whatever it counts from now on is new.
    pub(crate) fn restarted(&mut self) {
        for counter in self.0.values_mut() {
            counter.last = 0.0;
        }
    }

    /// The totals since the beginning of the series of this name.
    pub(crate) fn totals<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Sample> + 's {
        let first = (name.to_owned(), Labels::new());
        let of_this_name = move |series: &(&(String, Labels), &Counter)| series.0.0 == name;
        self.0.range(first..).take_while(of_this_name).map(|((name, labels), counter)| Sample {
            name: name.clone(),
            labels: labels.clone(),
            value: counter.total,
        })
    }
}

/// A histogram: how many took at most how many seconds, cumulative, by rising bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Adds one `_bucket` sample.
    pub(crate) fn add(&mut self, bucket: &Sample) {
        let Ok(bound) = bucket.label("le").replace("+Inf", "inf").parse::<f64>() else { return };
        match self.0.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
            Ok(at) => self.0[at].1 += bucket.value,
            Err(at) => self.0.insert(at, (bound, bucket.value)),
        }
    }

    /// What was added since `older`.
    pub(crate) fn since(&self, older: &Histogram) -> Histogram {
        let before = |bound: f64| older.0.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, n)| *n);
        Histogram(self.0.iter().map(|(bound, count)| (*bound, count - before(*bound))).collect())
    }

    /// Adds another histogram of the same bounds.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (bound, count) in &other.0 {
            match self.0.binary_search_by(|(own, _)| own.total_cmp(bound)) {
                Ok(at) => self.0[at].1 += count,
                Err(at) => self.0.insert(at, (*bound, *count)),
            }
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The quantile in milliseconds, interpolated within its bucket as Prometheus does; 0 without requests.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = share * self.count();
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > below {
                let upper = if bound.is_finite() { *bound } else { lower };
                return 1000.0 * (lower + (upper - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (*bound, *count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP gauze_requests_total Requests\n# TYPE gauze_requests_total counter\n\
        gauze_requests_total{direction=\"outbound\",peer_app=\"a\\\"b\"} 3\ngauze_ready 1\nbroken{ 1\n";

    #[test]
    fn samples_are_read_with_their_labels() {
        let samples = parse(TEXT);
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].label("direction"), samples[0].label("peer_app")), ("outbound", "a\"b"));
        assert_eq!((samples[1].name.as_str(), samples[1].value), ("gauze_ready", 1.0));
    }

    #[test]
    fn a_counter_goes_on_after_a_restart() {
        let mut counters = Counters::default();
        let count = |value: f64| vec![Sample { name: "n".into(), labels: Labels::new(), value }];
        counters.update(count(10.0));
        counters.update(count(15.0));
        counters.restarted();
        counters.update(count(40.0));
        assert_eq!(counters.totals("n").map(|sample| sample.value).sum::<f64>(), 55.0);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let bucket = |bound: &str, value: f64| Sample {
            name: "d_bucket".into(),
            labels: Labels::from([("le".into(), bound.into())]),
            value,
        };
        let mut histogram = Histogram::default();
        for (bound, count) in [("0.001", 50.0), ("0.002", 90.0), ("0.01", 100.0), ("+Inf", 100.0)] {
            histogram.add(&bucket(bound, count));
        }
        assert_eq!(histogram.quantile_ms(0.5), 1.0);
        assert_eq!(histogram.quantile_ms(0.7), 1.5);
        assert_eq!(Histogram::default().quantile_ms(0.5), 0.0);
        assert_eq!(histogram.since(&histogram).quantile_ms(0.99), 0.0);
    }
}
