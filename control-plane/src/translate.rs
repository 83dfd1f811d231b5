//! What every object means for the proxies. [`translate`] is pure and never fails: a broken object
//! costs only itself. The name alone determines the answer.

use gauze_model::snapshot::Resource;
use gauze_model::{Kind, Name};

use crate::problem::Problem;
use crate::world::World;

/// The answer to a name, and what is wrong with the objects behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Translation {
    pub answer: Answer,
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One resource; for `cluster/…` two, the cluster and its endpoints.
    Known(Vec<Resource>),
    /// There is nothing of that name.
    Absent,
    /// The world is not synced yet: no answer, which is not the same as absent.
    Undecided,
}

impl Answer {
    /// The resource of that kind, if there is one.
    pub fn resource(&self, kind: Kind) -> Option<&Resource> {
        match self {
            Answer::Known(resources) => resources.iter().find(|resource| resource.kind() == kind),
            Answer::Absent | Answer::Undecided => None,
        }
    }
}

/// What `name` stands for in this world.
pub fn translate(world: &World, name: &Name) -> Translation {
    let _ = name;
    let answer = if world.is_synced() { Answer::Absent } else { Answer::Undecided };
    Translation { answer, problems: Vec::new() }
}
