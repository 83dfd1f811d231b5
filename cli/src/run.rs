//! The control plane and the sidecar inside this program, so that one file is the whole mesh.
//! They are the same libraries that `gauze-control-plane` and `gauze-proxy` run.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::demo::{end_with_parent, parent_is_gone};
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
    let with_parent = arguments.with_parent;
    let settings = gauze_control_plane::Settings::parse_from(arguments.flags("gauze-control-plane"));
    let logging = gauze_control_plane::logging::Logging::start(&settings.log_level);
    crate::block_on(async {
        let shutdown = async {
            if with_parent {
                parent_is_gone().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        gauze_control_plane::run(settings, logging, shutdown).await?;
        Ok(Exit::Fine)
    })
}

/// Runs a sidecar until it is ended.
pub(crate) fn proxy(arguments: Arguments) -> ExitCode {
    if arguments.with_parent {
        end_with_parent();
    }
    gauze_proxy::command(arguments.flags("gauze-proxy"))
}

impl Arguments {
    /// The command line of a program of that name.
    fn flags(self, name: &str) -> Vec<OsString> {
        std::iter::once(OsString::from(name)).chain(self.arguments).collect()
    }
}
