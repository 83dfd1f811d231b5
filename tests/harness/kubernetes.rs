//! A Kubernetes that lives as long as this value, and not longer than the process that holds it, however that ends:
//! `tests/rig/kubernetes` ends when its input does.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::eventually::within;
use super::programs::repository;
use super::tools::Tools;

/// How long it may take from nothing to ready, on a busy machine.
const START: Duration = Duration::from_secs(150);

pub(crate) struct Kubernetes {
    tools: Tools,
    child: Child,
    pipes: Mutex<Pipes>,
    folder: PathBuf,
}

/// Commands go in, and each is answered by a line.
struct Pipes {
    input: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
}

impl Kubernetes {
    /// `apiserver` or `cluster`, as `tests/rig/kubernetes` explains.
    pub(crate) async fn start(tools: Tools, what: &str) -> Kubernetes {
        let mut child = tools
            .command(repository().join("tests/rig/kubernetes"))
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash runs");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let pipes = Pipes { input: child.stdin.take(), answers };
        let folder = PathBuf::from(pipes.answer(&format!("Kubernetes ({what}) is ready")).await);
        assert!(folder.is_dir(), "Kubernetes does not start: {}", folder.display());
        Kubernetes { tools, child, pipes: Mutex::new(pipes), folder }
    }

    /// Gives a command of `tests/rig/kubernetes` and waits until it is done.
    pub(crate) async fn order(&self, command: &str) {
        let mut pipes = self.pipes.lock().await;
        let input = pipes.input.as_mut().expect("it is open until the end");
        writeln!(input, "{command}").expect("it listens");
        let answer = pipes.answer(command).await;
        assert_eq!(answer, "done", "{command}");
    }

    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Where its files are: `kubeconfig/`, `pki/`, `log/`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a component (`kube-apiserver`, `kubelet`, ...) has logged.
    pub(crate) fn log(&self, component: &str) -> String {
        std::fs::read_to_string(self.folder.join("log").join(component)).unwrap_or_default()
    }
}

impl Pipes {
    async fn answer(&self, what: &str) -> String {
        let answer = within(START, what, async || match self.answers.try_recv() {
            Err(mpsc::TryRecvError::Empty) => Err("no answer yet"),
            answered => Ok(answered),
        });
        answer.await.unwrap_or_else(|_| panic!("{what}: Kubernetes has ended, see above"))
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.pipes.get_mut().input = None;
        let _ = self.child.wait();
    }
}
