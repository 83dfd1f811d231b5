//! One line for each request or opaque connection, in the format of `gauze_model::access_log`. A line is
//! written by a pure function of its record into a buffer; a thread of its own carries the buffers to
//! stdout. A worker never waits for it: when the channel is full, the line is dropped and counted.

mod fields; // what a record says
mod line; // how it is written

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use gauze_model::access_log::Format;
use http::HeaderName;
use prometheus::IntCounter;

use crate::record::Record;
use fields::Ended;

/// Where records go when they drop; cheap to clone, and nothing at all while it is off.
#[derive(Clone, Default)]
pub struct AccessLog {
    open: Option<Arc<Open>>,
}

struct Open {
    format: Format,
    wanted: Wanted,
    lines: SyncSender<Item>,
    dropped: IntCounter,
}

/// The fields of messages that are kept until the line is written.
pub(crate) struct Wanted {
    pub(crate) request: Vec<HeaderName>,
    pub(crate) response: Vec<HeaderName>,
    pub(crate) trailers: Vec<HeaderName>,
}

/// What the writer is sent.
enum Item {
    Line(Vec<u8>),
    /// Tell here when all that came before is written.
    Flush(SyncSender<()>),
}

/// How long the end of the process waits for the reader of stdout.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines that wait for the writer.
const LINES_MAX: usize = 8192;

impl AccessLog {
    /// Writes nothing.
    #[must_use]
    pub fn off() -> AccessLog {
        AccessLog::default()
    }

    /// Starts the writer; it ends when the last clone of the log is gone. `pod` is the host that it names.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        format: Format,
        pod: &str,
        output: impl Write + Send + 'static,
        dropped: IntCounter,
    ) -> io::Result<AccessLog> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            // Whoever read our stdout is gone: nobody is left to be told.
            let _ = write_all(&waiting, BufWriter::new(output));
        })?;
        Ok(AccessLog::to(lines, format, pod, dropped))
    }

    fn to(lines: SyncSender<Item>, format: Format, pod: &str, dropped: IntCounter) -> AccessLog {
        let [request, response, trailers] = format.headers();
        let wanted = Wanted { request, response, trailers };
        AccessLog {
            open: Some(Arc::new(Open { format: line::settled(format, pod), wanted, lines, dropped })),
        }
    }

    /// What is to be kept of messages; `None` while it is off.
    pub(crate) fn wanted(&self) -> Option<&Wanted> {
        self.open.as_ref().map(|open| &open.wanted)
    }

    /// Hands over the line of a record that ends now.
    pub fn write(&self, record: &Record, duration: Duration) {
        let Some(open) = &self.open else { return };
        let mut line = Vec::with_capacity(512);
        line::write_line(&mut line, &open.format, record, Ended { at: SystemTime::now(), after: duration });
        if open.lines.try_send(Item::Line(line)).is_err() {
            open.dropped.inc();
        }
    }

    /// Waits, not for long, until all lines are written.
    pub fn flush(&self) {
        let Some(open) = &self.open else { return };
        let (done, written) = sync_channel(1);
        if open.lines.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Writes lines as they come, and flushes when no more wait.
fn write_all(waiting: &Receiver<Item>, mut output: impl Write) -> io::Result<()> {
    while let Ok(first) = waiting.recv() {
        for item in std::iter::once(first).chain(waiting.try_iter()) {
            match item {
                Item::Line(line) => output.write_all(&line)?,
                Item::Flush(done) => {
                    output.flush()?;
                    let _ = done.try_send(());
                }
            }
        }
        output.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
