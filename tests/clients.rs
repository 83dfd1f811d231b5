//! Programs that others wrote, as clients and servers of two real sidecars: what their authors meant, not what we did,
//! is what must pass.

mod curl; // HTTP/1.0, HTTP/1.1 and HTTP/2 with prior knowledge
mod grpc; // grpcio: streams, trailers, deadlines, cancellation
mod h2spec; // each case of the conformance suite of HTTP/2
mod mail; // SMTP: a server that speaks first
mod postgres; // psql, in plain and with TLS of its own
mod websockets; // a connection that is no longer HTTP

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};
use crate::harness::process::Process;
use crate::harness::programs::repository;
use crate::harness::{eventually, tools};

/// `web` dials `store`, each behind a sidecar that writes an access log; the app of `store` may be any program.
struct Between {
    mesh: Mesh,
    web: Sidecar,
    store: Sidecar,
}

impl Between {
    /// The Service's port has this name and number, which declare what is spoken there (or, `any` at 80, nothing).
    async fn start(app: SocketAddr, port_name: &str, port: u16) -> Between {
        let mesh = Mesh::start().await;
        let address = free_address();
        let inbound = format!("{address}={app}");
        let arguments = ["--inbound", &inbound, "--access-log", "json"];
        let options = SidecarOptions { arguments: &arguments, ..SidecarOptions::default() };
        let store = mesh.pod_at(address, "store-0", "store", options).await;
        let mut service = mesh.service_address();
        service.set_port(port);
        mesh.service("store", service, port_name, &[&store]);
        let options =
            SidecarOptions { dials: &[service], arguments: &arguments[2..], ..SidecarOptions::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        store.ready().await;
        web.ready().await;
        Between { mesh, web, store }
    }

    /// Where the app of `web` dials.
    fn dial(&self) -> SocketAddr {
        self.web.outbound[0]
    }

    /// Where a client dials that has no sidecar.
    fn outside(&self) -> SocketAddr {
        self.store.address
    }

    /// Both ways to the app: through two sidecars with mutual TLS between them, and from outside the mesh through one.
    fn ways(&self) -> [(&'static str, SocketAddr); 2] {
        [("through two sidecars", self.dial()), ("from outside the mesh", self.outside())]
    }
}

/// The next line of a sidecar's access log of which this holds.
async fn access_line(sidecar: &Sidecar, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{} tells of {what}", sidecar.pod), async || {
        let lines = sidecar.process.new_lines();
        let mut lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(&is_it).ok_or("no such line yet")
    })
    .await
}

/// A self-signed certificate of an app's own, in files.
struct Certificate {
    folder: TempDir,
    chain: String,
    key: String,
}

impl Certificate {
    fn self_signed(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("the folder is ours");
            path.display().to_string()
        };
        let chain = file("chain.pem", made.cert.pem());
        let key = file("key.pem", made.signing_key.serialize_pem());
        Certificate { folder, chain, key }
    }

    fn chain(&self) -> &str {
        &self.chain
    }

    fn key(&self) -> &str {
        &self.key
    }
}

/// What a program said until it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// Its output, if it succeeded.
    ///
    /// # Panics
    /// It failed.
    fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }
}

/// A client that hangs is ended after so many seconds: longer than any wait of a test, so that what is seen is its own word.
const HANGS: &str = "100";

/// Runs a program to its end. Apps in this process go on meanwhile.
async fn run(program: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new("timeout");
    command.arg(HANGS).arg(program).args(arguments);
    run_command(command).await
}

async fn run_command(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let output = output.await.expect("no panic").expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A program of the distribution.
///
/// # Panics
/// In CI, if it is missing. Elsewhere that is a printed skip, `None`.
fn distributed(name: &str, package: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PATH").into_iter().flat_map(|path| {
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        folders
    });
    let found = found.map(|folder| folder.join(name)).find(|program| program.exists());
    found.or_else(|| tools::skip(&format!("{name} is missing: `apt-get install {package}`, or tests/run")))
}

/// A Python with grpcio, websockets and aiosmtpd.
///
/// # Panics
/// In CI, if there is none. Elsewhere that is a printed skip, `None`.
fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let cache = std::env::var_os("GAUZE_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/gauze")));
        let candidates = [PathBuf::from("python3"), cache.unwrap_or_default().join("python/bin/python3")];
        candidates.into_iter().find(|python| {
            let mut command = Command::new(python);
            command.args(["-c", "import grpc, websockets, aiosmtpd"]).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    });
    let found = found.as_deref();
    found.or_else(|| tools::skip("no Python has grpcio, websockets and aiosmtpd: tests/run installs them"))
}

fn script(name: &str) -> PathBuf {
    repository().join("tests/clients").join(name)
}

/// A server of ours in Python: prints `{"listening": {"app": "IP:PORT"}}` first.
async fn serve(python: &Path, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(python);
    command.arg("-u").arg(script(name)).args(arguments);
    Process::spawn(name, command).await
}

/// Runs a client of ours in Python, whose output is one JSON value.
async fn ask(python: &Path, name: &str, arguments: &[&str]) -> Value {
    let script = script(name);
    let arguments = [&["-u", script.to_str().expect("a plain path")], arguments].concat();
    let said = run(python, &arguments).await;
    assert_eq!(said.code, Some(0), "{name} {arguments:?}:\n{}\n{}", said.out, said.err);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{name}: {error}: {}", said.out))
}
