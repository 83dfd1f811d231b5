//! Apps of all kinds behind each kind of probe: alive, dead, and everything between.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Everything of a test, on one thread.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop").block_on(test);
}

fn probes(flags: &[String]) -> Probes {
    let mut arguments = "--mode none --pod-ip 127.0.0.1".to_owned();
    for flag in flags {
        arguments += &format!(" {flag}");
    }
    Probes::new(&Settings::for_tests(&arguments), Arc::new(Metrics::new()))
}

/// What is said of a container `web` that is asked so.
async fn said(json: &str) -> Said {
    probes(&[format!("--probe web/live={json}")]).answer("/probe/web/live").await
}

fn get(port: u16, path: &str) -> String {
    format!(r#"{{"httpGet":{{"port":{port},"path":"{path}"}},"timeoutSeconds":1}}"#)
}

/// An app on a port of its own: each connection is handed to `serve`.
async fn app<F>(serve: impl Fn(TcpStream) -> F + 'static + Send) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// A port that nobody listens on.
async fn dead() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Reads the head of a request; `None` if the client left.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// What an app of HTTP/1 answers to each path; `PORT` is its own port.
async fn website(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16) {
    let Some(head) = head(&mut stream).await else { return };
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, more) = match path {
        "/fine" => ("200 OK", "content-length: 2\r\n\r\nok".to_owned()),
        "/empty" => ("204 No Content", "\r\n".to_owned()),
        "/missing" => ("404 Not Found", "content-length: 0\r\n\r\n".to_owned()),
        "/broken" => ("500 Internal Server Error", "content-length: 0\r\n\r\n".to_owned()),
        "/upgrade" => ("101 Switching Protocols", "upgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned()),
        "/elsewhere" => {
            ("302 Found", "location: https://shop.example/\r\ncontent-length: 0\r\n\r\n".to_owned())
        }
        "/here" => ("302 Found", "location: fine?really#yes\r\ncontent-length: 0\r\n\r\n".to_owned()),
        "/fine?really" => ("200 OK", "content-length: 0\r\n\r\n".to_owned()),
        "/absolute" => (
            "307 Temporary Redirect",
            format!("location: http://127.0.0.1:{port}/missing\r\ncontent-length: 0\r\n\r\n"),
        ),
        "/sidecar" => {
            ("301 Moved", "location: http://127.0.0.1:15020/metrics\r\ncontent-length: 0\r\n\r\n".to_owned())
        }
        "/round" => ("303 See Other", "location: /round\r\ncontent-length: 0\r\n\r\n".to_owned()),
        "/not-modified" => ("304 Not Modified", "location: /missing\r\n\r\n".to_owned()),
        "/endless" => ("200 OK", format!("content-length: 1000000\r\n\r\n{}", "x".repeat(20 * 1024))),
        "/cut" => ("200 OK", "content-length: 10\r\n\r\nshort".to_owned()),
        "/silent" => return std::future::pending().await,
        "/garbage" => ("what", "\r\n\r\n".to_owned()),
        _ => return,
    };
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{more}").as_bytes()).await;
    if path == "/endless" {
        std::future::pending::<()>().await; // the rest never comes, and nobody waits for it
    }
}

#[test]
fn an_app_that_is_asked_by_http_has_its_own_status_passed_on_or_503_says_what_failed() {
    run(async {
        let port = app(|stream| async move {
            let port = stream.local_addr().expect("connected").port();
            website(stream, port).await;
        })
        .await;
        for (path, status, text) in [
            ("/fine", 200, "the app says 200"),
            ("/empty", 204, "the app says 204"),
            ("/missing", 404, "the app says 404"),
            ("/broken", 500, "the app says 500"),
            ("/upgrade", 503, "the app says 101"),
            ("/elsewhere", 302, "the app says 302"),
            ("/here", 200, "the app says 200"),
            ("/absolute", 404, "the app says 404"),
            ("/sidecar", 301, "the app says 301"),
            ("/round", 503, "stopped after 10 redirects"),
            ("/not-modified", 304, "the app says 304"),
            ("/endless", 200, "the app says 200"),
            ("/cut", 503, "no answer: "),
            ("/silent", 503, "no answer in 1 s"),
            ("/garbage", 503, "no answer: "),
            ("/gone", 503, "no answer: "),
        ] {
            let said = said(&get(port, path)).await;
            let Said::Status(seen, why) = &said else { panic!("{path}: {said:?}") };
            assert!(seen.as_u16() == status && why.contains(text), "{path}: {said:?}");
        }
        let port = dead().await;
        let refused = Failure::Connect { port, problem: "Connection refused (os error 111)".to_owned() };
        assert_eq!(
            said(&get(port, "/fine")).await,
            Said::Status(StatusCode::SERVICE_UNAVAILABLE, refused.to_string())
        );
    });
}

#[test]
fn the_request_is_the_one_that_kubelet_would_have_sent() {
    run(async {
        let port = app(|mut stream| async move {
            // The request itself comes back as the reason of a status line that is kept.
            let head = head(&mut stream).await.unwrap_or_default();
            let lines: Vec<&str> = head.trim_end().lines().collect();
            let _ = stream
                .write_all(
                    format!(
                        "HTTP/1.1 302 Found\r\nlocation: x:{}\r\ncontent-length: 0\r\n\r\n",
                        lines.join("|")
                    )
                    .as_bytes(),
                )
                .await;
        })
        .await;
        let request = async |written: &str| {
            let probe = format!("web/live={written}").parse::<Probe>().expect(written);
            let Check::Http(get) = probe.check else { panic!("{written}") };
            let app = &probes(&[]).app;
            let headers = request::headers(&get, request::Purpose::Probe);
            let (_, sent) =
                request::ask(app, &request::Step::first(&get), &headers).await.expect("an answer");
            sent.expect("it was sent back")
        };
        let plain = request(&get(port, "/a?b")).await;
        let expected = format!(
            "x:GET /a?b HTTP/1.1|host: 127.0.0.1:{port}|connection: close|user-agent: kube-probe/gauze|accept: */*"
        );
        assert_eq!(plain, expected);
        let written = format!(
            r#"{{"httpGet":{{"port":{port},"httpHeaders":[{{"name":"Host","value":"shop.example"}},{{"name":"Accept","value":""}},
            {{"name":"User-Agent","value":"mine"}},{{"name":"X","value":"1"}},{{"name":"x","value":"2"}}]}}}}"#
        );
        let declared = request(&written).await;
        assert_eq!(
            declared,
            "x:GET / HTTP/1.1|host: shop.example|connection: close|x: 1|x: 2|user-agent: mine"
        );
    });
}

#[test]
fn https_takes_any_certificate_and_http2() {
    run(async {
        for (alpn, path, status) in [
            (None, "/fine", 200),
            (Some("http/1.1"), "/missing", 404),
            (Some("h2"), "/fine", 299),
            (Some("h2"), "/x", 418),
        ] {
            let acceptor = acceptor(alpn);
            let port = app(move |stream| {
                let acceptor = acceptor.clone();
                async move {
                    let Ok(tls) = acceptor.accept(stream).await else { return };
                    match alpn {
                        Some("h2") => teapot(tls).await,
                        _ => website(tls, 0).await,
                    }
                }
            })
            .await;
            let written = format!(r#"{{"httpGet":{{"port":{port},"path":"{path}","scheme":"HTTPS"}}}}"#);
            let said = said(&written).await;
            assert!(
                matches!(&said, Said::Status(seen, _) if seen.as_u16() == status),
                "{alpn:?} {path}: {said:?}"
            );
        }
        let plain = app(|mut stream| async move {
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        })
        .await;
        let written = format!(r#"{{"httpGet":{{"port":{plain},"path":"/fine","scheme":"HTTPS"}}}}"#);
        let said = said(&written).await;
        assert!(
            matches!(&said, Said::Status(StatusCode::SERVICE_UNAVAILABLE, why) if why.contains("no TLS")),
            "{said:?}"
        );
    });
}

/// A certificate that nobody signed, for a name that nobody asked for.
fn acceptor(alpn: Option<&str>) -> TlsAcceptor {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let certificate = CertificateParams::new(["other.example".to_owned()])
        .expect("a name")
        .self_signed(&key)
        .expect("signed");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config =
        config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).expect("a pair");
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// An app that speaks HTTP/2 only.
async fn teapot(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let status = if request.uri().path() == "/fine" { 299 } else { 418 };
        let answer = Response::builder().status(status).body(()).expect("well-formed");
        let _ = respond.send_response(answer, true);
    }
}

/// An app with the health service: `shop` serves, `back` does not, others are unknown.
async fn health(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer_health(request, respond));
    }
}

async fn answer_health(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.uri().path(), grpc::CHECK);
    let message = request.into_body().data().await.and_then(Result::ok).unwrap_or_default();
    let asked = grpc::HealthCheckRequest::decode(&message[5.min(message.len())..]).unwrap_or_default();
    let (code, status) = match asked.service.as_str() {
        "shop" => ("0", grpc::SERVING),
        "back" => ("0", 2),
        "unbuilt" => ("12", 0),
        _ => ("5", 0),
    };
    let answer =
        Response::builder().header("content-type", "application/grpc").body(()).expect("well-formed");
    let mut body = respond.send_response(answer, false).expect("the stream is open");
    if code == "0" {
        let message = grpc::HealthCheckResponse { status }.encode_to_vec();
        let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
        body.send_data(Bytes::from(framed), false).expect("the stream is open");
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    body.send_trailers(trailers).expect("the stream is open");
}

#[test]
fn an_app_that_is_asked_by_grpc_is_alive_only_if_it_says_serving() {
    run(async {
        let (healthy, website) = (app(health).await, app(|stream| website(stream, 0)).await);
        let silent = app(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        for (port, service, status, text) in [
            (healthy, "shop", 200, "the app says 200"),
            (healthy, "back", 503, "grpc.health.v1 says NOT_SERVING"),
            (healthy, "unbuilt", 503, "no answer: "),
            (healthy, "", 503, "no answer: "),
            (website, "shop", 503, "no answer: "),
            (silent, "shop", 503, "no answer in 1 s"),
            (dead().await, "shop", 503, "cannot connect to port"),
        ] {
            let said = said(&format!(r#"{{"grpc":{{"port":{port},"service":"{service}"}}}}"#)).await;
            let Said::Status(seen, why) = &said else { panic!("{service}: {said:?}") };
            assert!(seen.as_u16() == status && why.contains(text), "`{service}` at {port}: {said:?}");
        }
    });
}

#[test]
fn an_app_that_is_asked_by_tcp_is_alive_if_it_listens() {
    run(async {
        let alive = app(|stream| async move { drop(stream) }).await;
        let probe = |port| format!(r#"{{"tcpSocket":{{"port":{port}}}}}"#);
        assert!(matches!(said(&probe(alive)).await, Said::Status(StatusCode::OK, _)));
        let dead = said(&probe(dead().await)).await;
        assert!(
            matches!(&dead, Said::Status(StatusCode::SERVICE_UNAVAILABLE, why) if why.contains("refused")),
            "{dead:?}"
        );
    });
}

#[test]
fn only_what_was_declared_can_be_asked() {
    run(async {
        let port = app(|stream| website(stream, 0)).await;
        let word = "0123456789abcdef";
        let hook = |path: &str| format!(r#"{{"httpGet":{{"port":{port},"path":"{path}"}}}}"#);
        let probes = probes(&[
            format!("--probe web/live={}", get(port, "/fine")),
            format!("--hook web/pre-stop/{word}={}", hook("/broken")),
        ]);
        for path in [
            "/probe/web/ready",
            "/probe/db/live",
            "/probe/web/live/",
            "/probe/web",
            "/probe//live",
            "/hook/web/pre-stop",
            "/hook/web/pre-stop/",
            "/hook/web/pre-stop/0123456789abcdeF",
            "/hook/web/pre-stop/0123456789abcde",
            "/hook/web/pre-stop/0123456789abcdef0",
            "/hook/web/post-start/0123456789abcdef",
            "/probe/web/pre-stop/0123456789abcdef",
        ] {
            assert_eq!(probes.answer(path).await, Said::Unknown, "{path}");
        }
        assert!(matches!(probes.answer("/probe/web/live").await, Said::Status(StatusCode::OK, _)));
        let hooked = probes.answer(&format!("/hook/web/pre-stop/{word}")).await;
        assert_eq!(hooked, Said::Status(StatusCode::INTERNAL_SERVER_ERROR, "the app says 500".to_owned()));
    });
}

#[test]
fn a_hook_that_cannot_reach_its_app_is_not_answered_at_all() {
    run(async {
        let port = dead().await;
        let word = "0123456789abcdef";
        let probes = probes(&[format!(r#"--hook web/post-start/{word}={{"httpGet":{{"port":{port}}}}}"#)]);
        let said = probes.answer(&format!("/hook/web/post-start/{word}")).await;
        assert!(matches!(said, Said::Nothing(Failure::Connect { .. })), "{said:?}");
    });
}

#[test]
fn however_many_ask_at_once_the_app_is_asked_once_and_later_again() {
    run(async {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let port = app(|stream| async move {
            ASKED.fetch_add(1, Ordering::Relaxed);
            website(stream, 0).await;
        })
        .await;
        let probes = probes(&[format!("--probe web/live={}", get(port, "/fine"))]);
        let crowd = futures_util::future::join_all((0..100).map(|_| probes.answer("/probe/web/live"))).await;
        assert!(crowd.iter().all(|said| matches!(said, Said::Status(StatusCode::OK, _))));
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        probes.answer("/probe/web/live").await;
        assert_eq!(ASKED.load(Ordering::Relaxed), 2, "an answer is not kept");
    });
}

#[test]
fn answers_are_counted_as_kubelet_takes_them() {
    run(async {
        let port = app(|stream| website(stream, 0)).await;
        let metrics = Arc::new(Metrics::new());
        let flags = format!(
            "--mode none --pod-ip 127.0.0.1 --probe web/live={} --probe web/ready={}",
            get(port, "/elsewhere"),
            get(port, "/missing")
        );
        let probes = Probes::new(&Settings::for_tests(&flags), Arc::clone(&metrics));
        for path in ["/probe/web/live", "/probe/web/ready", "/probe/web/ready", "/probe/web/startup"] {
            probes.answer(path).await;
        }
        let text = String::from_utf8(metrics.text()).expect("text");
        let counted: Vec<&str> =
            text.lines().filter(|line| line.starts_with("gauze_probes_total{")).collect();
        assert_eq!(
            counted,
            [
                r#"gauze_probes_total{container="web",probe="live",result="success"} 1"#,
                r#"gauze_probes_total{container="web",probe="ready",result="failure"} 2"#,
            ]
        );
    });
}

#[test]
fn in_mode_none_the_app_is_asked_where_it_really_listens() {
    let flags = "--mode none --pod-ip 127.1.2.1 --inbound 127.1.2.1:8080=127.0.0.1:9001";
    let app = Probes::new(&Settings::for_tests(flags), Arc::new(Metrics::new())).app;
    let address = |port| app.address(port).to_string();
    assert_eq!([address(8080), address(8081)], ["127.0.0.1:9001", "127.1.2.1:8081"]);
}
