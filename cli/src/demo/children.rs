//! Child processes that cannot outlive the demo. Each holds the end of a pipe and ends when it closes:
//! by an orderly stop, a panic, or `kill -9` of the parent. Each prints where it listens as its first line.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};

/// A running child; killed when dropped.
pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// What it said where it listens: `{"outbound": ["127.0.0.1:15001"], …}`.
    listening: serde_json::Value,
    log: PathBuf,
    process: tokio::process::Child,
}

/// How long a child may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a child may take to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

impl Child {
    /// Starts this same program with other arguments, its log in `log`, and waits until it listens.
    pub(crate) async fn start(name: &str, arguments: &[String], log: &Path) -> anyhow::Result<Child> {
        let errors = File::options().create(true).append(true).open(log);
        let errors = errors.with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = process.stdout.take().context("a child without stdout")?;
        let mut child = Child {
            name: name.to_owned(),
            pid: process.id().unwrap_or_default(),
            listening: serde_json::Value::Null,
            log: log.to_owned(),
            process,
        };
        child.listening = child.first_line(stdout, errors).await?;
        Ok(child)
    }

    async fn first_line(&mut self, stdout: ChildStdout, log: File) -> anyhow::Result<serde_json::Value> {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        match tokio::time::timeout(START_TIMEOUT, stdout.read_line(&mut line)).await {
            Err(_) => bail!(
                "{} does not listen after {} s\n{}",
                self.name,
                START_TIMEOUT.as_secs(),
                self.last_words()
            ),
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(0)) => {
                let status = self.process.wait().await?;
                bail!("{} ended at once ({status})\n{}", self.name, self.last_words());
            }
            Ok(Ok(_)) => {}
        }
        // What follows (an access log, if one is switched on) goes where the log goes.
        let mut log = tokio::fs::File::from_std(log);
        tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut log).await });
        let said: serde_json::Value = serde_json::from_str(&line)
            .with_context(|| format!("{} said `{}` instead of where it listens", self.name, line.trim()))?;
        Ok(said["listening"].clone())
    }

    /// The first address that it listens on for `what`.
    pub(crate) fn address(&self, what: &str) -> anyhow::Result<SocketAddr> {
        let said = &self.listening[what];
        let address = said.as_str().or_else(|| said[0].as_str());
        let address =
            address.with_context(|| format!("{} does not say where its {what} listens", self.name))?;
        address.parse().with_context(|| format!("{} listens for {what} on `{address}`", self.name))
    }

    /// Kills it, as the kernel does when memory is short: no goodbye.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Ends it and lets go of it.
    pub(crate) async fn stop(mut self) {
        self.end().await;
    }

    /// Lets go of the pipe, so that it ends, and kills it if it does not.
    pub(crate) async fn end(&mut self) {
        drop(self.process.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.process.wait()).await.is_err() {
            // It may have ended in this moment; otherwise it ends when this is dropped.
            let _ = self.process.kill().await;
        }
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// # Errors
    /// It has ended, which it should not; the message holds its last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status})\n{}", self.name, self.last_words()),
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("  {}\n  (its log: {})", last_lines(&text).join("\n  "), self.log.display())
    }
}

/// The end of a log; of a panic the beginning, since its end is only a backtrace.
fn last_lines(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let panic = lines.iter().rposition(|line| line.contains("panicked at"));
    let from = panic.unwrap_or(lines.len().saturating_sub(LAST_LINES));
    lines[from..].iter().take(LAST_LINES).copied().collect()
}

/// Lines of a log that are shown when its child has died.
const LAST_LINES: usize = 8;

/// In a child: ends this process at once when the parent lets go of its stdin, or is gone.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        read_to_end();
        std::process::exit(0);
    });
}

/// In a child: resolves when the parent lets go of its stdin, or is gone, for those who tidy up first.
pub(crate) async fn parent_is_gone() {
    let (gone, heard) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        read_to_end();
        // Nobody hears it if the runtime has ended first.
        let _ = gone.send(());
    });
    let _ = heard.await;
}

/// Reads stdin until it ends; nothing is ever written to it.
fn read_to_end() {
    let mut nothing = [0; 64];
    while matches!(std::io::stdin().read(&mut nothing), Ok(read) if read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_shown_or_the_first_of_a_panic() {
        let log: Vec<String> = (0..20).map(|number| format!("line {number}")).collect();
        assert_eq!(last_lines(&log.join("\n"))[..2], ["line 12", "line 13"]);
        let log =
            format!("{}\nthread 'main' panicked at x.rs:1\nwhy\n{}", log.join("\n"), "at frame\n".repeat(50));
        assert_eq!(last_lines(&log)[..2], ["thread 'main' panicked at x.rs:1", "why"]);
        assert!(last_lines("").is_empty());
    }
}
