//! `gauze version`: of this program, and of the control plane that it would ask.

use serde_json::json;

use crate::exit::Exit;
use crate::output::{self, Format};
use crate::source::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Of this program only
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    output: output::Output,
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let control_plane = match arguments.client {
        true => Ok(None),
        false => control_plane(place).await,
    };
    if let Err(why) = &control_plane {
        eprintln!("control plane not asked: {why:#}");
    }
    let control_plane = control_plane.unwrap_or_default();
    match arguments.output.format {
        Format::Table => {
            println!("gauze {version}");
            if let Some(control_plane) = control_plane {
                println!("control plane {control_plane}");
            }
        }
        format => output::print_value(format, &json!({ "gauze": version, "controlPlane": control_plane }))?,
    }
    Ok(Exit::Fine)
}

/// The release of the control plane that answers; `None` if none runs in this directory.
async fn control_plane(place: &Place) -> anyhow::Result<Option<String>> {
    let Some(control_plane) = place.source().await?.control_plane().await? else { return Ok(None) };
    let about = control_plane.get_json("/about").await?;
    Ok(about["version"].as_str().map(str::to_owned))
}
