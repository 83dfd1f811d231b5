//! `gauze`: thin commands over the functions that the mesh itself runs. One command, one file.

mod admin; // asks sidecars and control planes
mod apply; // objects in and out
mod check; // whether cluster and mesh are well
mod cluster; // a cluster, and who of gauze runs there
mod completion; // for shells
mod demo; // the whole mesh on this machine
mod directory; // a directory of YAML, and who follows it
mod docs; // problem codes
mod exit; // exit codes
mod explain; // what happens to a request
mod files; // a directory of YAML
mod get; // objects and their conditions
mod inject; // the sidecar in files
mod metrics; // what sidecars count
mod output; // tables, JSON, YAML
mod pod; // what commands want to know of a pod
mod proxy; // what one sidecar knows
mod run; // control plane and sidecar, in this program
mod source; // where a command looks
mod split; // weights
mod status; // one screen about the mesh
mod table; // columns
mod terminal; // colours, and whether anybody is looking
mod version; // which release

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::exit::Exit;

/// A service mesh that one can hold in one's hand.
#[derive(Parser)]
#[command(name = "gauze", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
struct Gauze {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: source::Place,
}

const AFTER_HELP: &str =
    "Start with `gauze demo`: a whole mesh on this machine, without root and without a cluster.
Exit codes: 0 fine, 1 found problems, 2 wrong usage, 3 cannot reach, 4 timed out.";

#[derive(Subcommand)]
enum Command {
    /// Run a whole mesh on this machine: control plane, sidecars, a small shop and its load
    Demo(demo::Arguments),
    /// Check a cluster, and the mesh in it
    Check(check::Arguments),
    /// Show the mesh on one screen: releases, replicas, sidecars, certificates, refusals
    Status(status::Arguments),
    /// Show objects, whether they are accepted, and whether they are live
    Get(get::Arguments),
    /// Put objects into the directory that the control plane follows
    Apply(apply::Apply),
    /// Take an object out of the directory
    Delete(apply::Delete),
    /// Show TrafficSplits, and move their weights
    Split(split::Arguments),
    /// Explain what happens to a request, step by step
    Explain(explain::Arguments),
    /// Look into one sidecar
    Proxy(proxy::Arguments),
    /// Put the sidecar into pods and pod templates of a file, as the cluster would
    Inject(Box<inject::Arguments>),
    /// Explain a problem code, and how to solve the problem
    Docs(docs::Arguments),
    /// Print what makes a shell complete the words of `gauze`
    Completion(completion::Arguments),
    /// Print the releases of this program and of the control plane
    Version(version::Arguments),
    /// Serve as one of the shop's apps
    #[command(hide = true)]
    DemoApp(demo::app::Arguments),
    /// Serve as the shop's load, in a pod
    #[command(hide = true)]
    DemoLoad(demo::load_pod::Arguments),
    /// Read the ledger of the app or load in whose pod this runs
    #[command(hide = true)]
    DemoLedger(demo::load_pod::Ledger),
    /// Serve as the control plane
    #[command(hide = true)]
    RunControlPlane(run::Arguments),
    /// Serve as a sidecar
    #[command(hide = true)]
    RunProxy(run::Arguments),
}

fn main() -> ExitCode {
    let Gauze { command, place } = Gauze::parse();
    let outcome = match command {
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Check(arguments) => block_on(check::run(arguments, &place)),
        Command::Status(arguments) => block_on(status::run(arguments, &place)),
        Command::Get(arguments) => block_on(get::run(arguments, &place)),
        Command::Apply(arguments) => apply::apply(&arguments, &place),
        Command::Delete(arguments) => apply::delete(&arguments, &place),
        Command::Explain(arguments) => block_on(explain::run(arguments, &place)),
        Command::Proxy(arguments) => block_on(proxy::run(arguments, &place)),
        Command::Inject(arguments) => block_on(inject::run(*arguments, &place)),
        Command::Docs(arguments) => docs::run(arguments),
        Command::Completion(arguments) => completion::run(&arguments, Gauze::command()),
        Command::Version(arguments) => block_on(version::run(arguments, &place)),
        Command::Split(arguments) => block_on(split::run(arguments, &place)),
        Command::DemoApp(arguments) => block_on(demo::app::run(arguments)),
        Command::DemoLoad(arguments) => block_on(demo::load_pod::run(arguments)),
        Command::DemoLedger(arguments) => block_on(demo::load_pod::ledger(arguments)),
        Command::RunControlPlane(arguments) => run::control_plane(arguments),
        Command::RunProxy(arguments) => return run::proxy(arguments),
    };
    exit::report(outcome)
}

/// Runs one command to its end on this thread.
fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Gauze::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_readme_are_understood() {
        for line in [
            "gauze demo",
            "gauze demo --story --json",
            "gauze get",
            "gauze get split cart -n shop -o yaml",
            "gauze split set cart cart-v1=50 cart-v2=50",
            "gauze explain shop/web GET http://cart/items -H x-user:7",
            "gauze proxy clusters web",
            "gauze docs M3003",
            "gauze inject deployment.yaml --namespace-label gauze.dev/inject=enabled",
            "gauze inject - --explain",
            "gauze inject --explain shop/web --context dev",
            "gauze apply -f route.yaml --directory elsewhere",
            "gauze --context dev proxy clusters shop/web",
            "gauze proxy log web -n shop --context dev --level debug",
            "gauze demo --directory elsewhere",
        ] {
            assert!(Gauze::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
