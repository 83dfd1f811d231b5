//! A directory of YAML: what its files say, and the control plane that follows it, if one runs.

use std::path::PathBuf;

use gauze_control_plane::admin::views::objects_of;
use gauze_control_plane::problem::Problem;
use gauze_control_plane::source::directory;
use gauze_control_plane::status::Heard;
use gauze_control_plane::world::{MeshSettings, World};

use crate::admin::Endpoint;
use crate::exit::Failure;
use crate::source::Seen;

#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
}

impl Directory {
    /// Where a running control plane and demo keep what is theirs.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join(".gauze")
    }

    /// The control plane of this directory, if it answers.
    pub(crate) async fn served(&self) -> Option<Endpoint> {
        let control_plane = Endpoint::socket(&self.state().join("control-plane.sock"));
        control_plane.get("/live").await.is_ok().then_some(control_plane)
    }

    /// # Errors
    /// There is no such directory.
    pub(crate) fn exists(&self) -> Result<(), Failure> {
        if self.path.is_dir() {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "there is no directory {}; `gauze demo` makes one, --directory names another",
            self.path.display()
        )))
    }

    /// What the files alone say of every object.
    ///
    /// # Errors
    /// There is no such directory.
    pub(crate) fn objects(&self) -> anyhow::Result<Seen> {
        let (world, problems) = self.world()?;
        Ok(Seen { objects: objects_of(&world, &problems, &Heard::default()), live: false })
    }

    /// The world that the files make, and what is wrong with them.
    ///
    /// # Errors
    /// There is no such directory.
    pub(crate) fn world(&self) -> anyhow::Result<(World, Vec<Problem>)> {
        self.exists()?;
        let (objects, problems) = directory::read(&self.path);
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
