use proptest::prelude::*;

use super::*;

/// A list behind its length of so many bytes.
fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - length_bytes..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[&[0], &vector(2, name)[..]].concat()))
}

fn alpn(ids: &[&str]) -> Vec<u8> {
    let ids: Vec<u8> = ids.iter().flat_map(|id| vector(1, id.as_bytes())).collect();
    extension(16, &vector(2, &ids))
}

/// Reserved for clients that want to see servers ignore them (RFC 8701).
fn grease() -> Vec<u8> {
    extension(0x7a7a, b"")
}

fn message_of(body: &[u8]) -> Vec<u8> {
    [&[1], &vector(3, body)[..]].concat()
}

fn body() -> Vec<u8> {
    let session = vector(1, &[7; 32]);
    let cipher_suites = vector(2, &[0x13, 0x01, 0x0a, 0x0a]);
    [&[3, 3], &[9; 32][..], &session, &cipher_suites, &vector(1, &[0])].concat()
}

fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    message_of(&[body(), vector(2, &extensions.concat())].concat())
}

fn record(part: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], &vector(2, part)[..]].concat()
}

/// A message in records of at most so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

/// The server name and the protocols; or why not, or `None`.
type Seen = Result<Option<(Option<String>, Vec<String>)>, &'static str>;

fn seen(bytes: &[u8]) -> Seen {
    match read(bytes) {
        Reading::NeedMore => Ok(None),
        Reading::Unreadable(why) => Err(why),
        Reading::Whole(hello) => {
            let protocols = hello.protocols().map(|id| String::from_utf8_lossy(id).into_owned());
            Ok(Some((hello.server_name().map(str::to_owned), protocols.collect())))
        }
    }
}

fn asks(name: &str) -> Seen {
    Ok(Some((Some(name.to_owned()), Vec::new())))
}

const NOTHING: Seen = Ok(Some((None, Vec::new())));
const LENGTH: Seen = Err("a length in it is wrong");
const NAME: Seen = Err("its server name is not one name");
const BETWEEN: Seen = Err("something else than a handshake lies between");

#[test]
fn a_client_hello_tells_what_it_asks_for() {
    let cart = || server_name(b"cart.example");
    let large = extension(21, &vec![0; 40_000]);
    let with_protocols =
        Ok(Some((Some("cart.example".to_owned()), vec!["h2".to_owned(), "http/1.1".to_owned()])));
    let rows: Vec<(&str, Vec<u8>, Seen)> = vec![
        ("one that asks for a name", record(&message(&[cart()])), asks("cart.example")),
        (
            "one that also offers protocols",
            record(&message(&[alpn(&["h2", "http/1.1"]), cart()])),
            with_protocols,
        ),
        ("one that greases", record(&message(&[grease(), cart(), grease()])), asks("cart.example")),
        (
            "one with ECH is read by its outer part",
            record(&message(&[extension(0xfe0d, b"inner"), cart()])),
            asks("cart.example"),
        ),
        ("one that asks for no name", record(&message(&[grease()])), NOTHING),
        ("one without extensions", record(&message(&[])), NOTHING),
        ("one of before there were extensions", record(&message_of(&body())), NOTHING),
        ("a record for each byte", records(&message(&[cart()]), 1), asks("cart.example")),
        (
            "more than a record holds",
            records(&message(&[large.clone(), cart()]), RECORD_MAX),
            asks("cart.example"),
        ),
        (
            "what follows does not count",
            [record(&message(&[cart()])), b"\x17\x03\x03".to_vec()].concat(),
            asks("cart.example"),
        ),
        (
            "nor what follows in the same record",
            record(&[message(&[cart()]), vec![1; 9]].concat()),
            asks("cart.example"),
        ),
        (
            "case is the asker's",
            record(&message(&[server_name(b"Cart_1.EXAMPLE.")])),
            asks("Cart_1.EXAMPLE."),
        ),
    ];
    for (what, bytes, wanted) in rows {
        assert_eq!(seen(&bytes), wanted, "{what}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    let cart = || server_name(b"cart.example");
    let of_body = |body: Vec<u8>| record(&message_of(&body));
    let listed = |entries: &[u8]| record(&message(&[extension(0, &vector(2, entries))]));
    let entry = |kind: u8, name: &[u8]| [&[kind], &vector(2, name)[..]].concat();
    let two_names = [entry(0, b"a"), entry(0, b"b")].concat();
    let two_kinds = [entry(1, b"a"), entry(0, b"b")].concat();
    let trailing = [vector(2, &entry(0, b"a")), vec![0]].concat();
    let whole = message(&[cart()]);
    let rows: Vec<(&str, Vec<u8>, Seen)> = vec![
        ("two names", listed(&two_names), NAME),
        ("a name of an unknown kind before it", listed(&two_kinds), NAME),
        ("a name of an unknown kind", listed(&entry(9, b"a")), NAME),
        ("an empty list", listed(b""), NAME),
        ("an empty name", listed(&entry(0, b"")), NAME),
        ("a name with NUL", record(&message(&[server_name(b"cart\0.example")])), NAME),
        ("a name that is no ASCII", record(&message(&[server_name("cärt".as_bytes())])), NAME),
        ("a name that is too long", record(&message(&[server_name(&[b'a'; 256])])), NAME),
        ("bytes behind the list of names", record(&message(&[extension(0, &trailing)])), NAME),
        ("the extension twice", record(&message(&[cart(), cart()])), Err("it says one thing twice")),
        (
            "the protocols twice",
            record(&message(&[alpn(&["a"]), alpn(&["a"])])),
            Err("it says one thing twice"),
        ),
        ("an empty protocol", record(&message(&[alpn(&[""])])), Err("its list of protocols is broken")),
        ("extensions that end too soon", of_body([body(), vec![0, 9, 0]].concat()), LENGTH),
        ("an extension that ends too soon", record(&message(&[vec![0, 0, 0, 9, 1]])), LENGTH),
        ("bytes behind the extensions", of_body([body(), vector(2, &cart()), vec![0]].concat()), LENGTH),
        ("a body that ends too soon", of_body(body()[..40].to_vec()), LENGTH),
        (
            "another message",
            record(&[&[2], &whole[1..]].concat()),
            Err("the first message is no ClientHello"),
        ),
        (
            "an empty record",
            [record(&whole[..9]), record(b""), record(&whole[9..])].concat(),
            Err("a record has a length that is not permitted"),
        ),
        (
            "a record that is too long",
            [&[22, 3, 1, 0x40, 1], &whole[..]].concat(),
            Err("a record has a length that is not permitted"),
        ),
        ("an alert in the middle", [record(&whole[..9]), vec![21, 3, 1, 0, 2, 1, 0]].concat(), BETWEEN),
        ("the first byte of one", [record(&whole[..9]), vec![21]].concat(), BETWEEN),
        ("a length beyond the limit", record(&[1, 1, 0, 0]), Err("it is longer than 64 KiB")),
    ];
    for (what, bytes, wanted) in rows {
        assert_eq!(seen(&bytes), wanted, "{what}");
    }
}

#[test]
fn no_more_than_the_limit_is_waited_for() {
    let large = message(&[extension(21, &vec![0; 60_000]), server_name(b"cart.example")]);
    assert_eq!(seen(&records(&large, RECORD_MAX)), asks("cart.example"));
    // Many small records: it is the bytes kept that count.
    let bytes = records(&large, 10);
    assert_eq!(seen(&bytes[..CLIENT_HELLO_MAX - 1]), Ok(None));
    assert_eq!(seen(&bytes[..CLIENT_HELLO_MAX]), Err("it is longer than 64 KiB"));
}

#[test]
fn every_beginning_of_a_client_hello_needs_more() {
    let message = message(&[grease(), server_name(b"cart.example"), alpn(&["h2"])]);
    for size in [1, 2, 3, 5, 7, 50, RECORD_MAX] {
        let bytes = records(&message, size);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Reading::NeedMore, "records of {size}, cut at {cut}");
        }
    }
}

proptest! {
    /// Whatever the bytes, what is said of their beginning stays true; and it never panics.
    #[test]
    fn what_was_read_once_stays_read(
        extensions in prop::collection::vec((0..20_u16, prop::collection::vec(any::<u8>(), 0..12)), 0..4),
        size in 1..60_usize,
        (at, value) in (0..200_usize, any::<u8>()),
    ) {
        let extensions: Vec<_> = extensions.iter().map(|(kind, content)| extension(*kind, content)).collect();
        let mut bytes = records(&message(&extensions), size);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        let mut before = Ok(None);
        for end in 0..=bytes.len() {
            let now = seen(&bytes[..end]);
            prop_assert!(before == Ok(None) || before == now, "{before:?}, then {now:?}");
            before = now;
        }
    }
}
