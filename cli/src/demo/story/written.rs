//! A file of the story that does not outlive its step, however that ends.

use std::path::PathBuf;

use crate::files;

/// An object that is there until this is dropped.
pub(super) struct Written(PathBuf);

impl Written {
    pub(super) fn new(file: PathBuf, text: &str) -> anyhow::Result<Written> {
        files::write_whole(&file, text)?;
        Ok(Written(file))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // If somebody else removed it, there is nothing left to do.
        let _ = std::fs::remove_file(&self.0);
    }
}
