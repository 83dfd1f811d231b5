//! Where objects come from. Every source ends in the same [`Event`]s; the rest of the control plane
//! does not know which one it has.

pub mod directory; // a directory of YAML
mod document; // one YAML document into an object
mod yaml; // YAML text into documents that know where each field stands

use crate::problem::Problem;
use crate::world::Event;

/// What a source has to say: what changed, and all that is wrong with it now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// In order. The first update ends with [`Event::Synced`].
    pub events: Vec<Event>,
    /// All problems that the source sees now; they replace the previous ones.
    pub problems: Vec<Problem>,
}
