//! The state directory (`DIR/.gauze`): keys, tokens and the socket, which must outlive the process.
//! Only the control plane's own user may read it, and no file in it is ever seen half written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A state directory that exists and that only this user can enter.
#[derive(Clone, Debug)]
pub struct StateDirectory(PathBuf);

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("there is no directory {0}; --directory names one that exists")]
    NoDirectory(PathBuf),
    #[error("cannot {doing} {path}: {error}")]
    Io { doing: &'static str, path: PathBuf, error: io::Error },
    #[error("{path} holds a private key and others may read it (mode {mode:o}): run `chmod 600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
}

/// Held while keys are created; ends with the process, however that ends.
#[must_use]
pub struct CreationLock(#[allow(dead_code)] File);

impl StateDirectory {
    /// Opens `path`, or creates it; its parent, the directory of YAML, must exist.
    ///
    /// # Errors
    /// It cannot be created or made private.
    pub fn open(path: PathBuf) -> Result<StateDirectory, StateError> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(&path).to_owned();
                return Err(StateError::NoDirectory(directory));
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StateError::Io { doing: "create the state directory", path, error });
            }
            Ok(()) | Err(_) => {}
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed("make private", &path))?;
        let state = StateDirectory(path);
        // The directory of YAML is often a git repository: keys must not get into it.
        state.replace(".gitignore", "*\n")?;
        Ok(state)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A directory in it, private as well.
    ///
    /// # Errors
    /// As [`open`](StateDirectory::open).
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, StateError> {
        let path = self.path(name);
        let created = DirBuilder::new().mode(0o700).recursive(true).create(&path);
        created.map_err(failed("create", &path))?;
        Ok(path)
    }

    /// Waits until no other process creates keys here: of two starts at once, the second finds what the first made.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn lock_for_creation(&self) -> Result<CreationLock, StateError> {
        let path = self.path("creation.lock");
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = opened.map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(CreationLock(file))
    }

    /// The text of a file; `None` if there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::Io { doing: "read", path, error }),
        }
    }

    /// The text of a file that holds a private key.
    ///
    /// # Errors
    /// As [`read`](StateDirectory::read), or others may read it too.
    pub fn read_key(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.path(name);
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.permissions().mode() & 0o077 != 0
        {
            return Err(StateError::Exposed { path, mode: metadata.permissions().mode() & 0o777 });
        }
        self.read(name)
    }

    /// Writes a file as a whole, readable by this user only, to last.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn replace(&self, name: &str, text: &str) -> Result<(), StateError> {
        let path = self.path(name);
        replace_file(&path, text).and_then(|()| File::open(&path)?.sync_all()).map_err(failed("write", &path))
    }
}

/// Writes `path` (mode 0600) so that a reader sees the old or the new text.
///
/// # Errors
/// It cannot be written; the old text stays.
pub fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = directory.join(format!(".{name}.{}.draft", std::process::id()));
    let written = write_private(&draft, text).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |error| StateError::Io { doing, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_its_own_user_may_read_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path().join(".gauze")).unwrap();
        state.replace("root.key", "secret").unwrap();
        assert_eq!((mode(&state.0), mode(&state.path("root.key"))), (0o700, 0o600));
    }

    #[test]
    fn a_directory_that_was_open_to_others_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".gauze");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        StateDirectory::open(path.clone()).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path().join(".gauze")).unwrap();
        state.replace("root.key", "secret").unwrap();
        fs::set_permissions(state.path("root.key"), Permissions::from_mode(0o644)).unwrap();
        let refused = state.read_key("root.key").unwrap_err().to_string();
        assert!(refused.contains("mode 644") && refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn a_directory_of_yaml_that_does_not_exist_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("typo/.gauze");
        let refused = StateDirectory::open(path.clone()).unwrap_err().to_string();
        assert!(refused.ends_with("typo; --directory names one that exists"), "{refused}");
        assert!(!path.exists());
    }
}
