//! Every command in README and docs runs, and does what the page says.

pub(crate) mod objects; // what the pages show as YAML

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::eventually::{eventually, holds};
use crate::harness::programs::{program, repository};

/// Set-up commands: proven elsewhere, the first by `demo::…`, the second by running this very test.
const SET_UP: [&str; 3] = ["cargo demo", "cargo demo --story", "tests/run"];

#[tokio::test]
async fn every_command_of_the_pages_runs_beside_a_demo() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Demo::start(folder.path());
    eventually("the demo carries traffic", async || {
        let output = gauze(folder.path(), &["get", "pods"]);
        holds(output.is_ok(), output)
    })
    .await;
    let commands = commands();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
        eventually(&command, async || gauze(folder.path(), &arguments)).await;
    }
    demo.end().await;
}

/// The demo, on addresses that no other test uses.
struct Demo(Child);

impl Demo {
    fn start(folder: &Path) -> Demo {
        let arguments = ["demo", "--address-base", "127.3", "--duration", "300s", "--json"];
        let mut command = Command::new(program("gauze"));
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        Demo(command.spawn().expect("gauze runs"))
    }

    async fn end(&mut self) {
        let asked = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "the demo ended before its time");
        eventually("the demo ends on Ctrl-C", async || self.0.try_wait().expect("a child").ok_or("running"))
            .await;
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All lines `$ …` of the console blocks of our pages.
fn commands() -> Vec<String> {
    let docs = fs::read_dir(repository().join("docs")).expect("docs/ is there");
    let pages = docs.filter_map(|entry| Some(entry.ok()?.path()));
    let pages = pages.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut commands = Vec::new();
    for page in pages.chain([repository().join("README.md")]) {
        let text = fs::read_to_string(&page).expect("a page");
        let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        for command in found.into_iter().filter(|command| !SET_UP.contains(command)) {
            assert!(
                command.starts_with("gauze "),
                "{}: `{command}` is not tested by anything",
                page.display()
            );
            commands.push(command.to_owned());
        }
    }
    commands
}

fn gauze(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program("gauze")).args(arguments).current_dir(folder).output();
    let output = output.map_err(|error| error.to_string())?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(format!("{}: {text}", output.status)) }
}
