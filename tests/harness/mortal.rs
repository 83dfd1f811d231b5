//! An app as a process of its own, to be killed and started again. Its ledger is a file, so that it outlives the
//! app: what was written when the app was killed is there. The process is this test binary, run once more.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gauze_tests::server::{Came, Open, Server, read_ledger};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::eventually::{PATIENCE, eventually, within};
use super::faults::listen;
use super::mesh::free_address;

/// How an app comes to its end, or is no longer there for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGKILL: the kernel closes its sockets, whatever it was doing.
    Killed,
    /// SIGTERM: it closes its listener, answers what it has begun, and exits.
    Terminated,
    /// It closes its listener and its connections when they are idle, and lives on.
    Deaf,
}

/// An app that can be killed; ends when dropped.
pub(crate) struct Mortal {
    pub address: SocketAddr,
    folder: TempDir,
    child: Child,
}

const ADDRESS: &str = "GAUZE_TEST_MORTAL";
const LEDGER: &str = "GAUZE_TEST_MORTAL_LEDGER";

impl Mortal {
    pub(crate) async fn start() -> Mortal {
        let (address, folder) = (free_address(), tempfile::tempdir().expect("a temporary folder"));
        let child = spawn(address, &ledger_file(folder.path()));
        let app = Mortal { address, folder, child };
        app.accepts().await;
        app
    }

    /// Waits until it accepts connections.
    async fn accepts(&self) {
        eventually(&format!("the app at {} accepts", self.address), async || {
            TcpStream::connect(self.address).await.map(drop)
        })
        .await;
    }

    /// Ends it so, and returns when it accepts nothing more.
    pub(crate) async fn end(&mut self, how: End) {
        match how {
            End::Killed => {
                self.child.kill().expect("it runs");
                self.child.wait().expect("it was killed");
            }
            End::Terminated => {
                self.signal("-TERM");
                let child = &mut self.child;
                within(PATIENCE, "the app ends", async || child.try_wait().expect("asked").ok_or("running"))
                    .await;
            }
            End::Deaf => {
                self.signal("-USR1");
                eventually("the app's listener is closed", async || {
                    match TcpStream::connect(self.address).await {
                        Err(_) => Ok(()),
                        Ok(_) => Err("it accepts"),
                    }
                })
                .await;
            }
        }
    }

    /// Makes it what it was before it ended so.
    pub(crate) async fn revive(&mut self, after: End) {
        match after {
            End::Killed | End::Terminated => {
                self.child = spawn(self.address, &ledger_file(self.folder.path()));
            }
            End::Deaf => self.signal("-USR2"),
        }
        self.accepts().await;
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the app is no longer there");
    }

    /// What all its lives received.
    pub(crate) fn came(&self) -> Came {
        read_ledger(&fs::read_to_string(ledger_file(self.folder.path())).unwrap_or_default())
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ledger_file(folder: &Path) -> PathBuf {
    folder.join("ledger")
}

fn spawn(address: SocketAddr, ledger: &Path) -> Child {
    Command::new(std::env::current_exe().expect("a test has an executable"))
        .args(["harness::mortal::as_a_process", "--exact", "--ignored", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .env(LEDGER, ledger)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test binary runs once more")
}

/// Not a test, but the other process.
#[test]
#[ignore = "the process of an app that other tests kill"]
fn as_a_process() {
    let (Ok(address), Ok(ledger)) = (std::env::var(ADDRESS), std::env::var(LEDGER)) else { return };
    // It does not outlive the test, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let server = Server::new("mortal", Path::new(&ledger), Duration::ZERO);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(live(address.parse().expect("an address"), server));
}

async fn live(address: SocketAddr, server: Arc<Server>) {
    let on = |kind| signal(kind).expect("a signal of Unix");
    let mut ended = on(SignalKind::terminate());
    let mut told = [on(SignalKind::user_defined1()), on(SignalKind::user_defined2())];
    loop {
        let mut open = Open::default();
        let listener = listen(address).await;
        let is_over = tokio::select! {
            () = server.accept(&listener, &mut open) => true,
            _ = ended.recv() => true,
            _ = told[0].recv() => false,
        };
        server.close(listener, &mut open);
        if is_over {
            return open.end().await;
        }
        deaf(open, &mut told[1]).await;
    }
}

/// Without listener, its connections ending one after another, until it is told to listen.
async fn deaf(open: Open, listen: &mut Signal) {
    let ending = tokio::spawn(open.end());
    listen.recv().await;
    drop(ending); // it goes on
}
