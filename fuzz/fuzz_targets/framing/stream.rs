//! Reads messages as a connection does: bytes come in pieces, heads and bodies follow one another.

use bytes::Bytes;
use gauze_model::framing::{
    BodyFraming, Chunk, ChunkDecoder, HeadScan, Limits, Malformed, request_head, response_head,
};
use http::{HeaderMap, Method, StatusCode, Version};

#[derive(Debug)]
pub enum Side {
    Requests,
    /// To requests of this method.
    Responses(Method),
}

/// A message, and how many bytes of the stream it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub request_line: Option<(Method, String)>,
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub chunked: bool,
    pub until_close: bool,
    pub tunnel: bool,
    pub persistent: bool,
    pub expects_continue: bool,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    pub length: usize,
}

impl Message {
    /// What must be the same when it is written again; a version of our own, and chunks of other sizes, may differ.
    pub fn essence(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        let line = (&self.request_line, self.status, &self.headers);
        let framing = (self.chunked, self.until_close, self.tunnel);
        (line, framing, &self.body, &self.trailers)
    }
}

/// Why no further message was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// At the end of a message, and of the stream.
    Clean,
    /// Within a message.
    Within,
    /// The last body ended with the stream, or what follows is no HTTP.
    AtClose,
    /// Refused.
    Refused(Malformed),
}

/// Reads all messages of a stream. `piece` says how many of the bytes that are left come next.
pub fn read(
    side: &Side,
    bytes: &[u8],
    limits: &Limits,
    mut piece: impl FnMut(usize) -> usize,
) -> (Vec<Message>, End) {
    let mut stream = Stream { bytes, arrived: 0, at: 0, piece: &mut piece };
    let mut messages = Vec::new();
    loop {
        if stream.at == bytes.len() {
            return (messages, End::Clean);
        }
        match stream.message(side, limits) {
            Ok(Some(message)) => {
                let last = message.until_close || message.tunnel;
                messages.push(message);
                if last {
                    return (messages, End::AtClose);
                }
            }
            Ok(None) => return (messages, End::Within),
            Err(malformed) => return (messages, End::Refused(malformed)),
        }
    }
}

struct Stream<'s> {
    bytes: &'s [u8],
    /// So many have come.
    arrived: usize,
    /// So many were read.
    at: usize,
    piece: &'s mut dyn FnMut(usize) -> usize,
}

impl Stream<'_> {
    /// What has come and was not read yet.
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.at..self.arrived]
    }

    /// Whether more came.
    fn more(&mut self) -> bool {
        let left = self.bytes.len() - self.arrived;
        if left > 0 {
            self.arrived += (self.piece)(left).clamp(1, left);
        }
        left > 0
    }

    fn message(&mut self, side: &Side, limits: &Limits) -> Result<Option<Message>, Malformed> {
        let start = self.at;
        let Some(mut message) = self.head(side, limits)? else { return Ok(None) };
        let framing = message.1;
        let whole = match framing {
            BodyFraming::Empty => true,
            BodyFraming::Length(length) => self.sized(length, &mut message.0.body),
            BodyFraming::Chunked => self.chunked(limits, &mut message.0)?,
            BodyFraming::UntilClose | BodyFraming::Tunnel => self.sized_to_the_end(&mut message.0.body),
        };
        message.0.length = self.at - start;
        Ok(whole.then_some(message.0))
    }

    fn head(&mut self, side: &Side, limits: &Limits) -> Result<Option<(Message, BodyFraming)>, Malformed> {
        let mut scan = match side {
            Side::Requests => HeadScan::of_request(),
            Side::Responses(_) => HeadScan::of_response(),
        };
        let length = loop {
            match scan.end(self.waiting(), limits)? {
                Some(length) => break length,
                None if self.more() => {}
                None => return Ok(None),
            }
        };
        let head = Bytes::copy_from_slice(&self.waiting()[..length]);
        self.at += length;
        match side {
            Side::Requests => request(head, limits).map(Some),
            Side::Responses(asked) => response(head, limits, asked).map(Some),
        }
    }

    fn sized(&mut self, length: u64, body: &mut Vec<u8>) -> bool {
        let Ok(length) = usize::try_from(length) else { return false };
        while self.waiting().len() < length && self.more() {}
        let whole = self.waiting().len() >= length;
        if whole {
            body.extend_from_slice(&self.waiting()[..length]);
            self.at += length;
        }
        whole
    }

    fn sized_to_the_end(&mut self, body: &mut Vec<u8>) -> bool {
        while self.more() {}
        body.extend_from_slice(self.waiting());
        self.at = self.arrived;
        true
    }

    fn chunked(&mut self, limits: &Limits, message: &mut Message) -> Result<bool, Malformed> {
        let mut decoder = ChunkDecoder::new(*limits);
        loop {
            match decoder.next(self.waiting())? {
                Chunk::More { consumed } => {
                    self.at += consumed;
                    assert_eq!(self.at, self.arrived, "all that came is consumed");
                    if !self.more() {
                        return Ok(false);
                    }
                }
                Chunk::Data { skip, length } => {
                    assert!(length > 0, "data is never empty");
                    message.body.extend_from_slice(&self.waiting()[skip..skip + length]);
                    self.at += skip + length;
                }
                Chunk::End { consumed, trailers } => {
                    self.at += consumed;
                    message.trailers = trailers;
                    return Ok(true);
                }
            }
        }
    }
}

fn request(head: Bytes, limits: &Limits) -> Result<(Message, BodyFraming), Malformed> {
    let head = request_head(head, limits)?;
    assert!(head.headers.len() <= limits.headers, "{} headers", head.headers.len());
    assert!(
        !matches!(head.body, BodyFraming::UntilClose | BodyFraming::Tunnel),
        "a request's body has an end"
    );
    let message = Message {
        request_line: Some((head.method, head.uri.to_string())),
        status: StatusCode::OK,
        version: head.version,
        headers: head.headers,
        chunked: head.body == BodyFraming::Chunked,
        until_close: false,
        tunnel: false,
        persistent: head.persistent,
        expects_continue: head.expects_continue,
        body: Vec::new(),
        trailers: HeaderMap::new(),
        length: 0,
    };
    Ok((message, head.body))
}

fn response(head: Bytes, limits: &Limits, asked: &Method) -> Result<(Message, BodyFraming), Malformed> {
    let head = response_head(head, limits, asked)?;
    let message = Message {
        request_line: None,
        status: head.status,
        version: head.version,
        headers: head.headers,
        chunked: head.body == BodyFraming::Chunked,
        until_close: head.body == BodyFraming::UntilClose,
        tunnel: head.body == BodyFraming::Tunnel,
        persistent: head.persistent,
        expects_continue: false,
        body: Vec::new(),
        trailers: HeaderMap::new(),
        length: 0,
    };
    Ok((message, head.body))
}
