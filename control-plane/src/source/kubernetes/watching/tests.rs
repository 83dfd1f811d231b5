use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::Full;
use kube::client::Body;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::world::ObjectKind;

#[test]
fn pauses_grow_and_stay_short_enough_to_notice_an_api_server_that_is_back() {
    let pauses = |dice| [0, 1, 2, 5, 40].map(|failures| pause(failures, dice).as_millis());
    assert_eq!(pauses(1.0), [200, 400, 800, 5000, 5000]);
    assert_eq!(pauses(0.0), [100, 200, 400, 2500, 2500]);
}

/// What an API server answers: a part of the request's query, and status and body of its answer.
type Dialogue = VecDeque<(&'static str, u16, String)>;

/// An API server that follows a script, and then says nothing more.
fn scripted(dialogue: Dialogue) -> Client {
    let dialogue = Arc::new(Mutex::new(dialogue));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let dialogue = Arc::clone(&dialogue);
        async move {
            let Some((expected, status, body)) = dialogue.lock().unwrap().pop_front() else {
                return std::future::pending().await;
            };
            let asked = request.uri().to_string();
            assert!(asked.contains(expected), "{expected} expected, {asked} asked");
            let answer = http::Response::builder().status(status).body(Full::new(Bytes::from(body)));
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    Client::new(service, "default")
}

fn object(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()}, "spec": {}})
}

fn event(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string() + "\n"
}

fn bookmark(version: u32, end: bool) -> String {
    let annotations = if end { json!({INITIAL_END: "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event("BOOKMARK", &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}))
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "Test", "code": code})
}

/// What a watch of Services says of this dialogue, in short, until it has said so much.
async fn said(dialogue: Dialogue, count: usize) -> Vec<String> {
    let (said, mut heard) = mpsc::channel(64);
    let (_reconnect, reconnect) = tokio::sync::watch::channel(0);
    let watched = Watched::Object(ObjectKind::Service);
    let watch = Watch { client: scripted(dialogue), watched, said, reconnect, metrics: Arc::default() };
    let watch = tokio::spawn(watch.run());
    let mut all = Vec::new();
    while all.len() < count {
        let (_, next) = timeout(Duration::from_secs(20), heard.recv())
            .await
            .unwrap_or_else(|_| panic!("nothing after {all:?}"))
            .unwrap();
        all.push(match next {
            Said::All(reads) => {
                format!("all {}", reads.iter().map(|read| read.name.as_str()).collect::<Vec<_>>().join(" "))
            }
            Said::Apply(read) => format!("apply {}", read.name),
            Said::Delete { namespace, name } => format!("delete {namespace}/{name}"),
            Said::Served { .. } => continue,
            Said::Working => "working".to_owned(),
            Said::Failing(why) => format!("failing: {why}"),
        });
    }
    watch.abort();
    all
}

#[tokio::test]
async fn a_watch_resumes_where_it_ended_and_begins_anew_where_that_is_forgotten() {
    let first = event("ADDED", &object("a", 5)) + &bookmark(7, true) + &event("MODIFIED", &object("a", 8));
    let second = event("DELETED", &object("a", 9)) + &bookmark(20, false);
    let third = event("ERROR", &status(410, "too old resource version"));
    let fourth = event("ADDED", &object("b", 30)) + &bookmark(31, true);
    let dialogue = [
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=", 200, first),
        ("allowWatchBookmarks=true&resourceVersion=8", 200, second),
        ("resourceVersion=20", 200, third),
        ("sendInitialEvents=true", 200, fourth),
    ];
    let expected =
        ["working", "all a", "apply a", "working", "delete shop/a", "working", "working", "all b", "working"];
    // The last word is of the connection after these, which nobody answers.
    assert_eq!(said(dialogue.into(), expected.len() - 1).await, expected[..expected.len() - 1]);
}

#[tokio::test]
async fn objects_are_told_only_when_all_of_them_are_read() {
    let broken = event("ADDED", &object("a", 5));
    let whole = broken.clone() + &event("ADDED", &object("b", 6)) + &bookmark(7, true);
    let dialogue = [("sendInitialEvents=true", 200, broken), ("sendInitialEvents=true", 200, whole)];
    assert_eq!(said(dialogue.into(), 3).await, ["working", "working", "all a b"]);
}

#[tokio::test]
async fn an_api_server_that_cannot_stream_lists_is_read_page_by_page() {
    let unknown =
        status(422, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled");
    let page = |name: &str, more: &str| {
        json!({"metadata": {"resourceVersion": "9", "continue": more}, "items": [object(name, 5)]})
            .to_string()
    };
    let dialogue = [
        ("sendInitialEvents=true", 422, unknown.to_string()),
        ("limit=500", 200, page("a", "token")),
        ("continue=token", 200, page("b", "")),
        ("resourceVersion=9", 200, event("ADDED", &object("c", 10))),
    ];
    assert_eq!(said(dialogue.into(), 3).await, ["all a b", "working", "apply c"]);
}

#[tokio::test]
async fn a_refusal_is_told_and_the_place_kept_until_it_is_refused_again_and_again() {
    let first = event("ADDED", &object("a", 5)) + &bookmark(7, true);
    let refused = || ("resourceVersion=7", 504, status(504, "Too large resource version").to_string());
    let mut dialogue: Dialogue = [("sendInitialEvents=true", 200, first)].into();
    dialogue.extend([refused(), refused(), refused(), refused()]);
    dialogue.push_back(("sendInitialEvents=true", 200, bookmark(3, true)));
    let said = said(dialogue, 8).await;
    assert_eq!(said[..2], ["working", "all a"]);
    assert!(said[2..6].iter().all(|said| said.starts_with("failing: ")), "{said:?}");
    assert_eq!(said[6..], ["working", "all "]);
}
