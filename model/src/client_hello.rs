//! What a TLS client asks for, from its first bytes: server name and protocols of the ClientHello (RFC 8446, 4.1.2). It is
//! answered by somebody else, so whatever could be read in two ways is not read at all.
//!
//! Nothing here is secret, nothing is verified. A ClientHello with ECH is read by its outer part, which is all there is.

use std::borrow::Cow;
use std::ops::Range;

/// Longest ClientHello that is waited for, in bytes with the headers of its records (Envoy:
/// `TlsInspector.max_client_hello_size`). A post-quantum one has about 1.8 KiB.
pub const CLIENT_HELLO_MAX: usize = 64 * 1024;

/// What the first bytes of a TLS connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<'b> {
    /// The ClientHello is not whole yet. Never said of [`CLIENT_HELLO_MAX`] bytes.
    NeedMore,
    /// It is whole.
    Whole(ClientHello<'b>),
    /// Whatever follows, it cannot be read, or not in one way only; why.
    Unreadable(&'static str),
}

/// A ClientHello, as far as anybody but its server needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello<'b> {
    /// The handshake message; copied only where it came in several records.
    message: Cow<'b, [u8]>,
    server_name: Option<Range<usize>>,
    /// The entries of the ALPN extension, each behind its length.
    protocols: Range<usize>,
}

impl ClientHello<'_> {
    /// The name that it asks for (RFC 6066, 3), as it stands there.
    pub fn server_name(&self) -> Option<&str> {
        std::str::from_utf8(&self.message[self.server_name.clone()?]).ok()
    }

    /// The protocols that it offers (RFC 7301), the best first.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = Part { message: &self.message, range: self.protocols.clone() };
        std::iter::from_fn(move || left.vector(1).map(|id| id.bytes()))
    }
}

/// Looks at the bytes of a connection that begins with a handshake record.
pub fn read(bytes: &[u8]) -> Reading<'_> {
    let message = match first_message(bytes) {
        Ok(Some(message)) => message,
        Ok(None) if bytes.len() < CLIENT_HELLO_MAX => return Reading::NeedMore,
        Ok(None) => return Reading::Unreadable("it is longer than 64 KiB"),
        Err(why) => return Reading::Unreadable(why),
    };
    match extensions(&message) {
        Ok((server_name, protocols)) => {
            Reading::Whole(ClientHello { message, server_name, protocols: protocols.unwrap_or_default() })
        }
        Err(why) => Reading::Unreadable(why),
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const RECORD_MAX: usize = 1 << 14;
const MESSAGE_HEADER: usize = 4;

/// The first handshake message, whatever records it is cut into (RFC 8446, 5.1); `None`: it is not whole yet.
fn first_message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, &'static str> {
    let mut records = Records { left: bytes };
    let mut parts = Vec::new();
    let mut header = Vec::with_capacity(MESSAGE_HEADER);
    let mut found = 0;
    while let Some(part) = records.next_part()? {
        found += part.len();
        header.extend(part.iter().take(MESSAGE_HEADER - header.len()));
        parts.push(part);
        let Some(length) = message_length(&header)? else { continue };
        if found >= length {
            return Ok(Some(joined(&parts, length)));
        }
    }
    Ok(None)
}

/// Of a ClientHello with its header, once that is whole.
fn message_length(header: &[u8]) -> Result<Option<usize>, &'static str> {
    match header {
        [CLIENT_HELLO, length @ ..] if length.len() == 3 => {
            let length = MESSAGE_HEADER + number(length);
            if length < CLIENT_HELLO_MAX { Ok(Some(length)) } else { Err("it is longer than 64 KiB") }
        }
        [] | [CLIENT_HELLO, ..] => Ok(None),
        _ => Err("the first message is no ClientHello"),
    }
}

fn joined<'b>(parts: &[&'b [u8]], length: usize) -> Cow<'b, [u8]> {
    match parts {
        [only] => Cow::Borrowed(&only[..length]),
        parts => {
            let mut message = parts.concat();
            message.truncate(length);
            Cow::Owned(message)
        }
    }
}

/// The handshake records that bytes begin with.
struct Records<'b> {
    left: &'b [u8],
}

impl<'b> Records<'b> {
    /// What is there of the next record; of all but the last that is all of it.
    fn next_part(&mut self) -> Result<Option<&'b [u8]>, &'static str> {
        let [kind, major, _, high, low, rest @ ..] = self.left else {
            let is_handshake = self.left.first().is_none_or(|kind| *kind == HANDSHAKE);
            return if is_handshake { Ok(None) } else { Err("something else than a handshake lies between") };
        };
        if *kind != HANDSHAKE || *major != 3 {
            return Err("something else than a handshake lies between");
        }
        let length = number(&[*high, *low]);
        if !(1..=RECORD_MAX).contains(&length) {
            return Err("a record has a length that is not permitted");
        }
        let part = &rest[..length.min(rest.len())];
        self.left = &self.left[RECORD_HEADER + part.len()..];
        if part.len() < length {
            self.left = &[];
        }
        Ok((!part.is_empty()).then_some(part))
    }
}

const SERVER_NAME: usize = 0;
const ALPN: usize = 16;
const HOST_NAME: usize = 0;

/// Where the server name and the protocols stand.
type Found = (Option<Range<usize>>, Option<Range<usize>>);

fn extensions(message: &[u8]) -> Result<Found, &'static str> {
    let (mut server_name, mut protocols) = (None, None);
    let Some(mut list) = extension_list(message).ok_or("a length in it is wrong")? else {
        return Ok((None, None));
    };
    while !list.is_done() {
        let kind = list.number(2).ok_or("a length in it is wrong")?;
        let content = list.vector(2).ok_or("a length in it is wrong")?;
        let twice = match kind {
            SERVER_NAME => server_name.replace(host_name(content).ok_or("its server name is not one name")?),
            ALPN => protocols.replace(protocol_list(content).ok_or("its list of protocols is broken")?),
            _ => None,
        };
        if twice.is_some() {
            return Err("it says one thing twice");
        }
    }
    Ok((server_name, protocols))
}

/// The outer `None`: it is broken; the inner: a client of before TLS 1.2 may send none.
fn extension_list(message: &[u8]) -> Option<Option<Part<'_>>> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let mut body = Part { message, range: MESSAGE_HEADER..message.len() };
    body.take(VERSION_AND_RANDOM)?;
    let _session = body.vector(1)?;
    let _cipher_suites = body.vector(2)?;
    let _compression_methods = body.vector(1)?;
    if body.is_done() {
        return Some(None);
    }
    let list = body.vector(2)?;
    body.is_done().then_some(Some(list))
}

/// The only entry of a list of server names: another type than a host name was never given out.
fn host_name(mut content: Part<'_>) -> Option<Range<usize>> {
    let mut list = content.vector(2)?;
    let kind = list.number(1)?;
    let name = list.vector(2)?;
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let is_name = !name.is_done() && name.bytes().len() <= 255 && name.bytes().iter().all(is_letter);
    (kind == HOST_NAME && is_name && list.is_done() && content.is_done()).then_some(name.range)
}

fn protocol_list(mut content: Part<'_>) -> Option<Range<usize>> {
    let list = content.vector(2).filter(|_| content.is_done())?;
    let mut left = list.clone();
    while !left.is_done() {
        left.vector(1).filter(|id| !id.is_done())?;
    }
    Some(list.range)
}

/// A part of a message, which shrinks from the front as it is read.
#[derive(Clone)]
struct Part<'m> {
    message: &'m [u8],
    range: Range<usize>,
}

impl<'m> Part<'m> {
    fn is_done(&self) -> bool {
        self.range.is_empty()
    }

    fn bytes(&self) -> &'m [u8] {
        &self.message[self.range.clone()]
    }

    fn take(&mut self, length: usize) -> Option<Part<'m>> {
        let end = self.range.start.checked_add(length).filter(|end| *end <= self.range.end)?;
        let range = self.range.start..end;
        self.range.start = end;
        Some(Part { message: self.message, range })
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        self.take(bytes).map(|part| number(part.bytes()))
    }

    /// What stands behind a length of so many bytes.
    fn vector(&mut self, length_bytes: usize) -> Option<Part<'m>> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}

/// Of at most three bytes, in network order.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests;
