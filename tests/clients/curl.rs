//! curl: what it asks for arrives as it asked, and what it gets is what the app said, in the version that it speaks.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use super::{Between, access_line, distributed, run};
use crate::harness::App;

/// Bytes of the bodies that are sent: beyond curl's 1 MiB from which it asks with `Expect: 100-continue`.
const BODY: usize = 2 << 20;

struct Row {
    /// A sentence about what is asked.
    name: &'static str,
    arguments: &'static [&'static str],
    path: &'static str,
    /// HTTP version, status, connections opened, bytes of the body.
    told: &'static str,
    body: Wanted,
    /// What the app received: version, method.
    received: &'static str,
}

enum Wanted {
    Text(&'static str),
    /// What was sent.
    Echo,
}

const ROWS: &[Row] = &[
    Row {
        name: "HTTP/1.0",
        arguments: &["--http1.0"],
        path: "/items",
        told: "1.1 200 1 3\n",
        body: Wanted::Text("app"),
        received: "HTTP/1.1 GET",
    },
    Row {
        name: "HTTP/1.0 that asks to be kept alive",
        arguments: &["--http1.0", "-H", "connection: keep-alive"],
        path: "/items",
        told: "1.1 200 1 3\n",
        body: Wanted::Text("app"),
        received: "HTTP/1.1 GET",
    },
    Row {
        name: "HTTP/1.1",
        arguments: &["--http1.1"],
        path: "/items",
        told: "1.1 200 1 3\n",
        body: Wanted::Text("app"),
        received: "HTTP/1.1 GET",
    },
    Row {
        name: "HTTP/2 with prior knowledge",
        arguments: &["--http2-prior-knowledge"],
        path: "/items",
        told: "2 200 1 3\n",
        body: Wanted::Text("app"),
        received: "HTTP/2.0 GET",
    },
    Row {
        name: "an upgrade to HTTP/2, which RFC 9113 has given up, stays HTTP/1.1",
        arguments: &["--http2"],
        path: "/items",
        told: "1.1 200 1 3\n",
        body: Wanted::Text("app"),
        received: "HTTP/1.1 GET",
    },
    Row {
        name: "HEAD in HTTP/1.0 has no body",
        arguments: &["--http1.0", "--head", "-o", "/dev/null"],
        path: "/items",
        told: "1.1 200 1 0\n",
        body: Wanted::Text(""),
        received: "HTTP/1.1 HEAD",
    },
    Row {
        name: "HEAD in HTTP/1.1 has no body",
        arguments: &["--http1.1", "--head", "-o", "/dev/null"],
        path: "/items",
        told: "1.1 200 1 0\n",
        body: Wanted::Text(""),
        received: "HTTP/1.1 HEAD",
    },
    Row {
        name: "HEAD in HTTP/2 has no body",
        arguments: &["--http2-prior-knowledge", "--head", "-o", "/dev/null"],
        path: "/items",
        told: "2 200 1 0\n",
        body: Wanted::Text(""),
        received: "HTTP/2.0 HEAD",
    },
    Row {
        name: "304 has no body",
        arguments: &["--http1.1"],
        path: "/status/304",
        told: "1.1 304 1 0\n",
        body: Wanted::Text(""),
        received: "HTTP/1.1 GET",
    },
    Row {
        name: "a body of known length in HTTP/1.0",
        arguments: &["--http1.0", "--data-binary", "@BODY"],
        path: "/echo",
        told: "1.1 200 1 2097152\n",
        body: Wanted::Echo,
        received: "HTTP/1.1 POST",
    },
    Row {
        name: "a body of known length, after 100 Continue",
        arguments: &["--http1.1", "--expect100-timeout", "60", "--data-binary", "@BODY"],
        path: "/echo",
        told: "1.1 200 1 2097152\n",
        body: Wanted::Echo,
        received: "HTTP/1.1 POST",
    },
    Row {
        name: "a chunked body",
        arguments: &["--http1.1", "-H", "transfer-encoding: chunked", "-H", "expect:", "-T", "BODY"],
        path: "/echo",
        told: "1.1 200 1 2097152\n",
        body: Wanted::Echo,
        received: "HTTP/1.1 PUT",
    },
    Row {
        name: "a body in HTTP/2",
        arguments: &["--http2-prior-knowledge", "--data-binary", "@BODY"],
        path: "/echo",
        told: "2 200 1 2097152\n",
        body: Wanted::Echo,
        received: "HTTP/2.0 POST",
    },
    Row {
        name: "two requests on one connection of HTTP/1.1",
        arguments: &["--http1.1", "AGAIN"],
        path: "/items",
        told: "1.1 200 1 3\n1.1 200 0 3\n",
        body: Wanted::Text("appapp"),
        received: "HTTP/1.1 GET",
    },
    // Not two over HTTP/2: curl 7.88 (Debian 12) fails with any server when it uses a connection of prior knowledge again.
];

#[tokio::test]
async fn curl_is_answered_in_each_version_of_http_with_what_the_app_said() {
    let Some(curl) = distributed("curl", "curl") else { return };
    let app = App::start("app").await;
    let between = Between::start(app.address, "http", 80).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent: String = (0..BODY).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let file = folder.path().join("body");
    std::fs::write(&file, &sent).expect("the folder is ours");
    for (way, address) in between.ways() {
        for (number, row) in ROWS.iter().enumerate() {
            let id = format!("{way} {number}");
            let (told, body) = fetch(&curl, address, row, &id, &file).await;
            let wanted = match row.body {
                Wanted::Text(text) => text,
                Wanted::Echo => &sent,
            };
            assert_eq!(told, row.told, "{way}: {}", row.name);
            assert!(body == wanted, "{way}: {}: {} bytes", row.name, body.len());
            let received = &app.received(&id)[0];
            assert_eq!(format!("{:?} {}", received.version, received.method), row.received, "{}", row.name);
        }
    }
}

/// What curl tells of its transfers, and what it got.
async fn fetch(curl: &Path, address: SocketAddr, row: &Row, id: &str, body: &Path) -> (String, String) {
    let url = format!("http://{address}{}", row.path);
    let id = format!("x-id: {id}");
    let tell = "%{stderr}%{http_version} %{response_code} %{num_connects} %{size_download}\n";
    let body = body.to_str().expect("a plain path");
    let mut arguments = vec!["--silent", "--show-error", "--noproxy", "*", "-w", tell, "-H", &id, &url];
    let own: Vec<String> =
        row.arguments.iter().map(|own| own.replace("AGAIN", &url).replace("BODY", body)).collect();
    arguments.extend(own.iter().map(String::as_str));
    let said = run(curl, &arguments).await;
    assert_eq!(said.code, Some(0), "{}: {}", row.name, said.err);
    (said.err, said.out)
}

#[tokio::test]
async fn trailers_come_to_curl_after_the_body() {
    let Some(curl) = distributed("curl", "curl") else { return };
    let app = App::start("app").await;
    let between = Between::start(app.address, "http", 80).await;
    let sent = "five!";
    for (way, address) in between.ways() {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let url = format!("http://{address}/trailers/1");
            let headers = ["-H", "te: trailers", "-H", "connection: te"];
            let arguments = ["--silent", "--show-error", "--noproxy", "*", "--include", version, "-d", sent];
            let answer = run(&curl, &[&arguments[..], &headers, &[&url]].concat()).await.well();
            let (head, rest) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains("\r\ntrailer: x-sum"), "{way}: {version}: {answer}");
            assert_eq!(rest, format!("{sent}x-sum: 42\r\n"), "{way}: {version}: {answer}");
        }
    }
}

#[tokio::test]
async fn metrics_and_access_log_of_both_sidecars_tell_of_curls_version_and_bytes() {
    let Some(curl) = distributed("curl", "curl") else { return };
    let app = App::start("app").await;
    let between = Between::start(app.address, "http", 80).await;
    let url = format!("http://{}/echo", between.dial());
    for (version, protocols) in [
        // Between the sidecars HTTP/1.0 has become HTTP/1.1.
        ("--http1.0", ["http/1.0", "http/1.1"]),
        ("--http1.1", ["http/1.1", "http/1.1"]),
        ("--http2-prior-knowledge", ["http/2", "http/2"]),
    ] {
        let sent = format!("seventeen letters and {version}");
        let arguments = ["--silent", "--show-error", "--noproxy", "*", version, "-d", &sent];
        assert_eq!(run(&curl, &[&arguments[..], &[&url]].concat()).await.well(), sent);
        for (sidecar, protocol) in [&between.web, &between.store].into_iter().zip(protocols) {
            let line = access_line(sidecar, version, |line| line["received"] == sent.len()).await;
            let told = ["protocol", "method", "path", "status", "sent", "tls"].map(|key| line[key].clone());
            assert_eq!(json!(told), json!([protocol, "POST", "/echo", 200, sent.len(), "mutual"]));
        }
    }
    for (sidecar, protocol, requests, bytes) in [
        (&between.web, "http/1.0", 1.0, 31.0),
        (&between.web, "http/2", 1.0, 45.0),
        (&between.store, "http/1.1", 2.0, 31.0 + 31.0),
        (&between.store, "http/2", 1.0, 45.0),
    ] {
        let labels = [&format!("protocol=\"{protocol}\""), "tls=\"mutual\"", "error=\"\""];
        sidecar.counts("gauze_requests_total", &labels, requests).await;
        sidecar.counts("gauze_bytes_received_total", &labels[..2], bytes).await;
        sidecar.counts("gauze_bytes_sent_total", &labels[..2], bytes).await;
    }
}

#[tokio::test]
async fn a_head_that_the_proxy_refuses_is_answered_without_a_body() {
    let Some(curl) = distributed("curl", "curl") else { return };
    let app = App::start("app").await;
    let between = Between::start(app.address, "http", 80).await;
    for (way, address) in between.ways() {
        for (version, told) in [("--http1.1", "1.1 414 0"), ("--http2-prior-knowledge", "2 414 0")] {
            let url = format!("http://{address}/{}", "long/".repeat(4_000));
            let arguments = ["--silent", "--noproxy", "*", "--head", "-o", "/dev/null", version];
            let tell = ["-w", "%{http_version} %{response_code} %{size_download}", &url];
            assert_eq!(run(&curl, &[&arguments[..], &tell].concat()).await.well(), told, "{way}");
        }
    }
}
