use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use gauze_model::Code;
use gauze_model::retry::Stop;
use http::{Request, StatusCode};

use super::*;
use crate::access_log::line::{FIELD_MAX, write_line, write_string};
use crate::metrics::{CLIENT_GONE, Direction, EdgeLabels, Metrics, Protocol, Security};

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

const AT_ONCE: Ended = Ended { at: UNIX_EPOCH, after: Duration::ZERO };

fn line(format: &Format, record: &Record, ended: Ended) -> String {
    let mut line = Vec::new();
    write_line(&mut line, format, record, ended);
    String::from_utf8(line).expect("UTF-8")
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
    let log = AccessLog::start(Format::Json, "web-0", io::sink(), metrics.access_log_dropped.clone())
        .expect("a thread");
    let mut record = request(&log, &metrics, "/items?x=1");
    record.status = StatusCode::from_u16(200).ok();
    record.endpoint = "10.1.0.4:8080".parse().ok();
    record.sent = 12;
    let at = UNIX_EPOCH + Duration::from_millis(1_795_297_442_007);
    assert_eq!(
        line(&Format::Json, &record, Ended { at, after: Duration::from_micros(1_500) }),
        concat!(
            r#"{"time":"2026-11-21T21:44:02.005Z","direction":"outbound","protocol":"http/1.1","method":"GET","#,
            r#""authority":"cart","path":"/items?x=1","user_agent":"a\"b\\é","status":200,"duration_us":1500,"#,
            r#""received":0,"sent":12,"source":"10.0.0.1:4000","destination":"10.96.0.2:80","#,
            r#""endpoint":"10.1.0.4:8080","tls":"mutual","cluster":"cluster/shop/cart/80","peer_app":"cart"}"#,
            "\n"
        )
    );
}

#[test]
fn a_line_tells_how_often_a_request_was_tried_and_why_not_more_often() {
    use crate::metrics::RetryReason::{ConnectFailure, Status};
    let metrics = Metrics::new();
    let log = AccessLog::start(Format::Json, "web-0", io::sink(), metrics.access_log_dropped.clone())
        .expect("a thread");
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
        let line = line(&Format::Json, &record, AT_ONCE);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let told = ["flag", "tries", "retry_reason", "retry_stop"].map(|name| value.get(name));
        let told = told.map(|told| told.map(|told| told.to_string().trim_matches('"').to_owned()));
        assert_eq!(told.each_ref().map(Option::as_deref), wanted, "{what}");
    }
}

#[test]
fn whatever_a_client_sends_the_line_is_json() {
    let metrics = Metrics::new();
    let log = AccessLog::start(Format::Json, "web-0", io::sink(), metrics.access_log_dropped.clone())
        .expect("a thread");
    let record = request(&log, &metrics, &format!("/{}", "x".repeat(10_000)));
    let line = line(&Format::Json, &record, AT_ONCE);
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["path"].as_str().map(str::len), Some(FIELD_MAX));
    assert_eq!(value["flag"], "DC", "it ended without a response");
    for bytes in [&b"\xff\xfe"[..], b"\x00\n\r\t\x7f", "\u{85}\u{2028}".as_bytes()] {
        let mut out = Vec::new();
        write_string(&mut out, bytes);
        serde_json::from_slice::<serde_json::Value>(&out)
            .unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
    }
}

#[test]
fn a_record_writes_its_line_and_counts_when_it_drops() {
    let (metrics, output) = (Metrics::new(), Shared::default());
    let log = AccessLog::start(Format::Json, "web-0", output.clone(), metrics.access_log_dropped.clone())
        .expect("a thread");
    drop(request(&log, &metrics, "/a"));
    drop(request(&log, &metrics, "/b"));
    log.flush();
    let text = String::from_utf8(output.0.lock().expect("no writer panics").clone()).expect("UTF-8");
    let paths: Vec<_> = text.lines().filter_map(|line| line.split(r#""path":"#).nth(1)?.get(..4)).collect();
    assert_eq!(paths, [r#""/a""#, r#""/b""#]);
    assert!(String::from_utf8_lossy(&metrics.text()).contains(&format!(r#"code="{CLIENT_GONE}""#)));
}

#[test]
fn a_slow_reader_costs_lines_and_never_time() {
    let metrics = Metrics::new();
    let (lines, _waiting) = sync_channel(1);
    let log = AccessLog::to(lines, Format::Json, "web-0", metrics.access_log_dropped.clone());
    for _ in 0..5 {
        drop(request(&log, &metrics, "/"));
    }
    assert_eq!(metrics.access_log_dropped.get(), 4);
}

/// A request of our app that a peer answered, as each format tells it.
#[test]
fn a_line_is_written_in_the_format_that_was_asked_for() {
    let metrics = Metrics::new();
    for (format, wanted) in [
        (
            "text",
            "[1970-01-01T00:00:07.000Z] \"GET /items HTTP/1.1\" 503 UF 0 12 25 20 \"-\" \"a\"b\\\u{e9}\" \"-\" \"cart\" \"10.1.0.4:8080\"\n",
        ),
        ("%REQ(x-none)% %REQ(x-none?user-agent):2% %RESP(x-answer)% %TRAILER(x-last)%", "- a\" yes end\n"),
        (
            "%START_TIME(%s.%3f)% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %ROUTE_NAME%",
            "7.000 20 5 HTTPRoute/shop/cart spec.rules[0]\n",
        ),
        (
            "%RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_TLS_VERSION%",
            "M3005 M3005 TLSv1.3\n",
        ),
        (
            "%UPSTREAM_HOST% %UPSTREAM_REMOTE_PORT% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "10.1.0.4:8080 8080 cluster/shop/cart/80 1\n",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_TLS_VERSION%",
            "10.0.0.1 80 -\n",
        ),
        (
            "%HOSTNAME%: %GAUZE(peer_app)% %GRPC_STATUS% %GRPC_STATUS_NUMBER%",
            "web-0: cart PermissionDenied 7\n",
        ),
        (
            r#"{"status": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%", "agent": "is %REQ(user-agent)%", "none": "%REQ(x-none)%", "v": 1}"#,
            "{\"agent\":\"is a\\\"b\\\\\u{e9}\",\"none\":null,\"path\":\"/items\",\"status\":503,\"v\":1}\n",
        ),
    ] {
        let format = Format::read(format).expect(format);
        let output = io::sink();
        let log =
            AccessLog::start(format, "web-0", output, metrics.access_log_dropped.clone()).expect("a thread");
        let mut record = request(&log, &metrics, "/items");
        let headers = |name: &'static str, value: &str| {
            http::HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().expect("a header"))])
        };
        record.responds(StatusCode::SERVICE_UNAVAILABLE, &headers("x-answer", "yes"));
        record.responded_after(Duration::from_millis(20));
        record.ends_with(&headers("x-last", "end"));
        record.follows(&origin());
        record.endpoint = "10.1.0.4:8080".parse().ok();
        record.error = Some(Code::CONNECT_FAILED);
        (record.grpc_status, record.sent) = (Some(7), 12);
        let ended = Ended { at: UNIX_EPOCH + Duration::from_millis(7_025), after: Duration::from_millis(25) };
        let format = &log.open.as_ref().expect("it is on").format;
        assert_eq!(line(format, &record, ended), wanted);
    }
}

fn origin() -> gauze_model::Origin {
    gauze_model::Origin {
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "cart".into(),
        path: "spec.rules[0]".into(),
        ..gauze_model::Origin::default()
    }
}
