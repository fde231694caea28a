//! What processes of the mesh hold: it doesn't grow while they do the same again and again.

use std::{collections::BTreeMap, fs};

use serde::Serialize;

use crate::{Error, Result, RunningMesh, process_status};

/// By how much a process's own memory may differ from what it was when it had warmed up, in KiB. Allocators
/// give back late, and what is open at the moment differs.
const MEMORY: u64 = 12 * 1024;
/// The same for descriptors: connections and tunnels that are open at the moment.
const DESCRIPTORS: usize = 48;

/// What one process holds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Holding {
    /// Resident memory of its own (`RssAnon`), in KiB.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    #[serde(skip)]
    pid: u32,
}

/// What each process holds, by role and node.
pub type Holdings = BTreeMap<String, Holding>;

/// Looks at all processes of a mesh.
///
/// # Errors
/// If one is gone meanwhile.
pub(super) fn holdings(mesh: &RunningMesh<'_>) -> Result<Holdings> {
    let mut all = BTreeMap::new();
    for (name, pid) in mesh.processes()? {
        let directory = format!("/proc/{pid}/fd");
        let descriptors =
            fs::read_dir(&directory).map_err(Error::io(format!("list {directory}")))?;
        let holding = Holding {
            memory: process_status(pid, "RssAnon")?,
            descriptors: descriptors.count(),
            pid,
        };
        all.insert(name, holding);
    }
    Ok(all)
}

/// Compares the same processes at two moments.
///
/// # Errors
/// If one has grown, or isn't the same.
pub(super) fn check_flat(before: &Holdings, after: &Holdings) -> Result<()> {
    let grown = before.iter().filter_map(|(name, before)| {
        let after = after.get(name).filter(|after| after.pid == before.pid);
        let Some(after) = after else {
            return Some(format!("{name} isn't there any more"));
        };
        let has_grown = after.memory > before.memory + MEMORY
            || after.descriptors > before.descriptors + DESCRIPTORS;
        has_grown.then(|| {
            format!(
                "{name}: {} KiB became {}, {} descriptors {}",
                before.memory, after.memory, before.descriptors, after.descriptors
            )
        })
    });
    let grown: Vec<_> = grown.collect();
    match grown.is_empty() {
        true => Ok(()),
        false => Err(Error::violated(
            "\"memory and descriptors stay as they are\"",
            grown.join("; "),
        )),
    }
}
