//! `gauze demo`: the real control plane, real sidecars and a small shop as child processes of this one,
//! with load, from a directory of YAML. No root, no cluster, nothing left behind.

pub(crate) mod app; // one app of the shop
mod call; // what the apps say to each other
mod children; // processes that cannot outlive this one
mod client; // a client in three protocols
mod edges; // who calls whom
mod events; // who was ejected, who was denied
mod latency; // how many took how long
mod ledger; // what an app received
mod load; // load from outside the mesh
pub(crate) mod load_pod; // the load as a pod of a cluster
mod mesh; // everything that runs
mod objects; // the shop's YAML
mod pods; // what the YAML says about pods
mod screen; // what it looks like
mod sidecar; // one pod: app and sidecar
mod signals; // when it ends
mod story; // the promises, one after another
mod summary; // what it ends with
mod wait; // until something is so

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::exit::Exit;
use crate::terminal;
pub(crate) use children::{end_with_parent, parent_is_gone};
use load::Load;
use mesh::Mesh;
use screen::Screen;
pub(crate) use sidecar::PodCard;
use summary::{Step, Summary};

/// How the demo runs.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where its objects live; edit them while it runs
    #[arg(long, default_value = "gauze-demo", value_name = "DIR")]
    directory: PathBuf,
    /// Write all objects anew, also those that were edited
    #[arg(long)]
    reset: bool,
    /// First two bytes of the pods' loopback addresses, when the objects are written
    #[arg(long, default_value = objects::ADDRESS_BASE, value_parser = objects::parse_address_base, value_name = "127.N")]
    address_base: String,
    /// Walk through the promises, check each, and end
    #[arg(long)]
    story: bool,
    /// End after this time (10s, 2m); without it at Ctrl-C
    #[arg(long, value_parser = parse_duration, value_name = "TIME", conflicts_with = "story")]
    duration: Option<Duration>,
    /// Requests per second [default: 250, in the story up to 500]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Makes the load's mix of protocols repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Life of the sidecars' certificates
    #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "TIME", conflicts_with = "story")]
    certificate_life: Duration,
    /// How long the control plane is away in the story
    #[arg(long, default_value = "20s", value_parser = parse_duration, value_name = "TIME", requires = "story")]
    outage: Duration,
    /// How long certificates rotate in the story, at least
    #[arg(long, default_value = "20s", value_parser = parse_duration, value_name = "TIME", requires = "story")]
    rotation_for: Duration,
    /// Tell only these steps of the story
    #[arg(long = "step", value_parser = story::STEPS, requires = "story", value_name = "NAME")]
    steps: Vec<String>,
    /// Print one JSON object at the end, and nothing else on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the shop's objects into a directory: an example for the tests of other commands.
#[cfg(test)]
pub(crate) fn shop_files(directory: &std::path::Path) -> anyhow::Result<usize> {
    objects::write(directory, objects::ADDRESS_BASE, false)
}

const RATE: u32 = 250;
/// Where the story begins, which goes faster where the machine is at ease.
const STORY_RATE: u32 = 200;

/// Runs the demo until it is over, its time has come, or somebody ends it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let begin = Instant::now();
    let told_to_stop = signals::told_to_stop()?;
    tokio::pin!(told_to_stop);
    let mut screen = Screen::new(arguments.json);
    let mut mesh = tokio::select! {
        mesh = start(&arguments, &mut screen) => mesh?,
        () = &mut told_to_stop => return Ok(Exit::Fine),
    };
    screen.say(&format!("  started in {:.1} s", begin.elapsed().as_secs_f64()));
    let load = start_load(&arguments, &mesh)?;
    let played = tokio::select! {
        played = play(&arguments, &mut mesh, &load, &mut screen) => played,
        () = &mut told_to_stop => Ok(Vec::new()),
    };
    let summary = match played {
        Ok(steps) => Ok(summarize(&arguments, &mut mesh, &load, steps, begin).await),
        Err(error) => {
            mesh.keep_logs();
            Err(error)
        }
    };
    drop(load);
    mesh.stop().await;
    let summary = summary?;
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else if arguments.story {
        let word = if summary.ok { "every promise was kept" } else { "a promise was broken" };
        println!("  {word}, in {:.0} s", summary.seconds);
    } else {
        println!("\n  ended; the objects stay in {}", arguments.directory.display());
    }
    Ok(if summary.ok { Exit::Fine } else { Exit::Problems })
}

async fn start(arguments: &Arguments, screen: &mut Screen) -> anyhow::Result<Mesh> {
    let directory = &arguments.directory;
    objects::sweep(directory, &story::FILES);
    let written = objects::write(directory, &arguments.address_base, arguments.reset)?;
    let style = terminal::output();
    screen.say(&format!(
        "{} {}: a whole mesh on this machine, without root and without a cluster. Ctrl-C ends everything.\n",
        style.bold("gauze"),
        env!("CARGO_PKG_VERSION"),
    ));
    let life = if arguments.story { story::LONG_LIFE } else { arguments.certificate_life };
    let mesh = Mesh::start(directory, life).await?;
    let whose = if written > 0 { "written now" } else { "as you left them" };
    screen.say(&format!(
        "  control plane   {}   follows {}/*.yaml ({whose})",
        mesh.control_plane_address(),
        directory.display()
    ));
    for pod in &mesh.pods {
        let pod = &pod.reading.pod;
        screen.say(&format!(
            "  {:<14}  {}   {} {}, as {}/{}",
            pod.name, pod.address, pod.app, pod.version, pod.namespace, pod.service_account
        ));
    }
    screen.say("  client          outside the mesh: HTTP/1.1, HTTP/2 and gRPC to web");
    if !arguments.story {
        screen.say(&what_to_try(directory));
    }
    Ok(mesh)
}

fn what_to_try(directory: &std::path::Path) -> String {
    let option = if directory.as_os_str() == "gauze-demo" {
        String::new()
    } else {
        format!(" --directory {}", directory.display())
    };
    let split = directory.join(objects::SPLIT_FILE);
    let mut text = "\n  Try, in a second terminal:\n".to_owned();
    for (command, what) in [
        (format!("gauze split set cart v1=50 v2=50{option}"), "watch the traffic move"),
        (format!("gauze get{option}"), "what is there, and whether it is live"),
        (format!("gauze explain shop/web GET http://cart/{option}"), "why a request goes where it goes"),
        (format!("gauze proxy clusters web{option}"), "what a sidecar knows"),
        (format!("$EDITOR {}", split.display()), "the control plane follows the file"),
    ] {
        text += &format!("    {command:<44}  {what}\n");
    }
    text
}

fn start_load(arguments: &Arguments, mesh: &Mesh) -> anyhow::Result<Load> {
    let rate = arguments.rate.unwrap_or(if arguments.story { STORY_RATE } else { RATE });
    let web = mesh.pod("web", "v1")?.card.address;
    Ok(Load::start(web, "web", rate, arguments.seed, "demo"))
}

/// What happens between start and end: the story, or just life.
async fn play(
    arguments: &Arguments,
    mesh: &mut Mesh,
    load: &Load,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Step>> {
    if arguments.story {
        let plan = story::Plan {
            steps: arguments.steps.clone(),
            rate_is_free: arguments.rate.is_none(),
            outage: arguments.outage,
            rotation: arguments.rotation_for,
        };
        return story::tell(mesh, load, screen, &plan).await;
    }
    let end = arguments.duration.map(|duration| Instant::now() + duration);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    while end.is_none_or(|end| Instant::now() < end) {
        ticks.tick().await;
        screen.refresh(mesh, load).await?;
    }
    Ok(Vec::new())
}

async fn summarize(
    arguments: &Arguments,
    mesh: &mut Mesh,
    load: &Load,
    steps: Vec<Step>,
    begin: Instant,
) -> Summary {
    let read = mesh.read().await;
    if let Err(error) = &read {
        eprintln!("{error:#}");
        mesh.keep_logs();
    }
    let readings: Vec<_> = mesh.readings().collect();
    let tallies = load.tallies();
    let failed: u64 = tallies.values().map(|tally| tally.failed).sum();
    // A story that was ended early has kept no promise yet.
    let kept =
        if arguments.story { !steps.is_empty() && steps.iter().all(|step| step.ok) } else { failed == 0 };
    Summary {
        ok: read.is_ok() && kept,
        seconds: edges::rounded(begin.elapsed().as_secs_f64()),
        steps,
        edges: edges::edges(&readings).iter().map(edges::Edge::summary).collect(),
        outside: edges::outside(&readings, &tallies),
    }
}

/// Reads `10s`, `2m`, `24h`, `500ms`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not of the form 30s, 2m or 24h"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("`{text}` is not of the form 30s, 2m or 24h")),
    }
}
