//! Whether the maps that an earlier agent pinned can be used on.

use std::path::{Path, PathBuf};

use ambit_common::{
    map::{Configuration, LAYOUT_VERSION},
    name,
};
use aya::maps::{Array, Map, MapData, MapError};

use super::loader::map_directory;

/// Why they can't.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are of another version.
    #[error(
        "the maps pinned at {path} have layout {found}, this agent needs {LAYOUT_VERSION}: drain \
         the node and run `ambit uninstall` before this version starts"
    )]
    Other {
        /// Where they are pinned.
        path: PathBuf,
        /// The layout they have.
        found: u32,
    },
    /// They don't say which.
    #[error(
        "the maps pinned at {path} don't tell their layout: {source}; `ambit uninstall` removes them"
    )]
    Unreadable {
        /// Where they are pinned.
        path: PathBuf,
        /// The kernel's reason.
        source: MapError,
    },
}

/// Looks before anything is changed: an agent that runs on them goes on.
///
/// # Errors
/// [`Error`].
pub fn check_pinned(bpffs: &Path) -> Result<(), Error> {
    let path = map_directory(bpffs);
    let pin = path.join(name::CONFIGURATION);
    if !pin.exists() {
        return Ok(());
    }
    let read = || {
        let map: Array<_, Configuration> = Map::Array(MapData::from_pin(&pin)?).try_into()?;
        map.get(&0, 0)
    };
    match read() {
        Ok(found) => check(&path, found),
        Err(source) => Err(Error::Unreadable { path, source }),
    }
}

/// What a map says of itself and the others; 0 if it was made just now.
pub(super) fn check(path: &Path, found: Configuration) -> Result<(), Error> {
    match found.layout {
        0 | LAYOUT_VERSION => Ok(()),
        found => Err(Error::Other {
            path: path.to_owned(),
            found,
        }),
    }
}
