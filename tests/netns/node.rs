//! A node without Kubernetes: one private mount and network namespace, a bridge, and pods as network namespaces on it,
//! each with IPv4 and IPv6. Everything vanishes when the process that holds it ends.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::harness::eventually::{eventually, holds};
use crate::harness::process::Process;
use crate::harness::programs::program;

/// The user that the sidecar runs as, whose connections are not redirected.
pub(crate) const PROXY_USER: u32 = 1337;
/// The user that apps run as.
pub(crate) const APP_USER: u32 = 1000;

/// The distribution's: users of the pods may not run one that lies in somebody's home.
pub(super) const PYTHON: &str = "/usr/bin/python3";

pub(crate) struct Node {
    holder: Child,
    /// Readable by all users of the pods.
    folder: TempDir,
}

/// Where in the node a command runs.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Node,
    Pod(&'a str),
}

impl Node {
    /// # Panics
    /// In CI, if this user cannot make namespaces. Elsewhere that is a printed skip, `None`.
    pub(crate) async fn start() -> Option<Node> {
        let missing = missing();
        if let Some(missing) = missing {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            println!("skipped: {missing}");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("the folder is ours");
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up \
                      && ip link add br0 type bridge && ip addr add 10.99.0.1/16 dev br0 \
                      && ip addr add fd00:99::1/64 dev br0 nodad && ip link set br0 up \
                      && touch \"$1\" && exec sleep infinity";
        let ready = folder.path().join("ready");
        let holder = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let node = Node { holder, folder };
        eventually("the node stands", async || holds(ready.exists(), "no bridge yet")).await;
        // Users of the pods may not enter the folder that the programs were built in.
        fs::copy(program("gauze-proxy"), node.folder.path().join("gauze-proxy")).expect("a program");
        Some(node)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The sidecar's program, where every user may run it.
    pub(crate) fn proxy(&self) -> PathBuf {
        self.folder.path().join("gauze-proxy")
    }

    /// A pod's network, without anything in it; returns its addresses.
    pub(crate) fn pod(&self, name: &str, number: u8) -> [IpAddr; 2] {
        let v4 = Ipv4Addr::new(10, 99, 0, number);
        let v6 = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, u16::from(number));
        let script = format!(
            "ip netns add {name} && ip link add veth-{name} type veth peer name eth0 netns {name} \
             && ip link set veth-{name} master br0 up && cd / && ip -n {name} link set lo up && ip -n {name} link set eth0 up \
             && ip -n {name} addr add {v4}/16 dev eth0 && ip -n {name} addr add {v6}/64 dev eth0 nodad \
             && ip -n {name} route add default via 10.99.0.1 && ip -n {name} -6 route add default via fd00:99::1"
        );
        self.run(Place::Node, 0, "sh", &["-c", &script]);
        [v4.into(), v6.into()]
    }

    /// A command in the node's or a pod's namespaces, as this user; its process is the program itself.
    pub(crate) fn command(&self, place: Place<'_>, user: u32, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--net", "--"]);
        if let Place::Pod(name) = place {
            command.args(["ip", "netns", "exec", name]);
        }
        if user != 0 {
            let user = user.to_string();
            command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
        }
        command.arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// It fails.
    pub(crate) fn run(
        &self,
        place: Place<'_>,
        user: u32,
        program: impl AsRef<Path>,
        arguments: &[&str],
    ) -> String {
        let output = self.try_run(place, user, &program, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {problem}", program.as_ref().display());
        text
    }

    pub(crate) fn try_run(
        &self,
        place: Place<'_>,
        user: u32,
        program: impl AsRef<Path>,
        arguments: &[&str],
    ) -> Output {
        self.command(place, user, program).args(arguments).output().expect("nsenter runs")
    }

    /// Starts a Python script of this folder (`app`, `client`, `wire`); its first line says that it is ready.
    pub(crate) async fn script(
        &self,
        place: Place<'_>,
        user: u32,
        name: &str,
        arguments: &[&str],
    ) -> Process {
        let path = self.install(name);
        let mut command = self.command(place, user, PYTHON);
        command.arg("-u").arg(path).args(arguments);
        Process::spawn(name, command).await
    }

    /// Runs a Python script of this folder to its end and returns what it printed.
    pub(crate) fn call(&self, place: Place<'_>, user: u32, name: &str, arguments: &[&str]) -> String {
        let path = self.install(name).display().to_string();
        let arguments = [&[path.as_str()], arguments].concat();
        self.run(place, user, PYTHON, &arguments).trim().to_owned()
    }

    pub(super) fn install(&self, name: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns").join(format!("{name}.py"));
        let target = self.folder.path().join(format!("{name}.py"));
        fs::copy(source, &target).expect("a script of ours");
        target
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn missing() -> Option<&'static str> {
    let script = "unshare --mount --net true && command -v ip && command -v nsenter && command -v setpriv && test -x /usr/bin/python3";
    let found = Command::new("sh").args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found.is_ok_and(|status| status.success()) {
        true => None,
        false => Some("network namespaces need root, iproute2, util-linux and python3"),
    }
}
