//! Where objects come from. Every source ends in the same [`Event`]s; the rest of the control plane
//! does not know which one it has.

pub mod directory; // a directory of YAML
mod document; // one YAML document into an object
pub mod kubernetes; // an API server
mod understand; // a value into an object
mod yaml; // YAML text into documents that know where each field stands

use crate::problem::Problem;
use crate::world::{Event, Object};

/// What a source has to say: what changed, and all that is wrong with it now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// In order. The first update ends with [`Event::Synced`].
    pub events: Vec<Event>,
    /// All problems that the source sees now; they replace the previous ones.
    pub problems: Vec<Problem>,
}

/// The objects of a text of YAML or JSON, once: for those who have it from elsewhere than a file.
///
/// # Errors
/// The text is no YAML. What is wrong with single objects is not told here.
pub fn parse(text: &str) -> Result<Vec<Object>, String> {
    let nodes = yaml::parse(text).map_err(|error| error.message)?;
    let reads = nodes.iter().flat_map(|node| document::read("", node));
    Ok(reads.filter_map(|read| read.object).collect())
}
