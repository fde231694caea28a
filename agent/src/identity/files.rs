//! Files that hold secrets: who may read them, and writing them so that a crash leaves old or new.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others could have read the secret in it.
    #[error(
        "{path} can be used by others (mode {mode:03o}): run `chmod {cure} {path}`, \
         and replace what it holds if somebody may have read it",
        path = path.display()
    )]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        cure: &'static str,
    },
}

impl FileError {
    pub(super) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Permission bits that must not be set on a key: anybody but the owner.
pub(super) const NOT_OWNER: u32 = 0o077;
/// Permission bits that must not be set on a token file: a group may share it, the world not.
pub(super) const WORLD: u32 = 0o007;

/// Makes the directory (mode 0700), or refuses one that others can enter.
pub(super) fn private_directory(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(FileError::io("create directory", path))?;
    let metadata = fs::metadata(path).map_err(FileError::io("inspect", path))?;
    check_mode(path, metadata.mode(), NOT_OWNER, "700")
}

/// Reads a text that only the right ones may read. `forbidden` are permission bits.
pub(super) fn read_private(path: &Path, forbidden: u32) -> Result<String, FileError> {
    // Checked on the open file, so that what is checked is what is read.
    let mut file = File::open(path).map_err(FileError::io("open", path))?;
    let metadata = file.metadata().map_err(FileError::io("inspect", path))?;
    check_mode(path, metadata.mode(), forbidden, "600")?;
    io::read_to_string(&mut file).map_err(FileError::io("read", path))
}

/// Replaces a file: written beside it, synced, renamed, and the directory synced.
pub(super) fn write_atomically(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A left-over of a crash may have any content or mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::io("remove", &beside)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .map_err(FileError::io("create", &beside))?;
    let written = file.write_all(text.as_bytes());
    written.and_then(|()| file.sync_all()).map_err(|error| {
        // Half a secret on a full disk is of no use, and takes what room there is.
        let _ = fs::remove_file(&beside);
        FileError::io("write", &beside)(error)
    })?;
    fs::rename(&beside, path).map_err(FileError::io("replace", path))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::io("sync", directory))
}

fn check_mode(path: &Path, mode: u32, forbidden: u32, cure: &'static str) -> Result<(), FileError> {
    let mode = mode & 0o777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(FileError::Permissions {
        path: path.to_owned(),
        mode,
        cure,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_read_only_if_its_mode_is_safe() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write_atomically(&path, "text", 0o600).unwrap();
        for (mode, forbidden, allowed) in [
            (0o600, NOT_OWNER, true),
            (0o400, NOT_OWNER, true),
            (0o640, NOT_OWNER, false),
            (0o604, NOT_OWNER, false),
            (0o640, WORLD, true),
            (0o644, WORLD, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_private(&path, forbidden) {
                Ok(text) => assert!(allowed && text == "text", "mode {mode:o}"),
                Err(error) => {
                    assert!(!allowed, "mode {mode:o}: {error}");
                    let cure = format!("chmod 600 {}", path.display());
                    assert!(error.to_string().contains(&cure), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(directory.path().join("file.new"), "left by a crash").unwrap();
        write_atomically(&path, "old", 0o600).unwrap();
        write_atomically(&path, "new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
