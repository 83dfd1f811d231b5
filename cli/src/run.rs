//! The control plane and the sidecar inside this program, so that one file is the whole mesh.
//! They are the same libraries that `gauze-control-plane` and `gauze-proxy` run.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::demo::end_with_parent;
use crate::exit::Exit;

/// What a server is started with.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End when stdin ends: the parent is gone
    #[arg(long)]
    with_parent: bool,
    /// The flags of the server
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// Runs the control plane until it is ended.
pub(crate) fn control_plane(arguments: Arguments) -> anyhow::Result<Exit> {
    let flags = arguments.begin("gauze-control-plane");
    let settings = gauze_control_plane::Settings::parse_from(flags);
    let logging = gauze_control_plane::logging::Logging::start(&settings.log_level);
    crate::block_on(async {
        gauze_control_plane::run(settings, logging, std::future::pending()).await?;
        Ok(Exit::Fine)
    })
}

/// Runs a sidecar until it is ended.
pub(crate) fn proxy(arguments: Arguments) -> ExitCode {
    gauze_proxy::command(arguments.begin("gauze-proxy"))
}

impl Arguments {
    /// The arguments of a program of that name.
    fn begin(self, name: &str) -> Vec<OsString> {
        if self.with_parent {
            end_with_parent();
        }
        std::iter::once(OsString::from(name)).chain(self.arguments).collect()
    }
}
