//! A child process: its first line says where it listens, its log is shown when the test fails, it is gone
//! when the value is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::eventually::{eventually, holds};
use super::programs::program;

pub(crate) struct Process {
    name: String,
    child: Child,
    /// What the first line on stdout said.
    listening: Value,
    log: PathBuf,
    later_lines: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts a program of ours and waits until it listens.
    pub(crate) async fn start<S: AsRef<std::ffi::OsStr>>(program_name: &str, args: &[S]) -> Process {
        let mut command = Command::new(program(program_name));
        command.args(args);
        Process::spawn(program_name, command).await
    }

    /// The same for a prepared command (for example inside a network namespace).
    pub(crate) async fn spawn(name: &str, mut command: Command) -> Process {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = read_lines(child.stdout.take().expect("stdout is piped"));
        let mut process = Process {
            name: name.to_owned(),
            child,
            listening: Value::Null,
            log,
            later_lines: lines,
            _folder: folder,
        };
        let first = eventually(&format!("{name} listens"), async || process.first_line()).await;
        let said: Value = serde_json::from_str(&first)
            .unwrap_or_else(|error| panic!("{name} printed `{first}` first: {error}"));
        process.listening = said["listening"].clone();
        process
    }

    fn first_line(&mut self) -> Result<String, String> {
        if let Ok(line) = self.later_lines.try_recv() {
            return Ok(line);
        }
        if let Some(status) = self.child.try_wait().expect("a child can be asked") {
            panic!("{} ended at once with {status}:\n{}", self.name, self.log());
        }
        Err("nothing on stdout yet".to_owned())
    }

    /// The first address under this key of the first line.
    pub(crate) fn address(&self, key: &str) -> SocketAddr {
        self.nth_address(key, 0)
    }

    pub(crate) fn nth_address(&self, key: &str, index: usize) -> SocketAddr {
        let said = &self.listening[key];
        said.get(index)
            .unwrap_or(said)
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{} says of `{key}` only {said} in {}", self.name, self.listening))
    }

    /// What the first line says under this key.
    pub(crate) fn said(&self, key: &str) -> String {
        self.listening[key].as_str().unwrap_or_default().to_owned()
    }

    /// All that it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it wrote to stdout since the last call (the access log).
    pub(crate) fn new_lines(&self) -> Vec<String> {
        self.later_lines.try_iter().collect()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let killed = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "{} is no longer there", self.name);
        let name = format!("{} ends on SIGTERM", self.name);
        let child = &mut self.child;
        eventually(&name, async || child.try_wait().expect("a child can be asked").ok_or("still running"))
            .await
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it in its tracks (SIGSTOP): alive to the kernel, silent to its peers.
    pub(crate) fn freeze(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.id().to_string()]).status();
        assert!(stopped.is_ok_and(|status| status.success()));
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        let continued = Command::new("kill").args(["-CONT", &self.id().to_string()]).status();
        assert!(continued.is_ok_and(|status| status.success()));
    }

    /// Waits until its log has a line with this text.
    pub(crate) async fn logs(&self, text: &str) {
        eventually(&format!("{} logs `{text}`", self.name), async || {
            holds(self.log().contains(text), "not in the log")
        })
        .await;
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_memory(&self) -> u64 {
        let mut text = String::new();
        let path = format!("/proc/{}/statm", self.id());
        File::open(path).and_then(|mut file| file.read_to_string(&mut text)).expect("it runs");
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.expect("statm has a second field") * 4096
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}

/// Reads lines on a thread of its own, so that a child never blocks on a full pipe.
fn read_lines(stdout: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A bound for what must never happen: long enough to see it, short enough to wait for.
pub(crate) const NEVER: Duration = Duration::from_millis(500);
