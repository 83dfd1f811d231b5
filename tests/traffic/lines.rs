//! The opaque protocol of these tests: the line `echo ID BODY` is answered by the line `APP ID BODY`, one after another
//! over one connection. No HTTP begins with a small letter, so one port can serve both.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a server that has said its last word hears its client out.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What came of a line: the app that answered, and what it said.
pub struct Answer {
    pub app: String,
    pub id: String,
    pub body: String,
}

/// One connection of a client.
pub struct Lines {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Lines {
    /// # Errors
    /// Nobody accepts.
    pub async fn connect(address: SocketAddr) -> io::Result<Lines> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Lines { reader: BufReader::new(reader), writer })
    }

    /// Whether the server has closed it, between two lines.
    pub fn is_closed(&self) -> bool {
        let is_open = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        match self.reader.get_ref().try_read(&mut [0]) {
            Ok(_) => true, // its end, or what nobody asked for
            Err(error) => !is_open(error),
        }
    }

    /// # Errors
    /// The connection ended before the whole answer was here; says how much of it was.
    pub async fn ask(&mut self, id: &str, body: &str) -> io::Result<Answer> {
        self.writer.write_all(format!("echo {id} {body}\n").as_bytes()).await?;
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line).await;
        let what = |why: &str| io::Error::other(format!("{why} after {} bytes of the answer", line.len()));
        read.map_err(|error| what(&error.to_string()))?;
        let text = line.strip_suffix(b"\n").ok_or_else(|| what("closed"))?;
        let line = String::from_utf8(text.to_owned()).map_err(io::Error::other)?;
        let mut words = line.splitn(3, ' ').map(ToOwned::to_owned);
        let mut word = || words.next().unwrap_or_default();
        Ok(Answer { app: word(), id: word(), body: word() })
    }
}

/// Whether a connection with this first byte speaks this protocol.
pub fn is_opaque(first: u8) -> bool {
    first.is_ascii_lowercase()
}

/// Answers lines until the client has ended, or, once `ending` is true, until none is half read. `note` is told
/// (`arrived`, id), and (`executed`, id) before the answer is sent.
///
/// # Errors
/// The connection broke.
pub async fn serve(
    stream: TcpStream,
    app: &str,
    mut ending: watch::Receiver<bool>,
    note: impl Fn(&str, &str),
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        let is_idle = line.is_empty() && reader.buffer().is_empty();
        tokio::select! {
            biased;
            read = reader.read_until(b'\n', &mut line) => {
                if read? == 0 || line.pop() != Some(b'\n') {
                    return Ok(());
                }
            }
            () = told_to_end(&mut ending), if is_idle => break,
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        let question = text.strip_prefix("echo ").unwrap_or(&text);
        let id = question.split(' ').next().unwrap_or_default();
        note("arrived", id);
        note("executed", id);
        writer.write_all(format!("{app} {question}\n").as_bytes()).await?;
    }
    writer.shutdown().await?;
    // A line that crossed our end is told by it; not reading it would break off the answers before it.
    let _ = timeout(LAST_WORDS, reader.read_to_end(&mut Vec::new())).await;
    Ok(())
}

/// Completes when it is true, or when nobody is left to say so.
pub(crate) async fn told_to_end(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}
