//! Apps and callers in pods of a cluster. What reached an app, and what a caller was told, stands in files on the node,
//! which outlive the pods. `gauze-test-pod` is the program; here it is started, and its ledgers are read.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use gauze_tests::client::Protocol;
use gauze_tests::load::Told;
use gauze_tests::record::Record;
use gauze_tests::server::{Came, Open, Server, read_ledger};
use tokio::net::TcpListener;

use super::cluster::{Cluster, REGISTRY, TAG};
use super::eventually::{holds, within};
use super::objects;

/// How many requests a second a caller sends: what a debug build carries beside other tests.
const RATE: u32 = 36;
/// For what takes as long as the machine needs.
const LONG: Duration = Duration::from_secs(180);

/// How an app of these tests ends when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// It finishes what it holds.
    Finishes,
    /// It exits at once.
    Exits,
}

/// A namespace of injected pods, and the ledgers of these.
pub(crate) struct Ledgers<'c> {
    pub cluster: &'c Cluster,
    pub namespace: &'c str,
    /// Of the node.
    folder: String,
}

impl<'c> Ledgers<'c> {
    /// Makes the namespace, with a Service `cart` in front of a Deployment of the same name, and waits until it is ready.
    pub(crate) async fn open(
        cluster: &'c Cluster,
        namespace: &'c str,
        replicas: u32,
        manners: Manners,
    ) -> Ledgers<'c> {
        let folder = match cluster {
            Cluster::Own(kubernetes) => kubernetes.folder().join("ledgers").join(namespace),
            Cluster::Existing(_) => Path::new("/tmp/gauze-ledgers").join(namespace),
        };
        let shop = Ledgers { cluster, namespace, folder: folder.display().to_string() };
        let injected = "metadata: {labels: {gauze.dev/inject: enabled}, ";
        cluster.apply(&objects::namespace(namespace, &[]).replacen("metadata: {", injected, 1)).await;
        cluster.apply(&(shop.service() + &shop.deployment(replicas, manners))).await;
        shop.rolled_out().await;
        shop
    }

    /// Waits until the Deployment is what it should be.
    pub(crate) async fn rolled_out(&self) {
        self.kubectl(&["rollout", "status", "deployment/cart", "--timeout=120s"]).await;
    }

    /// What kubectl says of this namespace.
    ///
    /// # Panics
    /// With its complaint, and the pods.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = format!("--namespace={}", self.namespace);
        let done = self.cluster.kubectl(&[arguments, &[&namespace]].concat()).await;
        match done {
            Ok(said) => said,
            Err(error) => {
                let pods = self.cluster.kubectl(&["describe", "pods", &namespace]).await;
                panic!("{arguments:?}: {error}\n{}", pods.unwrap_or_default())
            }
        }
    }

    fn service(&self) -> String {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: {}}}\nspec:\n  selector: {{app: cart}}\n  ports:\n  \
             - {{name: http, port: 80, targetPort: 8080}}\n  - {{name: tcp, port: 9000, targetPort: 9000}}\n",
            self.namespace
        )
    }

    fn deployment(&self, replicas: u32, manners: Manners) -> String {
        let abrupt = if manners == Manners::Exits { ", --abrupt" } else { "" };
        let arguments = format!(
            "app, --name=cart, --ledger=/ledger/app.$(POD_NAME), \"--listen=[::]:8080\", \"--listen=[::]:9000\", --delay=20{abrupt}"
        );
        let probe = "\n    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}";
        let pod = self.pod(&arguments, probe).replace('\n', "\n    ");
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: cart, namespace: {}}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: cart}}}}\n  strategy: {{rollingUpdate: {{maxSurge: 100%, maxUnavailable: 0}}}}\n  \
             template:\n    metadata: {{labels: {{app: cart}}}}\n    {pod}\n",
            self.namespace
        )
    }

    /// The spec of a pod with these arguments.
    fn pod(&self, arguments: &str, more: &str) -> String {
        format!(
            "spec:\n  automountServiceAccountToken: false\n  enableServiceLinks: false\n  terminationGracePeriodSeconds: 30\n  containers:\n  \
             - name: app\n    image: {REGISTRY}/gauze-test-pod:{TAG}\n    imagePullPolicy: Never\n    args: [{arguments}]\n    \
             env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]\n    \
             volumeMounts: [{{name: ledger, mountPath: /ledger}}]{more}\n  \
             volumes: [{{name: ledger, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]",
            self.folder
        )
    }

    /// Starts a caller, whose requests have this name, and waits until it has some answers.
    pub(crate) async fn call(&self, name: &str) {
        let namespace = self.namespace;
        let arguments = format!(
            "load, --name={name}, --ledger=/ledger/load.{name}, \"--requests=cart.{namespace}:80\", \"--lines=cart.{namespace}:9000\", \
             --rate={RATE}"
        );
        let pod = self.pod(&arguments, "");
        let caller = format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n{pod}\n"
        );
        self.cluster.apply(&caller).await;
        self.answers_more(100).await;
    }

    /// Waits until callers were told of so many more requests, whatever it was.
    pub(crate) async fn answers_more(&self, more: usize) {
        let goal = self.records().await.len() + more;
        within(LONG, &format!("{}: {goal} answers", self.namespace), async || {
            let came = self.records().await.len();
            holds(came >= goal, came)
        })
        .await;
    }

    /// Ends a caller, which waits for its last answers.
    pub(crate) async fn hang_up(&self, name: &str) {
        self.kubectl(&["delete", "pod", name, "--timeout=180s"]).await;
    }

    /// What callers were told so far.
    pub(crate) async fn records(&self) -> Vec<Record> {
        Record::read(&self.read("load").await)
    }

    /// What reached apps so far.
    pub(crate) async fn came(&self) -> Came {
        read_ledger(&self.read("app").await)
    }

    /// All ledgers of apps or of loads.
    async fn read(&self, kind: &str) -> String {
        let Cluster::Own(_) = self.cluster else {
            let script = format!("cat {}/{kind}.* 2>/dev/null || true", self.folder);
            return self.cluster.run(&["sh", "-c", &script]).await.expect("the node has a shell");
        };
        let Ok(files) = fs::read_dir(&self.folder) else { return String::new() };
        let files = files.filter_map(Result::ok).filter(|file| {
            file.file_name().to_str().is_some_and(|name| name.starts_with(&format!("{kind}.")))
        });
        files.map(|file| fs::read_to_string(file.path()).expect("a ledger")).collect()
    }
}

/// Milliseconds since 1970, as a [`Record`] has them.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500,000,000")
}

/// What became of all requests of a load.
#[derive(Default)]
pub(crate) struct Account {
    pub sent: usize,
    pub answered: usize,
    /// Their callers were told that they failed.
    pub told: Vec<String>,
    /// Failed although nothing of them had reached an app, or nobody said what became of them.
    pub lost: Vec<String>,
    pub twice: Vec<String>,
}

// Whether a request may have failed so, given how often it had arrived at an app.

/// An app that finishes what it holds answers everything; a line may still cross the end of its connection.
pub(crate) fn crosses_the_end(record: &Record, _: usize) -> bool {
    record.protocol == Protocol::Opaque && record.told == Told::BrokenOff
}

/// While a Service has no endpoint everybody is told at once, and nothing reaches an app.
pub(crate) fn found_nobody(record: &Record, came: usize) -> bool {
    let is_ours = matches!(&record.told, Told::Refused(code) if code.starts_with("M30") && code != "M3010");
    crosses_the_end(record, came) || (came == 0 && is_ours)
}

/// What an app had received when it died, if only in its socket, nobody can give back.
pub(crate) fn died_with_the_app(record: &Record, came: usize) -> bool {
    let is_reset = record.told == Told::Refused("M3010".to_owned());
    crosses_the_end(record, came) || is_reset || (came > 0 && record.told == Told::BrokenOff)
}

impl Account {
    /// Balances what callers were told against what reached the apps.
    pub(crate) fn of<'r>(
        records: impl IntoIterator<Item = &'r Record>,
        came: &Came,
        may: impl Fn(&Record, usize) -> bool,
    ) -> Account {
        let mut account = Account::default();
        for record in records {
            account.sent += 1;
            let (arrived, executed) = came.get(&record.id).copied().unwrap_or_default();
            let line = || format!("{} {arrived}/{executed} {:?} {}", record.id, record.told, record.what);
            if arrived > 1 || executed > 1 {
                account.twice.push(line());
            }
            match record.told {
                Told::Answer if executed > 0 => account.answered += 1,
                Told::Answer | Told::Nothing => account.lost.push(line()),
                _ if may(record, arrived) => account.told.push(line()),
                _ => account.lost.push(line()),
            }
        }
        account
    }

    /// # Panics
    /// Something was lost, or came twice.
    pub(crate) fn assert_nothing_lost(&self, what: &str) {
        println!("{what}: {self}");
        for line in self.told.iter().take(5) {
            println!("    told: {line}");
        }
        let sample = |lines: &[String]| lines.iter().take(20).cloned().collect::<Vec<_>>();
        assert!(
            self.lost.is_empty() && self.twice.is_empty(),
            "{what}: {self}; lost {:#?}, twice {:#?}",
            sample(&self.lost),
            sample(&self.twice)
        );
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { sent, answered, told, lost, twice } = self;
        let [told, lost, twice] = [told, lost, twice].map(Vec::len);
        write!(f, "{sent} sent, {answered} answered, {told} told as failed, {lost} lost, {twice} twice")
    }
}

/// What the ledgers of an app that finishes rest on. One thread, so that nothing looks for newcomers in between.
#[tokio::test]
async fn an_app_that_ends_serves_whoever_the_kernel_has_accepted_for_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let server = Server::new("app", &folder.path().join("ledger"), Duration::ZERO);
    let mut open = Open::default();
    assert!(server.accept(&listener, &mut open).now_or_never().is_none(), "nobody has come yet");

    let mut caller = std::net::TcpStream::connect(address).expect("the kernel accepts");
    caller.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").expect("it takes a request");
    server.close(listener, &mut open);
    open.end().await;
    let mut answer = String::new();
    caller.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
