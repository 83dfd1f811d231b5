//! `gauze version`: of this program, and of what it talks to.

use serde_json::json;

use crate::exit::Exit;
use crate::output::{self, Format};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: output::Output,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    match arguments.output.format {
        Format::Table => println!("gauze {version}"),
        format => output::print_value(format, &json!({ "gauze": version }))?,
    }
    Ok(Exit::Fine)
}
