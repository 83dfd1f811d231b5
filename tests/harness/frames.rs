//! HTTP/2 frame by frame (RFC 9113), for what no library would write. Headers are literals without Huffman's code or
//! the dynamic table unless a test says otherwise.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that are never indexed (RFC 7541, 6.2.3).
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            integer(text.len(), 7, 0, &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 7541, 5.1.
pub(crate) fn integer(value: usize, bits: u8, first: u8, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A request without a body, its fields in as many frames as they need.
pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let piece = |(at, piece): (usize, &&[u8])| {
        let ends = if at == last { END_HEADERS } else { 0 };
        match at {
            0 => frame(kind::HEADERS, flags | ends, stream, piece),
            _ => frame(kind::CONTINUATION, ends, stream, piece),
        }
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

/// What came of a stream, or of the whole connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered(u16),
    /// RST_STREAM, with its error code.
    Reset(u32),
    /// GOAWAY with an error, with its code.
    SentAway(u32),
    /// Without a word.
    Closed,
}

/// A connection whose preface and first SETTINGS were sent.
pub(crate) struct Frames {
    reading: OwnedReadHalf,
    writing: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl Frames {
    pub(crate) async fn connect(address: SocketAddr) -> Frames {
        let stream =
            timeout(DEADLINE, TcpStream::connect(address)).await.expect("in time").expect("a connection");
        let (reading, writing) = stream.into_split();
        let mut frames = Frames { reading, writing, buffer: Vec::new() };
        frames.send(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat()).await;
        frames
    }

    /// Writes bytes. Whoever is sent away may be cut off, and reads then why.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.writing.write_all(bytes)).await;
    }

    /// The same, while what comes meanwhile is dropped: a flood whose answers nobody reads would stop by itself.
    pub(crate) async fn flood(&mut self, bytes: &[u8]) {
        let Frames { reading, writing, buffer } = self;
        let mut scratch = [0; 16 * 1024];
        let mut writing = std::pin::pin!(writing.write_all(bytes));
        let flooding = async {
            loop {
                tokio::select! {
                    _ = &mut writing => return,
                    read = reading.read(&mut scratch) => match read {
                        Ok(count @ 1..) => buffer.extend_from_slice(&scratch[..count]),
                        _ => return,
                    },
                }
            }
        };
        let _ = timeout(DEADLINE, flooding).await;
    }

    /// The next frame: kind, flags, stream and payload; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<9>().copied() {
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let payload = self.buffer[9..9 + length].to_vec();
                    self.buffer.drain(..9 + length);
                    let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
                    return Some((header[3], header[4], stream, payload));
                }
            }
            match timeout(DEADLINE, self.reading.read_buf(&mut self.buffer))
                .await
                .expect("something comes in time")
            {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    /// What becomes of this stream. SETTINGS are acknowledged meanwhile, all else is let pass.
    pub(crate) async fn fate(&mut self, of: u32) -> Fate {
        while let Some((kind, flags, stream, payload)) = self.next().await {
            let code = |at: usize| {
                payload
                    .get(at..at + 4)
                    .map_or(0, |code| u32::from_be_bytes(code.try_into().expect("four bytes")))
            };
            match kind {
                kind::SETTINGS if flags & ACK == 0 => self.send(&frame(kind::SETTINGS, ACK, 0, &[])).await,
                kind::HEADERS if stream == of => return Fate::Answered(status(&payload)),
                kind::RST_STREAM if stream == of => return Fate::Reset(code(0)),
                kind::GOAWAY if code(4) != 0 => return Fate::SentAway(code(4)),
                _ => {}
            }
        }
        Fate::Closed
    }
}

/// The status at the start of a block of fields: indexed (RFC 7541, A), or three digits, perhaps in Huffman's code.
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).parse().unwrap_or(0),
        [0x08 | 0x18 | 0x48, length, digits @ ..] if length & 0x80 != 0 => {
            huffman_digits(&digits[..usize::from(length & 0x7f)])
        }
        _ => 0,
    }
}

/// RFC 7541, B: the digits 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let (mut value, mut code, mut length) = (0, 0_u16, 0);
    for bit in bits {
        code = code << 1 | u16::from(bit);
        length += 1;
        let digit = match (length, code) {
            (5, 0..=2) => code,
            (6, 0x19..=0x1f) => code - 0x19 + 3,
            _ => continue,
        };
        value = value * 10 + digit;
        (code, length) = (0, 0);
    }
    value
}
