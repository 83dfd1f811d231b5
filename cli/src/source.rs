//! Where a command looks: a control plane that follows a directory, or, if none runs, the directory itself.

use std::path::PathBuf;

use gauze_control_plane::admin::views::objects_of;
use gauze_control_plane::problem::Problem;
use gauze_control_plane::source::directory;
use gauze_control_plane::status::Heard;
use gauze_control_plane::world::{MeshSettings, World};
use serde_json::Value;

use crate::admin::Endpoint;
use crate::exit::Failure;

/// `--directory`, as every command has it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Directory {
    /// The directory of YAML that the control plane follows
    #[arg(long, global = true, default_value = "gauze-demo", value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

/// `--directory` and `--offline`, as every command has them that looks at objects.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Source {
    #[command(flatten)]
    pub(crate) place: Directory,
    /// Read the files only, and ask no control plane
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Every object with its conditions, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// As `GET /objects` of a control plane says it.
    pub(crate) objects: Value,
    /// A control plane runs: the conditions say what is live.
    pub(crate) live: bool,
}

impl Directory {
    /// Where a running control plane and demo keep what is theirs.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join(".gauze")
    }
}

impl Source {
    /// The control plane of this directory.
    pub(crate) fn control_plane(&self) -> Endpoint {
        Endpoint::socket(&self.place.state().join("control-plane.sock"))
    }

    /// What there is, by the control plane if one runs, else by the files alone.
    ///
    /// # Errors
    /// There is no such directory.
    pub(crate) async fn objects(&self) -> anyhow::Result<Seen> {
        self.exists()?;
        if !self.offline && self.is_served().await {
            return Ok(Seen { objects: self.control_plane().get_json("/objects").await?, live: true });
        }
        let (world, problems) = self.world()?;
        Ok(Seen { objects: objects_of(&world, &problems, &Heard::default()), live: false })
    }

    /// # Errors
    /// There is no such directory.
    pub(crate) fn exists(&self) -> Result<(), Failure> {
        if self.place.directory.is_dir() {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "there is no directory {}; `gauze demo` makes one, --directory names another",
            self.place.directory.display()
        )))
    }

    /// Whether a control plane answers for this directory.
    pub(crate) async fn is_served(&self) -> bool {
        self.control_plane().get("/live").await.is_ok()
    }

    /// The world that the files make, and what is wrong with them.
    ///
    /// # Errors
    /// There is no such directory.
    pub(crate) fn world(&self) -> anyhow::Result<(World, Vec<Problem>)> {
        self.exists()?;
        let (objects, problems) = directory::read(&self.place.directory);
        Ok((World::of(mesh_settings(), objects), problems))
    }
}

/// What holds for the whole mesh where nobody says otherwise. The pods of a demo live on loopback.
pub(crate) fn mesh_settings() -> MeshSettings {
    let mut settings = MeshSettings::default();
    settings.mesh_networks.push(DEMO_NETWORK.parse().expect("a constant"));
    settings
}

/// Where the demo's pods are; its control plane and sidecars are told so.
const DEMO_NETWORK: &str = "127.0.0.0/8";
