//! Bodies in chunks (RFC 9112, 7.1), decoded where they lie: the decoder says which bytes are data and
//! keeps none of them; only trailers, which are rare and bounded, are gathered.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};

use super::head::{field_error, header_map};
use super::{HEADERS_MAX, HeadScan, Limits, Malformed};

/// Bytes of chunk extensions that one body may carry; they are ignored, and so only cost time.
const EXTENSIONS_MAX: usize = 16 * 1024;

/// Digits of a chunk's size: what fits into 64 bits, without room for leading zeros without end.
const SIZE_DIGITS_MAX: u8 = 16;

/// Decodes one body.
#[derive(Debug)]
pub struct ChunkDecoder {
    limits: Limits,
    /// Bytes of extensions so far.
    extensions: usize,
    expects: Expects,
}

#[derive(Debug)]
enum Expects {
    /// The size of the next chunk, of which some digits came.
    Size {
        size: u64,
        digits: u8,
    },
    /// An extension's semicolon behind white space.
    Semicolon {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// The line feed that ends a size.
    SizeFeed {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataFeed,
    /// Trailers and the final empty line.
    Trailers {
        gathered: Vec<u8>,
        scan: HeadScan,
    },
    Nothing,
}

/// What the next bytes of a body are.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Framing, up to the end of what was given: `consumed` is all of it.
    More {
        /// Bytes that need not be given again.
        consumed: usize,
    },
    /// Data: `bytes[skip..skip + length]`. Both are consumed.
    Data {
        /// Bytes of framing before the data.
        skip: usize,
        /// Bytes of data, never 0.
        length: usize,
    },
    /// The body has ended; what follows belongs to the next message.
    End {
        /// Bytes of framing that end the body.
        consumed: usize,
        /// The trailer section; usually empty.
        trailers: HeaderMap,
    },
}

const START: Expects = Expects::Size { size: 0, digits: 0 };

impl ChunkDecoder {
    /// A decoder for one body, whose trailers may cost what `limits` allow.
    pub fn new(limits: Limits) -> ChunkDecoder {
        ChunkDecoder { limits, extensions: 0, expects: START }
    }

    /// Looks at the next bytes of the body, those that were not consumed yet.
    ///
    /// # Errors
    /// The framing is broken or exceeds a limit; the body cannot be read further.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Chunk, Malformed> {
        let mut at = 0;
        loop {
            if let Expects::Data { left } = &mut self.expects {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= length as u64;
                return Ok(if length == 0 { Chunk::More { consumed: at } } else { self.data(at, length) });
            }
            match self.expects {
                Expects::Trailers { .. } => return self.trailers(at, bytes),
                Expects::Nothing => return Ok(Chunk::End { consumed: at, trailers: HeaderMap::new() }),
                _ => {}
            }
            let Some(byte) = bytes.get(at) else {
                return Ok(Chunk::More { consumed: at });
            };
            self.expects = self.after(*byte)?;
            at += 1;
        }
    }

    fn data(&mut self, skip: usize, length: usize) -> Chunk {
        if let Expects::Data { left: 0 } = self.expects {
            self.expects = Expects::DataReturn;
        }
        Chunk::Data { skip, length }
    }

    /// What is expected after a byte of framing.
    fn after(&mut self, byte: u8) -> Result<Expects, Malformed> {
        match (&self.expects, byte) {
            (Expects::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                one_more_digit(*size, *digits, byte)
            }
            (Expects::Size { digits: 0, .. }, _) => Err(Malformed::ChunkSize),
            (Expects::Size { size, .. } | Expects::Extension { size }, b'\r') => {
                Ok(Expects::SizeFeed { size: *size })
            }
            (Expects::Size { size, .. } | Expects::Semicolon { size }, b';') => self.extension(*size),
            (Expects::Size { size, .. } | Expects::Semicolon { size }, b' ' | b'\t') => {
                self.white_space(*size)
            }
            (Expects::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => self.extension(*size),
            (Expects::Extension { .. }, _) => Err(Malformed::ChunkExtension),
            (Expects::SizeFeed { size: 0 }, b'\n') => {
                Ok(Expects::Trailers { gathered: Vec::new(), scan: HeadScan::of_trailers() })
            }
            (Expects::SizeFeed { size }, b'\n') => Ok(Expects::Data { left: *size }),
            (Expects::DataReturn, b'\r') => Ok(Expects::DataFeed),
            (Expects::DataFeed, b'\n') => Ok(START),
            (Expects::DataReturn | Expects::DataFeed, _) => Err(Malformed::ChunkEnd),
            _ => Err(Malformed::ChunkSize),
        }
    }

    fn extension(&mut self, size: u64) -> Result<Expects, Malformed> {
        self.count_extension()?;
        Ok(Expects::Extension { size })
    }

    fn white_space(&mut self, size: u64) -> Result<Expects, Malformed> {
        self.count_extension()?;
        Ok(Expects::Semicolon { size })
    }

    fn count_extension(&mut self) -> Result<(), Malformed> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS_MAX { Err(Malformed::ChunkExtension) } else { Ok(()) }
    }

    /// Gathers trailers until the final empty line has come.
    fn trailers(&mut self, at: usize, bytes: &[u8]) -> Result<Chunk, Malformed> {
        let Expects::Trailers { gathered, scan } = &mut self.expects else {
            return Ok(Chunk::More { consumed: at });
        };
        let before = gathered.len();
        let more = &bytes[at..];
        if before == 0 && more.starts_with(b"\r\n") {
            self.expects = Expects::Nothing;
            return Ok(Chunk::End { consumed: at + 2, trailers: HeaderMap::new() });
        }
        gathered.extend_from_slice(&more[..more.len().min(self.limits.header_bytes - before)]);
        let Some(end) = scan.end(gathered, &self.limits)? else {
            return Ok(Chunk::More { consumed: bytes.len() });
        };
        gathered.truncate(end);
        let trailers = read_trailers(Bytes::from(std::mem::take(gathered)), &self.limits)?;
        self.expects = Expects::Nothing;
        Ok(Chunk::End { consumed: at + end - before, trailers })
    }
}

fn one_more_digit(size: u64, digits: u8, digit: u8) -> Result<Expects, Malformed> {
    if digits == SIZE_DIGITS_MAX {
        return Err(Malformed::ChunkSize);
    }
    let value = (digit as char).to_digit(16).map_or(0, u64::from);
    Ok(Expects::Size { size: size << 4 | value, digits: digits + 1 })
}

fn read_trailers(section: Bytes, limits: &Limits) -> Result<HeaderMap, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let permitted = &mut fields[..limits.headers.min(HEADERS_MAX)];
    let parsed = httparse::parse_headers(&section, permitted);
    let parsed = parsed.map_err(|error| field_error(error, &section).unwrap_or(Malformed::Field))?;
    let httparse::Status::Complete((_, fields)) = parsed else {
        return Err(Malformed::Field);
    };
    let trailers = header_map(fields, &section)?;
    let misplaced = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, CONNECTION];
    if misplaced.iter().any(|name| trailers.contains_key(name)) {
        Err(Malformed::Trailer)
    } else {
        Ok(trailers)
    }
}
