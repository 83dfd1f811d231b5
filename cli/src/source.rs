//! Where a command looks: a directory of YAML, with the control plane that follows it if one runs, or a cluster.
//! The rule is [`Place::choose`]; what the two have in common is [`Source`].

use std::path::PathBuf;

use gauze_control_plane::admin::views::settings_in;
use gauze_control_plane::source as sources;
use gauze_control_plane::world::World;
use serde_json::Value;

use crate::admin::Endpoint;
use crate::cluster::{self, Cluster};
use crate::directory::Directory;
use crate::exit::Failure;

/// Where to look, as every command has it. The first of these that holds decides: a directory is named; a cluster
/// is named, by kubeconfig or context; `./gauze-demo` is there; the kubeconfig's current context.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Where to look")]
pub(crate) struct Place {
    /// A directory of YAML [default: ./gauze-demo if it is there, else the cluster of the kubeconfig]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// A cluster, by its kubeconfig [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A cluster, by the context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Only this namespace
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The namespace of the cluster in which gauze itself runs
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "GAUZE_SYSTEM_NAMESPACE",
        default_value = "gauze-system"
    )]
    pub(crate) system_namespace: String,
}

/// The directory that is looked at where none is named: what `gauze demo` writes.
const DEMO: &str = "gauze-demo";

/// What the rule of [`Place`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    Directory(PathBuf),
    Cluster,
}

/// Where a command looks.
pub(crate) enum Source {
    Directory(Directory),
    Cluster(Cluster),
}

/// Every object with its conditions, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// As `GET /objects` of a control plane says it.
    pub(crate) objects: Value,
    /// A control plane runs: the conditions say what is live.
    pub(crate) live: bool,
}

impl Place {
    /// Where to look. Where both would do, stderr says which it is.
    ///
    /// # Errors
    /// Both are named; there is no kubeconfig, or it does not say which cluster.
    pub(crate) async fn source(&self) -> anyhow::Result<Source> {
        match self.chosen()? {
            Choice::Directory(path) => Ok(Source::Directory(Directory { path })),
            Choice::Cluster => Ok(Source::Cluster(self.cluster().await?)),
        }
    }

    /// The cluster, for commands that mean nothing without one; a demo that is here does not matter.
    ///
    /// # Errors
    /// A directory is named; there is no kubeconfig, or it does not say which cluster.
    pub(crate) async fn cluster(&self) -> anyhow::Result<Cluster> {
        if self.directory.is_some() && !self.names_cluster() {
            let text = "this command looks at a cluster, not at a directory; leave --directory out";
            return Err(Failure::Usage(text.to_owned()).into());
        }
        Cluster::connect(self).await
    }

    /// The directory, for commands that do not write into clusters: `instead` is what does.
    ///
    /// # Errors
    /// A cluster is meant.
    pub(crate) fn directory(&self, instead: &str) -> Result<Directory, Failure> {
        match self.chosen()? {
            Choice::Directory(path) => Ok(Directory { path }),
            Choice::Cluster => Err(Failure::Usage(format!(
                "this command writes into directories only (--directory, or ./{DEMO}, which `gauze demo` makes); \
                 in a cluster: {instead}"
            ))),
        }
    }

    /// The directory, for commands that read files only.
    pub(crate) fn files(&self) -> Directory {
        Directory { path: self.directory.clone().unwrap_or_else(|| DEMO.into()) }
    }

    fn chosen(&self) -> Result<Choice, Failure> {
        let demo_is_here = PathBuf::from(DEMO).is_dir();
        let choice = self.choose(demo_is_here)?;
        let nothing_named = self.directory.is_none() && !self.names_cluster();
        if nothing_named && demo_is_here && cluster::is_configured() {
            eprintln!("looking at ./{DEMO}; --context NAME looks at a cluster");
        }
        Ok(choice)
    }

    fn choose(&self, demo_is_here: bool) -> Result<Choice, Failure> {
        match (&self.directory, self.names_cluster()) {
            (Some(_), true) => Err(Failure::Usage(
                "--directory names a directory, --kubeconfig and --context a cluster; leave one out"
                    .to_owned(),
            )),
            (Some(directory), false) => Ok(Choice::Directory(directory.clone())),
            (None, false) if demo_is_here => Ok(Choice::Directory(DEMO.into())),
            (None, _) => Ok(Choice::Cluster),
        }
    }

    fn names_cluster(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

impl Source {
    /// Who can be asked; `None` where no control plane runs, and only files are there.
    ///
    /// # Errors
    /// There is no such directory; in a cluster: gauze is not installed, or no replica is ready.
    pub(crate) async fn control_plane(&self) -> anyhow::Result<Option<Endpoint>> {
        match self {
            Source::Directory(directory) => {
                directory.exists()?;
                Ok(directory.served().await)
            }
            Source::Cluster(cluster) => Ok(Some(cluster.control_plane().await?)),
        }
    }

    /// What there is, by the control plane if one runs, else by the files alone.
    ///
    /// # Errors
    /// As [`Source::control_plane`], and if it does not answer.
    pub(crate) async fn objects(&self) -> anyhow::Result<Seen> {
        match self {
            Source::Directory(directory) => {
                directory.exists()?;
                match directory.served().await {
                    Some(served) => Ok(Seen { objects: served.get_json("/objects").await?, live: true }),
                    None => directory.objects(),
                }
            }
            Source::Cluster(cluster) => {
                let objects = cluster.control_plane().await?.get_json("/objects").await?;
                Ok(Seen { objects, live: true })
            }
        }
    }

    /// All objects, and what holds for the whole mesh: of the running control plane, or of the files.
    ///
    /// # Errors
    /// As [`Source::objects`].
    pub(crate) async fn world(&self) -> anyhow::Result<World> {
        match self {
            Source::Directory(directory) => {
                directory.exists()?;
                match directory.served().await {
                    Some(served) => world_of(&served).await,
                    None => {
                        say_offline();
                        Ok(directory.world()?.0)
                    }
                }
            }
            Source::Cluster(cluster) => world_of(&cluster.control_plane().await?).await,
        }
    }
}

async fn world_of(control_plane: &Endpoint) -> anyhow::Result<World> {
    let settings = settings_in(&control_plane.get_json("/about").await?);
    let text = control_plane.get("/world").await?;
    let objects =
        sources::parse(&text).map_err(|error| anyhow::anyhow!("the control plane's world: {error}"))?;
    Ok(World::of(settings, objects))
}

/// Says that what follows is the files' word, not a control plane's.
pub(crate) fn say_offline() {
    eprintln!("no control plane runs here: this is what the files say\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: Option<&str>, context: Option<&str>) -> Place {
        let context = context.map(str::to_owned);
        Place { directory: directory.map(PathBuf::from), context, ..Place::default() }
    }

    #[test]
    fn what_is_named_counts_then_a_demo_that_is_here_then_the_kubeconfig() {
        let directory = |path: &str| Ok(Choice::Directory(path.into()));
        for (what, place, demo_is_here, expected) in [
            ("a directory is named", place(Some("mesh"), None), true, directory("mesh")),
            ("a cluster is named, and a demo is here", place(None, Some("dev")), true, Ok(Choice::Cluster)),
            ("nothing is named, and a demo is here", place(None, None), true, directory("gauze-demo")),
            ("nothing is named, and no demo is here", place(None, None), false, Ok(Choice::Cluster)),
        ] {
            assert_eq!(place.choose(demo_is_here), expected, "{what}");
        }
        let both = place(Some("mesh"), Some("dev")).choose(false);
        assert!(matches!(both, Err(Failure::Usage(text)) if text.contains("leave one out")));
    }

    #[test]
    fn what_is_not_written_into_a_cluster_names_the_command_that_does() {
        let refused = place(None, Some("dev")).directory("kubectl apply -f FILE").unwrap_err();
        assert!(refused.to_string().ends_with("in a cluster: kubectl apply -f FILE"), "{refused}");
    }
}
