//! What a running demo shows: on a terminal a table that is repainted, elsewhere a plain line now and then.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use super::edges::{self, Edge};
use super::events;
use super::load::{self, Load, Tally};
use super::mesh::Mesh;
use super::pods::Objects;
use crate::get;
use crate::table::{Cell, Table, Tone};
use crate::terminal;

/// The last looks at the mesh, and where the cursor stands.
pub(crate) struct Screen {
    looks: VecDeque<Look>,
    /// Lines of the last frame, to be painted over.
    painted: usize,
    live: bool,
    last_line: Option<Instant>,
}

/// One look at everything.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    at: Instant,
    pub(crate) edges: Vec<Edge>,
    pub(crate) load: Tally,
    /// Percent by backend, as the TrafficSplit wants it.
    pub(crate) wanted: BTreeMap<String, f64>,
    /// What the control plane says is wrong with the objects, and whom sidecars ejected or denied.
    pub(crate) problems: Vec<String>,
}

/// Rates are those of the last seconds: this many looks.
const LOOKS: usize = 6;
/// How often a plain line is printed where nobody looks live.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Screen {
    /// With `quiet` everything goes to stderr, as plain lines: stdout is for a program.
    pub(crate) fn new(quiet: bool) -> Screen {
        let live = !quiet && std::io::stdout().is_terminal();
        Screen { looks: VecDeque::new(), painted: 0, live, last_line: None }
    }

    /// Reads the mesh and shows it.
    pub(crate) async fn refresh(&mut self, mesh: &mut Mesh, load: &Load) -> anyhow::Result<()> {
        mesh.read().await?;
        let mut problems = match mesh.admin().get_json("/objects").await {
            Ok(objects) => get::complaints(&objects),
            Err(error) => vec![format!("{error:#}")],
        };
        problems.extend(events::lines(mesh).await);
        self.show(Look { problems, ..look(mesh, load) });
        Ok(())
    }

    fn show(&mut self, look: Look) {
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        let first = self.looks.front().unwrap_or(&look).clone();
        if !self.live && self.looks.back().is_none_or(|last| last.problems != look.problems) {
            look.problems.iter().for_each(|problem| eprintln!("{problem}"));
        }
        if self.live {
            self.repaint(&frame(&first, &look));
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) && !self.looks.is_empty() {
            self.last_line = Some(Instant::now());
            eprintln!("{}", line(&first, &look));
        }
        self.looks.push_back(look);
    }

    /// Paints over the last frame, line by line, so that nothing flickers.
    fn repaint(&mut self, frame: &str) {
        let mut out = String::new();
        if self.painted > 0 {
            out += &format!("\x1b[{}A", self.painted);
        }
        for text in frame.lines() {
            out += &format!("\x1b[2K{text}\n");
        }
        out += "\x1b[J";
        self.painted = frame.lines().count();
        let mut stdout = std::io::stdout();
        // A terminal that went away is noticed by the signal that it sends.
        let _ = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Prints a line above the live table.
    pub(crate) fn say(&mut self, text: &str) {
        if self.painted > 0 {
            print!("\x1b[{}A\x1b[J", self.painted);
            self.painted = 0;
        }
        if self.live { println!("{text}") } else { eprintln!("{text}") }
    }
}

fn look(mesh: &Mesh, load: &Load) -> Look {
    let readings: Vec<_> = mesh.readings().collect();
    let mut all = Tally::default();
    load.tallies().values().for_each(|tally| all.merge(tally));
    let wanted = Objects::read(&mesh.directory).map(|objects| objects.wanted_split("cart"));
    Look {
        at: Instant::now(),
        edges: edges::edges(&readings),
        load: all,
        wanted: wanted.unwrap_or_default().into_iter().collect(),
        problems: Vec::new(),
    }
}

/// One line of the table: an edge and a version, all protocols together.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    from: String,
    to: String,
    version: String,
    rate: f64,
    success: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Wanted and seen, in percent, where a split decides.
    split: Option<(f64, f64)>,
    mtls: bool,
    identities: String,
}

/// What happened between two looks, by edge and version.
fn rows(first: &Look, last: &Look) -> Vec<Row> {
    let seconds = (last.at - first.at).as_secs_f64().max(0.001);
    let older = |edge: &Edge| first.edges.iter().find(|other| other.key == edge.key);
    let mut merged: BTreeMap<(String, String, String), Edge> = BTreeMap::new();
    for edge in &last.edges {
        let recent = edge.since(older(edge));
        let key = (edge.key.from.clone(), edge.key.to.clone(), edge.key.version.clone());
        match merged.get_mut(&key) {
            Some(sum) => sum.merge(&recent),
            None => drop(merged.insert(key, recent)),
        }
    }
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for ((from, to, _), edge) in &merged {
        *sums.entry((from.clone(), to.clone())).or_default() += edge.requests;
    }
    let row = |((from, to, version), edge): ((String, String, String), Edge)| {
        let all = sums.get(&(from.clone(), to.clone())).copied().unwrap_or_default();
        let seen = 100.0 * edge.requests as f64 / all.max(1) as f64;
        let wanted = last.wanted.get(&format!("{to}-{version}"));
        Row {
            rate: edge.requests as f64 / seconds,
            success: success(edge.requests, edge.failed),
            p50_ms: edge.latencies.quantile_ms(0.5),
            p99_ms: edge.latencies.quantile_ms(0.99),
            split: wanted.map(|wanted| (*wanted, seen)),
            mtls: edge.mtls,
            identities: identities(&edge),
            from,
            to,
            version,
        }
    };
    // As a request travels: web before cart.
    let mut rows: Vec<Row> = merged.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.from.clone()));
    rows
}

/// Percent of requests that did not fail; none failed where there were none.
fn success(requests: u64, failed: u64) -> f64 {
    if requests == 0 {
        return 100.0;
    }
    100.0 * requests.saturating_sub(failed) as f64 / requests as f64
}

/// Who speaks with whom, without the trust domain that all share.
fn identities(edge: &Edge) -> String {
    let short = |identity: &Option<String>| {
        let identity = identity.as_deref().unwrap_or("?");
        identity.split_once("/ns/").map_or(identity, |(_, rest)| rest).replace("/sa/", "/")
    };
    format!("{} → {}", short(&edge.from_identity), short(&edge.to_identity))
}

fn frame(first: &Look, last: &Look) -> String {
    let style = terminal::output();
    let head =
        ["FROM", "TO", "VERSION", "REQ/S", "SUCCESS", "P50", "P99", "WANTED", "SEEN", "MTLS", "IDENTITIES"];
    let mut table = Table::new(&head);
    table.push(outside_row(first, last));
    for row in rows(first, last) {
        let (wanted, seen) = row.split.map_or_else(Default::default, |(wanted, seen)| {
            (format!("{wanted:.0} %"), format!("{seen:.1} %"))
        });
        let mtls = if row.mtls { Cell::new("yes", Tone::Good) } else { Cell::new("no", Tone::Bad) };
        table.push(vec![
            row.from.into(),
            row.to.into(),
            row.version.into(),
            format!("{:.0}", row.rate).into(),
            success_cell(row.success),
            milliseconds(row.p50_ms).into(),
            milliseconds(row.p99_ms).into(),
            wanted.into(),
            seen.into(),
            mtls,
            row.identities.into(),
        ]);
    }
    let problems = last.problems.iter().take(PROBLEMS_MAX).map(|problem| style.red(&shortened(problem)));
    let problems: Vec<String> = problems.collect();
    format!("\n{}{}", table.render(style), problems.join("\n"))
}

/// Lines below the table; `gauze get` shows all.
const PROBLEMS_MAX: usize = 3;
/// A line that does not break on most terminals: a broken line could not be painted over.
const LINE_MAX: usize = 110;

fn shortened(text: &str) -> String {
    if text.chars().count() <= LINE_MAX {
        return text.to_owned();
    }
    text.chars().take(LINE_MAX - 1).chain(['…']).collect()
}

fn outside_row(first: &Look, last: &Look) -> Vec<Cell> {
    let seconds = (last.at - first.at).as_secs_f64().max(0.001);
    let sent = last.load.sent - first.load.sent;
    let failed = last.load.failed - first.load.failed;
    let latencies = last.load.latencies().since(&first.load.latencies());
    vec![
        load::CALLER.into(),
        "web".into(),
        "".into(),
        format!("{:.0}", sent as f64 / seconds).into(),
        success_cell(success(sent, failed)),
        milliseconds(latencies.quantile_ms(0.5)).into(),
        milliseconds(latencies.quantile_ms(0.99)).into(),
        "".into(),
        "".into(),
        Cell::new("no", Tone::Quiet),
        Cell::new("outside the mesh", Tone::Quiet),
    ]
}

fn success_cell(percent: f64) -> Cell {
    let tone = if percent >= 100.0 { Tone::Good } else { Tone::Bad };
    // 99.96 is not 100.0.
    Cell::new(format!("{:.1} %", (percent * 10.0).floor() / 10.0), tone)
}

fn milliseconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

fn line(first: &Look, last: &Look) -> String {
    let edges = rows(first, last).into_iter().map(|row| {
        let split =
            row.split.map_or_else(String::new, |(wanted, seen)| format!(" ({seen:.1} % of {wanted:.0} %)"));
        format!("{} → {} {} {:.0}/s{split}", row.from, row.to, row.version, row.rate)
    });
    let failed = last.load.failed;
    let worst = if failed > 0 { format!(" ({})", last.load.worst()) } else { String::new() };
    format!("{} requests, {failed} failed{worst} | {}", last.load.sent, edges.collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::call::Protocol;
    use crate::demo::edges::EdgeKey;
    use crate::metrics::Histogram;

    fn edge(version: &str, protocol: Protocol, requests: u64) -> Edge {
        Edge {
            key: EdgeKey { from: "web".into(), to: "cart".into(), version: version.into(), protocol },
            mtls: true,
            from_identity: Some("spiffe://cluster.local/ns/shop/sa/web".into()),
            to_identity: Some("spiffe://cluster.local/ns/shop/sa/cart".into()),
            requests,
            encrypted: requests,
            failed: 0,
            denied: 0,
            latencies: Histogram::default(),
        }
    }

    #[test]
    fn a_row_is_what_happened_between_two_looks_in_all_protocols() {
        let at = Instant::now();
        let wanted = BTreeMap::from([("cart-v1".to_owned(), 90.0), ("cart-v2".to_owned(), 10.0)]);
        let before = vec![edge("v1", Protocol::Http1, 1000)];
        let first =
            Look { at, edges: before, load: Tally::default(), wanted: wanted.clone(), problems: vec![] };
        let after = vec![
            edge("v1", Protocol::Http1, 1150),
            edge("v1", Protocol::Grpc, 30),
            edge("v2", Protocol::Http1, 20),
        ];
        let at = at + Duration::from_secs(2);
        let last = Look { at, edges: after, load: Tally::default(), wanted, problems: vec![] };
        let rows = rows(&first, &last);
        let seen: Vec<_> = rows.iter().map(|row| (row.version.as_str(), row.rate, row.split)).collect();
        assert_eq!(seen, [("v1", 90.0, Some((90.0, 90.0))), ("v2", 10.0, Some((10.0, 10.0)))]);
        assert_eq!(rows[0].identities, "shop/web → shop/cart");
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(success_cell(99.96), Cell::new("99.9 %", Tone::Bad));
        assert_eq!(success_cell(success(0, 0)), Cell::new("100.0 %", Tone::Good));
    }
}
