//! The YAML files of a directory, and the objects in them: what the commands read and change without a control plane.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::exit::Failure;

/// One YAML file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// The YAML files of `directory`, by name.
///
/// # Errors
/// There is no such directory ([`Failure::Usage`]), or a file cannot be read.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Vec<YamlFile>> {
    let entries = fs::read_dir(directory).map_err(|error| {
        Failure::Usage(format!(
            "cannot read the directory {}: {}; `gauze demo` makes one, --directory names another",
            directory.display(),
            error.kind()
        ))
    })?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(YamlFile { path, text })
    };
    paths.into_iter().map(read).collect()
}

impl YamlFile {
    /// The objects of this file.
    ///
    /// # Errors
    /// The file is no YAML.
    pub(crate) fn objects(&self) -> anyhow::Result<Vec<Value>> {
        let objects = serde_saphyr::from_multiple::<Value>(&self.text);
        let objects = objects.with_context(|| format!("{} is no YAML", self.path.display()))?;
        Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// Replaces the file whole at once: nobody ever reads half of it.
    pub(crate) fn write(&self, text: &str) -> anyhow::Result<()> {
        write_whole(&self.path, text)
    }
}

/// Writes a file whole at once.
pub(crate) fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.draft"));
    fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

/// `shop/web` or `web`: a name, with its namespace if that is given.
pub(crate) fn split_name(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yaml_is_read_and_a_draft_never_stays() {
        let directory = tempfile::tempdir().unwrap();
        write_whole(&directory.path().join("b.yaml"), "kind: B\n---\nkind: C\n").unwrap();
        write_whole(&directory.path().join("a.yml"), "kind: A\n").unwrap();
        fs::write(directory.path().join("notes.txt"), "kind: [").unwrap();
        let files = read(directory.path()).unwrap();
        let kinds: Vec<_> = files
            .iter()
            .flat_map(|file| file.objects().unwrap())
            .map(|object| object["kind"].clone())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_wrong_directory_is_wrong_usage_and_says_what_to_do() {
        let error = read(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Failure::Usage(text)) if text.contains("gauze demo")),
            "{error}"
        );
    }
}
