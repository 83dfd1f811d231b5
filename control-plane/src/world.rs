//! All that the control plane knows: the objects, and the few indexes that translation asks for.
//! What an object means is decided in [`translate`](crate::translate), never here.

mod object;
mod touched;

use ipnet::IpNet;

pub use object::{Object, ObjectKey, ObjectKind};
pub use touched::Touched;

use gauze_model::listener::Mtls;

/// A change of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is new or has changed.
    Apply(Object),
    Delete(ObjectKey),
    /// Everything that exists was told: from now on, what is not known does not exist.
    Synced,
}

/// What holds for the whole mesh (chart values, flags).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    pub trust_domain: String,
    /// Where neither pod nor namespace says anything.
    pub mtls: Mtls,
    /// Addresses inside these are the mesh's; all others pass at once.
    pub mesh_networks: Vec<IpNet>,
}

impl Default for MeshSettings {
    fn default() -> MeshSettings {
        MeshSettings {
            trust_domain: "cluster.local".to_owned(),
            mtls: Mtls::Permissive,
            mesh_networks: ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
                .map(|network| network.parse().expect("a constant"))
                .to_vec(),
        }
    }
}

/// All objects, indexed.
#[derive(Clone, Debug, Default)]
pub struct World {
    settings: MeshSettings,
    synced: bool,
}

impl World {
    /// An empty world that is not synced: nothing is decided yet.
    pub fn new(settings: MeshSettings) -> World {
        World { settings, ..World::default() }
    }

    /// A world that holds just these objects and knows that there are no others.
    pub fn of(settings: MeshSettings, objects: impl IntoIterator<Item = Object>) -> World {
        let mut world = World::new(settings);
        for object in objects {
            world.apply(Event::Apply(object));
        }
        world.apply(Event::Synced);
        world
    }

    /// Takes up a change, and says which names may now have another answer.
    pub fn apply(&mut self, event: Event) -> Touched {
        if event == Event::Synced {
            self.synced = true;
            return Touched::everything();
        }
        Touched::default()
    }

    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// Whether what is not known does not exist.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// All objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        std::iter::empty()
    }
}
