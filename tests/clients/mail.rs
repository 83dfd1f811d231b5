//! smtplib against aiosmtpd: the server speaks first, and half way through both change to TLS of their own.

use std::path::Path;

use serde_json::{Value, json};

use super::{Between, Certificate, access_line, ask, python, serve};
use crate::harness::eventually;
use crate::harness::process::Process;

/// What waits where nothing is declared: a client's silence of this many seconds lets the server speak.
const DETECTION: f64 = 0.1;

async fn server(python: &Path, certificate: &Certificate) -> Process {
    serve(python, "mail_server.py", &[certificate.chain(), certificate.key()]).await
}

/// Sends a mail and compares what arrived; returns how long the client waited for the first word of the server.
async fn send(python: &Path, server: &Process, address: &str, tls: &str) -> f64 {
    let told = ask(python, "mail_client.py", &[address, tls]).await;
    let waited = told["waited"].as_f64().expect("a number");
    let wanted = json!({"banner": 220, "waited": waited, "starttls": true, "refused": {}, "end": 221});
    assert_eq!(told, wanted);
    let mail = eventually("the mail is kept", async || server.new_lines().pop().ok_or("no mail yet")).await;
    let mail: Value = serde_json::from_str(&mail).expect("JSON");
    let content = format!("Subject: order\r\n\r\n.leading dot\r\n{}", "line\r\n".repeat(10_000));
    let wanted =
        json!({"from": "a@shop", "to": ["b@shop", "c@shop"], "content": content, "tls": tls == "tls"});
    assert!(mail == wanted, "{} bytes of {}", mail["content"].to_string().len(), content.len());
    waited
}

#[tokio::test]
async fn mail_is_delivered_where_nothing_is_declared_after_a_tenth_of_a_second_and_where_smtp_is_at_once() {
    let Some(python) = python() else { return };
    let certificate = Certificate::self_signed("store");
    let server = server(python, &certificate).await;
    for (port_name, port, silences) in [("any", 80, 1.0), ("smtp", 80, 0.0), ("any", 25, 0.0)] {
        let between = Between::start(server.address("app"), port_name, port).await;
        for (number, tls) in ["plain", "tls"].into_iter().enumerate() {
            let waited = send(python, &server, &between.dial().to_string(), tls).await;
            println!("port `{port_name}` {port}: the banner came after {waited:.3} s");
            assert!(waited >= silences * DETECTION, "{waited}");
            let count = silences * (number + 1) as f64;
            // Not a matter of clocks: the outbound sidecar waited for the client, or it did not; the inbound one never does.
            assert_eq!(
                between.web.metric("gauze_detect_silent_total", &[]).await,
                count,
                "{port_name} {port}"
            );
            assert_eq!(between.store.metric("gauze_detect_silent_total", &[]).await, 0.0);
        }
        send(python, &server, &between.outside().to_string(), "tls").await;
    }
}

#[tokio::test]
async fn metrics_and_access_log_tell_of_a_mail_as_an_opaque_connection() {
    let Some(python) = python() else { return };
    let certificate = Certificate::self_signed("store");
    let server = server(python, &certificate).await;
    let between = Between::start(server.address("app"), "any", 80).await;
    send(python, &server, &between.dial().to_string(), "plain").await;
    let mut seen = Vec::new();
    for sidecar in [&between.web, &between.store] {
        let line = access_line(sidecar, "the connection", |line| line["protocol"] == "tcp").await;
        assert_eq!((&line["tls"], &line["error"]), (&json!("mutual"), &Value::Null));
        assert!(line["received"].as_u64() > Some(60_000), "the mail is longer: {line}");
        seen.push((line["received"].clone(), line["sent"].clone()));
        sidecar.counts("gauze_streams_total", &["protocol=\"tcp\"", "error=\"\""], 1.0).await;
    }
    assert_eq!(seen[0], seen[1], "both sidecars saw the same bytes");
}
