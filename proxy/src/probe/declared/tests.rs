use super::*;

fn probe(text: &str) -> Result<Probe, String> {
    text.parse()
}

fn get(port: u16, target: &'static str) -> HttpGet {
    let target = PathAndQuery::from_static(target);
    HttpGet { port, is_tls: false, target, host: None, headers: HeaderMap::new() }
}

#[test]
fn a_probe_is_read_as_kubernetes_writes_it() {
    let second = Duration::from_secs(1);
    let whole = r#"web/live={"httpGet":{"path":"/healthz?full=1","port":8080,"scheme":"HTTPS","host":"",
        "httpHeaders":[{"name":"Host","value":"shop.example"},{"name":"a","value":"1"},{"name":"A","value":"2"}]},
        "timeoutSeconds":3}"#;
    let mut headers = HeaderMap::new();
    headers.append("a", HeaderValue::from_static("1"));
    headers.append("a", HeaderValue::from_static("2"));
    let host = Some(HeaderValue::from_static("shop.example"));
    let with_all = HttpGet { is_tls: true, host, headers, ..get(8080, "/healthz?full=1") };
    for (text, kind, check, timeout) in [
        (whole, ProbeKind::Live, Check::Http(with_all), 3 * second),
        (r#"web/ready={"httpGet":{"port":80}}"#, ProbeKind::Ready, Check::Http(get(80, "/")), second),
        (
            r#"web/startup={"tcpSocket":{"port":5432},"timeoutSeconds":2}"#,
            ProbeKind::Startup,
            Check::Tcp { port: 5432 },
            2 * second,
        ),
        (
            r#"web/live={"grpc":{"port":9000,"service":"x"}}"#,
            ProbeKind::Live,
            Check::Grpc { port: 9000, service: "x".to_owned() },
            second,
        ),
        (
            r#"web/live={"grpc":{"port":9000,"service":null}}"#,
            ProbeKind::Live,
            Check::Grpc { port: 9000, service: String::new() },
            second,
        ),
    ] {
        let expected = Probe { container: "web".to_owned(), kind, check, timeout };
        assert_eq!(probe(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_hook_is_read_with_its_word_and_has_time() {
    let text = r#"web/pre-stop/0123456789abcdefXYZ={"httpGet":{"port":80,"path":"/bye"}}"#;
    let hook: Hook = text.parse().expect("a hook");
    let expected = Hook {
        container: "web".to_owned(),
        kind: HookKind::PreStop,
        word: "0123456789abcdefXYZ".to_owned(),
        get: get(80, "/bye"),
        timeout: HOOK_TIMEOUT,
    };
    assert_eq!(hook, expected);
    assert_eq!(hook.to_string(), "--hook web/pre-stop", "the word is not shown");
}

#[test]
fn what_is_not_a_probe_is_refused_with_the_reason() {
    for (text, reason) in [
        ("web", "expected CONTAINER/live=JSON"),
        ("web/alive={}", "expected CONTAINER/live=JSON"),
        ("web/live={}", "exactly one of"),
        (r#"web/live={"tcpSocket":{"port":1},"grpc":{"port":1}}"#, "exactly one of"),
        (r#"web/live={"exec":{"command":["true"]}}"#, "unknown field `exec`"),
        (r#"web/live={"tcpSocket":{"port":"http"}}"#, "expected a nonzero u16"),
        (r#"web/live={"tcpSocket":{"port":0}}"#, "expected a nonzero u16"),
        (r#"web/live={"tcpSocket":{"port":70000}}"#, "expected a nonzero u16"),
        (r#"web/live={"tcpSocket":{"port":80},"timeoutSeconds":0}"#, "expected a nonzero u32"),
        (r#"web/live={"tcpSocket":{"port":80},"periodSeconds":1}"#, "unknown field `periodSeconds`"),
        (r#"web/live={"tcpSocket":{"port":80,"host":"db"}}"#, "tcpSocket.host is `db`"),
        (r#"web/live={"httpGet":{"port":80,"host":"127.0.0.1"}}"#, "httpGet.host is `127.0.0.1`"),
        (r#"web/live={"httpGet":{"port":80,"scheme":"http"}}"#, "unknown variant `http`"),
        (
            r#"web/live={"httpGet":{"port":80,"httpHeaders":[{"name":"a b","value":""}]}}"#,
            "httpHeaders[0]: invalid HTTP header name",
        ),
        (r#"Web/live={"tcpSocket":{"port":80}}"#, "`Web` is not the name of a container"),
        (r#"/live={"tcpSocket":{"port":80}}"#, "`` is not the name of a container"),
    ] {
        let error = probe(text).expect_err(text);
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn what_is_not_a_hook_is_refused_with_the_reason() {
    for (text, reason) in [
        (r#"web/pre-stop={"httpGet":{"port":80}}"#, "expected CONTAINER/post-start/WORD=JSON"),
        (r#"web/stop/0123456789abcdef={"httpGet":{"port":80}}"#, "expected CONTAINER/post-start/WORD=JSON"),
        (r#"web/pre-stop/short={"httpGet":{"port":80}}"#, "16 or more letters and digits"),
        (r#"web/pre-stop/0123456789abcde%={"httpGet":{"port":80}}"#, "16 or more letters and digits"),
        (r#"web/pre-stop/0123456789abcdef={"tcpSocket":{"port":80}}"#, "a hook is an httpGet"),
        (r#"web/pre-stop/0123456789abcdef={"sleep":{"seconds":1}}"#, "unknown field `sleep`"),
    ] {
        let error = text.parse::<Hook>().expect_err(text);
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn a_path_is_sent_as_kubelet_sends_it() {
    for (path, expected) in [
        ("", "/"),
        ("healthz", "/healthz"),
        ("/a b/ä?q=\"x\"#part", "/a%20b/%C3%A4?q=%22x%22"),
        ("/a%20b", "/a%20b"),
        ("?x=1", "/?x=1"),
    ] {
        assert_eq!(target(path).map(|target| target.to_string()), Ok(expected.to_owned()), "{path}");
    }
}

#[test]
fn all_of_them_must_fit_together() {
    let read = |text: &str| probe(text).expect(text);
    let live = r#"web/live={"tcpSocket":{"port":80}}"#;
    let settings = |texts: &[&str]| ProbeSettings {
        probes: texts.iter().map(|text| read(text)).collect(),
        hooks: Vec::new(),
    };
    let ips: [IpAddr; 1] = [IpAddr::from([10, 0, 0, 1])];
    let refused = |text: &str| Err(text.to_owned());
    for (texts, ips, expected) in [
        (&[live, r#"web/ready={"tcpSocket":{"port":80}}"#][..], &ips[..], Ok(())),
        (&[], &[], Ok(())),
        (&[live], &[], refused("--probe and --hook need the pod's addresses: add --pod-ip IP")),
        (&[live, live], &ips, refused("--probe web/live is declared twice")),
        (
            &[r#"web/live={"tcpSocket":{"port":15020}}"#],
            &ips,
            refused("--probe web/live: port 15020 is the sidecar's own"),
        ),
    ] {
        assert_eq!(settings(texts).check(ips, &[15000, 15020]), expected, "{texts:?}");
    }
    let many: Vec<String> =
        (0..=DECLARED_MAX).map(|n| format!(r#"c{n}/live={{"tcpSocket":{{"port":80}}}}"#)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(settings(&many).check(&ips, &[]).is_err_and(|problem| problem.contains("at most 256")));
}
