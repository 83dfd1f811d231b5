//! psql against PostgreSQL: a protocol that nobody recognizes, whose client speaks first, and which may become TLS of its own
//! after its first bytes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Between, Certificate, Said, access_line, distributed, run, run_command};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::free_address;
use crate::harness::tools;

/// Whom PostgreSQL runs as where the tests run as root, whom it refuses.
const NOBODY: u32 = 65534;

/// Rows that are copied: some MiB.
const ROWS: usize = 100_000;

/// A database of a test's own, in a folder that goes with it.
struct Database {
    server: Child,
    folder: TempDir,
    _certificate: Certificate,
    address: SocketAddr,
    psql: PathBuf,
}

impl Database {
    /// # Panics
    /// In CI, if PostgreSQL is missing. Elsewhere that is a printed skip, `None`.
    async fn start() -> Option<Database> {
        let programs = programs()?;
        let psql = distributed("psql", "postgresql")?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let certificate = Certificate::self_signed("store");
        give(folder.path());
        for file in [certificate.folder.path(), certificate.chain().as_ref(), certificate.key().as_ref()] {
            give(file);
        }
        fs::set_permissions(certificate.key(), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("the file is ours");

        let mut initdb = unprivileged(&programs.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=gauze", "--encoding=UTF8", "--locale=C"]);
        initdb.arg("--pgdata").arg(&data);
        run_command(initdb).await.well();

        let address = free_address();
        let mut postgres = unprivileged(&programs.join("postgres"));
        postgres.arg("-D").arg(&data).arg("-k").arg(folder.path());
        postgres.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-F"]);
        postgres.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", certificate.chain())]);
        postgres.args(["-c", &format!("ssl_key_file={}", certificate.key())]);
        let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
        let server = postgres.stdin(Stdio::null()).stderr(log).spawn().expect("postgres runs");
        let database = Database { server, folder, _certificate: certificate, address, psql };
        eventually("PostgreSQL answers", async || {
            let said = database.query(address, "disable", "select 1").await;
            holds(said.out == "1\n", (said, fs::read_to_string(database.path("log"))))
        })
        .await;
        Some(database)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What psql is told about where to go, and then to do.
    fn arguments(&self, address: SocketAddr, tls: &str, commands: &[&str]) -> Vec<String> {
        let (host, port) = (address.ip(), address.port());
        let place = format!("host={host} port={port} user=gauze dbname=postgres sslmode={tls}");
        let mut arguments: Vec<String> =
            ["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"].map(str::to_owned).into();
        arguments.push(place);
        arguments.extend(commands.iter().flat_map(|command| ["--command".to_owned(), (*command).to_owned()]));
        arguments
    }

    async fn psql(&self, address: SocketAddr, tls: &str, commands: &[&str]) -> Said {
        let arguments = self.arguments(address, tls, commands);
        run(&self.psql, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    async fn query(&self, address: SocketAddr, tls: &str, query: &str) -> Said {
        self.psql(address, tls, &[query]).await
    }
}

impl Drop for Database {
    /// The master process ends all others with it (SIGQUIT: at once).
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

/// Debian keeps the programs of each release in a folder of its own, off the path.
fn programs() -> Option<PathBuf> {
    let releases = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found = releases.map(|release| release.path().join("bin"));
    let found = found.find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    found.or_else(|| tools::skip("PostgreSQL is missing: `apt-get install postgresql`, or tests/run"))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Gives a file to whom PostgreSQL runs as.
fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
}

/// A program that runs as nobody in particular.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(program);
    command
}

#[tokio::test]
async fn psql_queries_copies_and_cancels_in_plain_and_with_tls_of_its_own() {
    let Some(database) = Database::start().await else { return };
    for (port_name, port) in [("any", 5432), ("any", 80)] {
        let between = Between::start(database.address, port_name, port).await;
        for (way, address) in between.ways() {
            for tls in ["disable", "require"] {
                println!("{way}, port `{port_name}` {port}, sslmode={tls}");
                talks_as_it_says(&database, address, tls).await;
                copies_both_ways(&database, address, tls).await;
                cancels(&database, address, tls).await;
            }
        }
    }
}

/// The server says itself how it is talked to.
async fn talks_as_it_says(database: &Database, address: SocketAddr, tls: &str) {
    let query = "select ssl, coalesce(version, 'none') from pg_stat_ssl where pid = pg_backend_pid()";
    let wanted = if tls == "require" { "t|TLSv1.3\n" } else { "f|none\n" };
    assert_eq!(database.query(address, tls, query).await.well(), wanted);
    let failed = database.query(address, tls, "select 1/0").await;
    assert_eq!((failed.code, failed.err.as_str()), (Some(1), "ERROR:  division by zero\n"));
}

async fn copies_both_ways(database: &Database, address: SocketAddr, tls: &str) {
    let (file, back) = (database.path("rows"), database.path("back"));
    let rows: String =
        (0..ROWS).map(|n| format!("{n}\ta row that is neither short nor long: {n}\n")).collect();
    fs::write(&file, &rows).expect("the folder is ours");
    let commands = [
        "create temporary table copied (id int, line text)",
        &format!("\\copy copied from '{file}'"),
        "select count(*), sum(id) from copied",
        &format!("\\copy (select * from copied order by id) to '{back}'"),
    ];
    let counted = database.psql(address, tls, &commands).await.well();
    assert_eq!(counted, format!("{ROWS}|{}\n", ROWS * (ROWS - 1) / 2));
    let back = fs::read_to_string(back).expect("it was copied");
    assert!(back == rows, "{} of {} bytes", back.len(), rows.len());
}

/// Ctrl-C: psql asks for the end of its query on a second connection.
async fn cancels(database: &Database, address: SocketAddr, tls: &str) {
    let mut command = Command::new(&database.psql);
    command.args(database.arguments(address, tls, &["select pg_sleep(1000)"]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let sleeping = command.spawn().expect("psql runs");
    let count =
        "select count(*) from pg_stat_activity where query = 'select pg_sleep(1000)' and state = 'active'";
    eventually("the query runs", async || {
        let said = database.query(database.address, "disable", count).await;
        holds(said.out == "1\n", said)
    })
    .await;
    let interrupted = Command::new("kill").args(["-INT", &sleeping.id().to_string()]).status();
    assert!(interrupted.is_ok_and(|status| status.success()));
    let ended = tokio::task::spawn_blocking(|| sleeping.wait_with_output()).await.expect("no panic");
    let ended = ended.expect("psql ended");
    assert_eq!(
        String::from_utf8_lossy(&ended.stderr),
        "Cancel request sent\nERROR:  canceling statement due to user request\n"
    );
}

#[tokio::test]
async fn metrics_and_access_log_tell_of_psql_as_an_opaque_connection_whatever_is_inside() {
    let Some(database) = Database::start().await else { return };
    let between = Between::start(database.address, "any", 80).await;
    for (number, tls) in ["disable", "require"].into_iter().enumerate() {
        let asked = database.query(between.dial(), tls, "select repeat('x', 100000)").await.well();
        assert_eq!(asked.len(), 100_001);
        for sidecar in [&between.web, &between.store] {
            let line = access_line(sidecar, "the connection", |line| line["protocol"] == "tcp").await;
            assert_eq!((&line["tls"], &line["error"]), (&json!("mutual"), &Value::Null));
            let (received, sent) = (line["received"].as_u64(), line["sent"].as_u64());
            assert!(received > Some(50) && received < Some(10_000), "{line}");
            assert!(sent > Some(100_000) && sent < Some(120_000), "{line}");
            let streams = ["protocol=\"tcp\"", "tls=\"mutual\"", "error=\"\""];
            sidecar.counts("gauze_streams_total", &streams, (number + 1) as f64).await;
        }
    }
    // The client spoke: nobody waited for a server that might.
    assert_eq!(between.web.metric("gauze_detect_silent_total", &[]).await, 0.0);
}
