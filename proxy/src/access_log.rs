//! One JSON line for each request or opaque connection. A line is written by a pure function of its
//! record into a buffer; a thread of its own carries the buffers to stdout. A worker never waits for
//! it: when the channel is full, the line is dropped and counted.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gauze_model::retry::Stop;
use prometheus::IntCounter;

use crate::metrics::{RetryReason, stop_label};
use crate::record::{Head, Record};

/// Where records go when they drop; cheap to clone, and nothing at all while it is off.
#[derive(Clone, Default)]
pub struct AccessLog {
    channel: Option<Channel>,
}

#[derive(Clone)]
struct Channel {
    lines: SyncSender<Item>,
    dropped: IntCounter,
}

/// What the writer is sent.
enum Item {
    Line(Vec<u8>),
    /// Tell here when all that came before is written.
    Flush(SyncSender<()>),
}

/// How long the end of the process waits for the reader of stdout.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines that wait for the writer.
const LINES_MAX: usize = 8192;

/// Bytes of a field that is somebody else's (path, host, user agent).
const FIELD_MAX: usize = 2048;

impl AccessLog {
    /// Writes nothing.
    #[must_use]
    pub fn off() -> AccessLog {
        AccessLog::default()
    }

    /// Starts the writer; it ends when the last clone of the log is gone.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(output: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<AccessLog> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            // Whoever read our stdout is gone: nobody is left to be told.
            let _ = write_all(&waiting, BufWriter::new(output));
        })?;
        Ok(AccessLog { channel: Some(Channel { lines, dropped }) })
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.channel.is_some()
    }

    /// Hands over the line of a record that ends now.
    pub fn write(&self, record: &Record, duration: Duration) {
        let Some(channel) = &self.channel else { return };
        let mut line = Vec::with_capacity(512);
        write_line(&mut line, record, SystemTime::now(), duration);
        if channel.lines.try_send(Item::Line(line)).is_err() {
            channel.dropped.inc();
        }
    }

    /// Waits, not for long, until all lines are written.
    pub fn flush(&self) {
        let Some(channel) = &self.channel else { return };
        let (done, written) = sync_channel(1);
        if channel.lines.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Writes lines as they come, and flushes when no more wait.
fn write_all(waiting: &Receiver<Item>, mut output: impl Write) -> io::Result<()> {
    while let Ok(first) = waiting.recv() {
        for item in std::iter::once(first).chain(waiting.try_iter()) {
            match item {
                Item::Line(line) => output.write_all(&line)?,
                Item::Flush(done) => {
                    output.flush()?;
                    let _ = done.try_send(());
                }
            }
        }
        output.flush()?;
    }
    Ok(())
}

/// Writes the line of a record, with its newline. Fields that are not known are left out.
pub fn write_line(out: &mut Vec<u8>, record: &Record, now: SystemTime, duration: Duration) {
    let labels = record.edge.labels();
    let mut line = Line { out };
    line.out.push(b'{');
    line.text("time", timestamp(now).as_bytes());
    line.text("direction", labels.direction.label().as_bytes());
    line.text("protocol", record.protocol.label().as_bytes());
    if let Some(head) = record.head() {
        line.head(head);
    }
    if let Some(status) = record.status {
        line.number("status", status.as_u16().into());
    }
    if let Some(status) = record.grpc_status {
        line.number("grpc_status", status.into());
    }
    line.known("flag", &flags(record));
    if let Some(code) = record.error {
        line.text("error", code.to_string().as_bytes());
    }
    if record.retries > 0 {
        line.number("tries", (record.retries + 1).into());
    }
    line.known("retry_reason", record.retry_reason.map_or("", RetryReason::label));
    line.known("retry_stop", record.retry_stop.map_or("", stop_label));
    line.number("duration_us", u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    line.number("received", record.received);
    line.number("sent", record.sent);
    line.text("source", record.source.to_string().as_bytes());
    line.text("destination", record.destination.to_string().as_bytes());
    if let Some(endpoint) = record.endpoint {
        line.text("endpoint", endpoint.to_string().as_bytes());
    }
    line.text("tls", labels.security.label().as_bytes());
    line.known("cluster", &labels.cluster);
    line.known("peer_namespace", &labels.peer_namespace);
    line.known("peer_app", &labels.peer_app);
    line.known("peer_version", &labels.peer_version);
    line.known("peer_identity", &labels.peer_identity);
    if let Some(policy) = &record.policy {
        line.text("policy", policy.to_string().as_bytes());
    }
    if !record.audited.is_empty() {
        let audited: Vec<String> = record.audited.iter().map(ToString::to_string).collect();
        line.text("audited", audited.join(", ").as_bytes());
    }
    line.out.extend_from_slice(b"}\n");
}

/// Envoy's response flags: that of the failure, and why it was not tried again.
fn flags(record: &Record) -> Cow<'static, str> {
    let stop = match record.retry_stop {
        Some(Stop::RetriesUsedUp) => "URX",
        Some(Stop::OverBudget) => "UO",
        _ => "",
    };
    match (flag(record), stop) {
        (flag, "") => Cow::Borrowed(flag),
        ("", stop) => Cow::Borrowed(stop),
        (flag, stop) => Cow::Owned(format!("{flag},{stop}")),
    }
}

/// Envoy's response flag: that of the problem code, or `DC` where the client went away first.
fn flag(record: &Record) -> &'static str {
    match record.error {
        Some(code) => code.entry().map_or("", |entry| entry.flag),
        None if record.head().is_some() && record.status.is_none() => "DC",
        None => "",
    }
}

/// A JSON object that is being written.
struct Line<'o> {
    out: &'o mut Vec<u8>,
}

impl Line<'_> {
    fn head(&mut self, head: &Head) {
        self.text("method", head.method.as_str().as_bytes());
        self.text("authority", head.authority());
        self.text("path", head.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
        let header =
            |value: &Option<http::HeaderValue>| value.as_ref().map(|value| value.as_bytes().to_vec());
        for (name, value) in
            [("request_id", header(&head.request_id)), ("user_agent", header(&head.user_agent))]
        {
            if let Some(value) = value {
                self.text(name, &value);
            }
        }
    }

    fn known(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value.as_bytes());
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    /// A string of at most `FIELD_MAX` bytes; what is not UTF-8 in it is replaced.
    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        let text = String::from_utf8_lossy(&value[..value.len().min(FIELD_MAX)]);
        self.out.push(b'"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.out.extend_from_slice(&[b'\\', character as u8]),
                control if control.is_control() => {
                    self.out.extend_from_slice(format!("\\u{:04x}", control as u32).as_bytes());
                }
                other => self.out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.out.push(b'"');
    }

    fn name(&mut self, name: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The date of a day since 1970 (Hinnant, "chrono-Compatible Low-Level Date Algorithms", for years from 1970 on).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use gauze_model::Code;
    use http::{Request, StatusCode};

    use super::*;
    use crate::metrics::CLIENT_GONE;
    use crate::metrics::{Direction, EdgeLabels, Metrics, Protocol, Security};

    fn request(log: &AccessLog, metrics: &Metrics, path: &str) -> Record {
        let labels = EdgeLabels {
            cluster: "cluster/shop/cart/80".to_owned(),
            peer_app: "cart".to_owned(),
            security: Security::Mutual,
            ..EdgeLabels::nowhere(Direction::Outbound)
        };
        let head = Request::get(path).header("host", "cart").header("user-agent", "a\"b\\\u{e9}").body(());
        let (head, ()) = head.expect("a valid request").into_parts();
        let [source, destination] =
            ["10.0.0.1:4000", "10.96.0.2:80"].map(|text| text.parse().expect("an address"));
        Record::request(log, metrics.edge(labels), Protocol::Http1, source, destination, &head)
    }

    /// What a log on this writer holds in the end.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_tells_the_request_the_peer_and_the_outcome() {
        let metrics = Metrics::new();
        let log = AccessLog::start(io::sink(), metrics.access_log_dropped.clone()).expect("a thread");
        let mut record = request(&log, &metrics, "/items?x=1");
        record.status = StatusCode::from_u16(200).ok();
        record.endpoint = "10.1.0.4:8080".parse().ok();
        record.sent = 12;
        let mut line = Vec::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_795_297_442_007);
        write_line(&mut line, &record, now, Duration::from_micros(1_500));
        assert_eq!(
            String::from_utf8(line).as_deref(),
            Ok(concat!(
                r#"{"time":"2026-11-21T21:44:02.007Z","direction":"outbound","protocol":"http/1.1","method":"GET","#,
                r#""authority":"cart","path":"/items?x=1","user_agent":"a\"b\\é","status":200,"duration_us":1500,"#,
                r#""received":0,"sent":12,"source":"10.0.0.1:4000","destination":"10.96.0.2:80","#,
                r#""endpoint":"10.1.0.4:8080","tls":"mutual","cluster":"cluster/shop/cart/80","peer_app":"cart"}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_line_tells_how_often_a_request_was_tried_and_why_not_more_often() {
        use crate::metrics::RetryReason::{ConnectFailure, Status};
        let metrics = Metrics::new();
        let log = AccessLog::start(io::sink(), metrics.access_log_dropped.clone()).expect("a thread");
        for (what, retries, reason, stop, error, wanted) in [
            ("once", 0, None, None, None, [None, None, None, None]),
            ("twice", 1, Some(Status), None, None, [None, Some("2"), Some("status"), None]),
            (
                "as often as allowed",
                2,
                Some(ConnectFailure),
                Some(Stop::RetriesUsedUp),
                Some(Code::CONNECT_FAILED),
                [Some("UF,URX"), Some("3"), Some("connect-failure"), Some("retries")],
            ),
            (
                "not for the budget",
                0,
                None,
                Some(Stop::OverBudget),
                None,
                [Some("UO"), None, None, Some("budget")],
            ),
        ] {
            let mut record = request(&log, &metrics, "/");
            record.status = Some(StatusCode::SERVICE_UNAVAILABLE);
            (record.retries, record.retry_reason, record.retry_stop, record.error) =
                (retries, reason, stop, error);
            let mut line = Vec::new();
            write_line(&mut line, &record, UNIX_EPOCH, Duration::ZERO);
            let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
            let told = ["flag", "tries", "retry_reason", "retry_stop"].map(|name| value.get(name));
            let told = told.map(|told| told.map(|told| told.to_string().trim_matches('"').to_owned()));
            assert_eq!(told.each_ref().map(Option::as_deref), wanted, "{what}");
        }
    }

    #[test]
    fn whatever_a_client_sends_the_line_is_json() {
        let metrics = Metrics::new();
        let log = AccessLog::start(io::sink(), metrics.access_log_dropped.clone()).expect("a thread");
        let mut line = Vec::new();
        let record = request(&log, &metrics, &format!("/{}", "x".repeat(10_000)));
        write_line(&mut line, &record, UNIX_EPOCH, Duration::ZERO);
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["path"].as_str().map(str::len), Some(FIELD_MAX));
        assert_eq!(value["flag"], "DC", "it ended without a response");
        for bytes in [&b"\xff\xfe"[..], b"\x00\n\r\t\x7f", "\u{85}\u{2028}".as_bytes()] {
            let mut out = b"{".to_vec();
            Line { out: &mut out }.text("field", bytes);
            out.push(b'}');
            serde_json::from_slice::<serde_json::Value>(&out)
                .unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        }
    }

    #[test]
    fn a_record_writes_its_line_and_counts_when_it_drops() {
        let (metrics, output) = (Metrics::new(), Shared::default());
        let log = AccessLog::start(output.clone(), metrics.access_log_dropped.clone()).expect("a thread");
        drop(request(&log, &metrics, "/a"));
        drop(request(&log, &metrics, "/b"));
        log.flush();
        let text = String::from_utf8(output.0.lock().expect("no writer panics").clone()).expect("UTF-8");
        let paths: Vec<_> =
            text.lines().filter_map(|line| line.split(r#""path":"#).nth(1)?.get(..4)).collect();
        assert_eq!(paths, [r#""/a""#, r#""/b""#]);
        assert!(String::from_utf8_lossy(&metrics.text()).contains(&format!(r#"code="{CLIENT_GONE}""#)));
    }

    #[test]
    fn a_slow_reader_costs_lines_and_never_time() {
        let metrics = Metrics::new();
        let (lines, _waiting) = sync_channel(1);
        let log = AccessLog { channel: Some(Channel { lines, dropped: metrics.access_log_dropped.clone() }) };
        for _ in 0..5 {
            drop(request(&log, &metrics, "/"));
        }
        assert_eq!(metrics.access_log_dropped.get(), 4);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
