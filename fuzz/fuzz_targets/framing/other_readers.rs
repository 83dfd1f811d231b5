//! How others could read the same bytes. Each reader is short, knows nothing of our framing, and is lenient where
//! servers are known to be: where one of them finds another end of a message than we do, a request can be smuggled.

use http::Method;

use crate::stream::Side;

#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// Heads by `httparse`; the first Content-Length counts.
    First,
    /// Heads by hand, lines end at LF with or without CR; the last Content-Length counts.
    Last,
}

/// A head as another reads it: its length, the first line, and the fields.
struct Head {
    length: usize,
    first_line: String,
    fields: Vec<(String, String)>,
}

impl Reader {
    pub const ALL: [Reader; 2] = [Reader::First, Reader::Last];

    /// The body of the first message, and the length of the message.
    pub fn message(self, side: &Side, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let head = match self {
            Reader::First => by_httparse(side, bytes)?,
            Reader::Last => by_hand(bytes)?,
        };
        let rest = &bytes[head.length..];
        let values = |name: &str| {
            let named = head.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.trim_matches([' ', '\t']).to_owned()).collect::<Vec<_>>()
        };
        let codings = values("transfer-encoding");
        let lengths = values("content-length");
        let length = if matches!(self, Reader::First) { lengths.first() } else { lengths.last() };
        let (body, taken) = match length {
            _ if has_no_body(side, &head.first_line) => (Vec::new(), 0),
            _ if codings.iter().any(|coding| coding.to_ascii_lowercase().contains("chunked")) => {
                chunked(rest)?
            }
            Some(length) => {
                let length: usize = length.parse().ok()?;
                (rest.get(..length)?.to_vec(), length)
            }
            None => (Vec::new(), 0),
        };
        Some((body, head.length + taken))
    }
}

fn has_no_body(side: &Side, first_line: &str) -> bool {
    let Side::Responses(asked) = side else { return false };
    let status = first_line.split(' ').nth(1).unwrap_or_default();
    asked == Method::HEAD || status.starts_with('1') || status == "204" || status == "304"
}

fn by_httparse(side: &Side, bytes: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let (length, first_line, fields) = match side {
        Side::Requests => {
            let mut request = httparse::Request::new(&mut fields);
            let length = request.parse(bytes).ok()?;
            (length, request.method?.to_owned(), request.headers)
        }
        Side::Responses(_) => {
            let mut response = httparse::Response::new(&mut fields);
            let length = response.parse(bytes).ok()?;
            (length, format!("HTTP/1.1 {}", response.code?), response.headers)
        }
    };
    let httparse::Status::Complete(length) = length else { return None };
    let field = |field: &httparse::Header<'_>| {
        (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned())
    };
    Some(Head { length, first_line, fields: fields.iter().map(field).collect() })
}

fn by_hand(bytes: &[u8]) -> Option<Head> {
    let mut length = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let mut lines = Vec::new();
    loop {
        let line = line(&bytes[length..])?;
        length += line.1;
        if line.0.is_empty() {
            break;
        }
        lines.push(line.0);
    }
    let first_line = if lines.is_empty() { String::new() } else { lines.remove(0) };
    let field = |line: &String| match line.split_once(':') {
        Some((name, value)) => (name.trim().to_owned(), value.to_owned()),
        None => (line.clone(), String::new()),
    };
    Some(Head { length, first_line, fields: lines.iter().map(field).collect() })
}

/// A line without its end, and its length with it.
fn line(bytes: &[u8]) -> Option<(String, usize)> {
    let feed = bytes.iter().position(|byte| *byte == b'\n')?;
    let text = bytes[..feed].strip_suffix(b"\r").unwrap_or(&bytes[..feed]);
    // One char for each byte, so that no bytes look like white space that are none.
    Some((text.iter().map(|byte| char::from(*byte)).collect(), feed + 1))
}

/// The data of a body in chunks, and the bytes that it takes.
fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let (text, length) = line(&bytes[at..])?;
        at += length;
        let size = text.split(';').next()?.trim_matches([' ', '\t']);
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        let (empty, length) = line(&bytes[at..])?;
        at += length;
        if !empty.is_empty() {
            return None;
        }
    }
    loop {
        let (text, length) = line(&bytes[at..])?;
        at += length;
        if text.is_empty() {
            return Some((data, at));
        }
    }
}
