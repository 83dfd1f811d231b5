//! What is kept of a body, and what is not.

use std::pin::pin;

use http_body_util::BodyExt;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 8;

/// A body of these pieces, one after the other; `=` begins trailers.
fn body(pieces: &[&'static str]) -> Body {
    let mut body = Body::Empty;
    for piece in pieces.iter().rev() {
        let frame = match piece.strip_prefix('=') {
            Some(value) => Frame::trailers(HeaderMap::from_iter([trailer(value)])),
            None => Frame::data(Bytes::from_static(piece.as_bytes())),
        };
        body = Body::Ahead(Box::new((frame, body)));
    }
    body
}

fn trailer(value: &'static str) -> (http::HeaderName, http::HeaderValue) {
    (http::HeaderName::from_static("t"), http::HeaderValue::from_static(value))
}

/// Sends at most so many pieces.
async fn sends(of: &mut TryBody, pieces: usize) -> String {
    let mut sent = String::new();
    for _ in 0..pieces {
        match of.frame().await {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => sent += std::str::from_utf8(data).unwrap(),
                None => sent += "=",
            },
            Some(Err(error)) => return format!("{sent}: {error}"),
            None => return sent + ".",
        }
    }
    sent
}

#[tokio::test]
async fn a_try_begins_from_the_start_and_goes_on_with_what_was_not_read_yet() {
    let mut replay = Replay::new(body(&["a", "b", "c", "=x"]), 100);
    let mut first = replay.begin();
    assert_eq!(sends(&mut first, 2).await, "ab");
    let mut second = replay.begin();
    assert_eq!(sends(&mut second, 9).await, "abc=.");
    assert!(replay.can_begin(), "the whole of it is kept");
    assert_eq!(sends(&mut replay.begin(), 9).await, "abc=.");
    assert!(sends(&mut first, 1).await.starts_with(": the try was given up"), "an earlier try sends no more");
}

#[tokio::test]
async fn only_so_much_is_kept() {
    for (what, pieces, read, can_begin) in [
        ("what fits", &["1234", "5678"][..], 2, true),
        ("a piece too much", &["1234", "5678", "9"], 3, false),
        ("but the piece is not read yet", &["1234", "5678", "9"], 2, true),
        ("a first piece that is too large", &["123456789"], 1, false),
        ("nothing read yet", &["123456789"], 0, true),
        ("trailers count", &["1", "=x"], 2, false),
    ] {
        let mut replay = Replay::new(body(pieces), LIMIT);
        let mut sent = replay.begin();
        sends(&mut sent, read).await;
        assert_eq!(replay.can_begin(), can_begin, "{what}");
        let all = pieces[read..].iter().map(|piece| if piece.starts_with('=') { "=" } else { piece });
        let rest: String = all.chain(["."]).collect();
        assert_eq!(sends(&mut sent, 9).await, rest, "{what}: the rest goes out all the same");
    }
}

#[tokio::test]
async fn pieces_are_shared_and_let_go() {
    let kept = |replay: &Replay| match replay {
        Replay::Kept(kept) => kept.borrow().pieces.len(),
        _ => panic!("a body that streams"),
    };
    let mut replay = Replay::new(body(&["1234", "5678", "9"]), LIMIT);
    let mut sent = replay.begin();
    let first = sent.frame().await.unwrap().unwrap().into_data().unwrap();
    let again = replay.begin().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first.as_ptr(), again.as_ptr(), "not copied");

    let mut sent = replay.begin();
    sends(&mut sent, 2).await;
    assert_eq!(kept(&replay), 2);
    sends(&mut sent, 1).await;
    assert_eq!(kept(&replay), 0, "beyond the limit");

    let mut replay = Replay::new(body(&["1", "2", "3"]), LIMIT);
    sends(&mut replay.begin(), 2).await;
    let mut sent = replay.begin();
    assert_eq!(sends(&mut sent, 1).await, "1");
    replay.release();
    assert_eq!(kept(&replay), 1, "only what is still to be sent");
    assert_eq!(sends(&mut sent, 1).await, "2");
    assert_eq!((kept(&replay), replay.can_begin()), (0, false));
    drop(replay);
    assert_eq!(sends(&mut sent, 9).await, "3.", "the response was passed on: the body goes on");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_sends_no_more() {
    let mut replay = Replay::new(body(&["1", "2"]), LIMIT);
    let mut sent = replay.begin();
    sends(&mut sent, 1).await;
    drop(replay);
    assert!(sends(&mut sent, 1).await.starts_with(": the try was given up"));
}

#[tokio::test]
async fn what_is_at_hand_costs_nothing_and_what_goes_out_once_is_gone() {
    for at_hand in [Body::Empty, Body::full("all")] {
        assert!(matches!(Replay::new(at_hand, LIMIT), Replay::AtHand(_)));
    }
    let mut once = Replay::at_hand(body(&["1"]));
    assert!(once.can_begin());
    assert_eq!(sends(&mut once.begin(), 9).await, "1.");
    assert!(!once.can_begin());
}

#[tokio::test]
async fn trailers_leave_the_length_open() {
    let mut replay = Replay::new(body(&["1", "=x"]), 100);
    let mut sent = pin!(replay.begin());
    sends(&mut sent, 9).await;
    assert_eq!(replay.begin().size_hint().exact(), None, "a length would leave no room for them");
}

proptest! {
    /// However often a try is given up, and wherever: the last one sends the body as it came.
    #[test]
    fn the_last_try_sends_the_whole_body(reads in proptest::collection::vec(0..8_usize, 0..6)) {
        const PIECES: [&str; 6] = ["a", "bc", "", "def", "g", "=x"];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sent = runtime.block_on(async {
            let mut replay = Replay::new(body(&PIECES), 100);
            for pieces in reads {
                sends(&mut replay.begin(), pieces).await;
            }
            sends(&mut replay.begin(), 99).await
        });
        prop_assert_eq!(sent, "abcdefg=.");
    }
}
