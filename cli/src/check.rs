//! `gauze check`: whether a cluster can carry the mesh, and whether the mesh in it is well. What is known is gathered
//! first ([`facts`]); each judgement is a pure function of that.

mod control_plane; // is it there, ready, trusted
mod data_plane; // has every pod the sidecar that it should have
mod definitions; // the kinds of objects
pub(crate) mod facts; // what is known of a cluster
mod gather; // asks the cluster
mod ground; // can this cluster carry a mesh
mod report; // what it looks like

use std::time::{Duration, Instant};

use crate::exit::Exit;
use crate::output::{self, Format};
use crate::source::Place;
use crate::terminal;
pub(crate) use control_plane::duration;
pub(crate) use data_plane::{Count, refused};
use facts::Facts;
pub(crate) use gather::gather;
use report::{Report, Section};

/// What to look at, and how it is printed.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 no errors (▲ warnings may be there), 1 errors (✖), 3 the cluster cannot be asked."
)]
pub(crate) struct Arguments {
    /// Before an installation: whether the cluster can carry the mesh, and you may install it
    #[arg(long)]
    pre: bool,
    #[command(flatten)]
    output: output::Output,
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let cluster = place.cluster().await?;
    let facts = gather(&cluster, arguments.pre).await?;
    let report = judge(&facts, arguments.pre);
    let took = Duration::from_millis(began.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
    match arguments.output.format {
        Format::Table => print!("{}", report.page(took, terminal::output())),
        format => output::print_value(format, &report.to_json())?,
    }
    Ok(if report.errors() > 0 { Exit::Problems } else { Exit::Fine })
}

/// All that is to be said of these facts.
pub(crate) fn judge(facts: &Facts, pre: bool) -> Report {
    let mut ground = Section::new("cluster");
    ground.extend(ground::version(facts));
    ground.extend(ground::permissions(facts, pre));
    ground.extend(ground::socket_load_balancing(facts));
    ground.extend(ground::pod_security(facts));
    ground.extend(definitions::gateway_api(facts));
    if pre {
        ground.extend(control_plane::before(facts));
        return Report { sections: vec![ground] };
    }
    let mut control_plane = Section::new("control plane");
    control_plane.extend(control_plane::replicas(facts));
    let mut data_plane = Section::new("data plane");
    if facts.is_installed() {
        control_plane.extend(control_plane::answers(facts));
        control_plane.extend(control_plane::certificates(facts));
        control_plane.extend(definitions::ours(facts));
        control_plane.extend(control_plane::webhook(facts));
        control_plane.extend(control_plane::conversion(facts));
        control_plane.extend(control_plane::trust(facts));
        data_plane.extend(data_plane::sidecars_missing(facts));
        data_plane.extend(data_plane::connections(facts));
        data_plane.extend(data_plane::refusals(facts));
        data_plane.extend(data_plane::releases(facts));
        data_plane.extend(data_plane::outside_mesh_networks(facts));
    } else {
        data_plane.extend(data_plane::left_behind(facts));
    }
    Report { sections: vec![ground, control_plane, data_plane] }
}
