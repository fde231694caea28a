//! What the kernel says of a process.

use std::{fs, path::PathBuf};

use crate::error::{Error, Result};

/// A number of `/proc/<pid>/status`, by the field's name: `VmRSS`, `RssAnon` (KiB),
/// `voluntary_ctxt_switches`.
///
/// # Errors
/// If the process is gone, or has no such field.
pub fn process_status(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(Error::path("read", path.as_ref()))?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::malformed(path, format!("it has no {field}")))
}

/// A file of `/proc/<pid>/task` for each thread of a process. One that ends meanwhile has none.
///
/// # Errors
/// If there is no such process.
pub fn of_threads(pid: u32, file: &str) -> Result<Vec<String>> {
    let directory = PathBuf::from(format!("/proc/{pid}/task"));
    let threads = fs::read_dir(&directory).map_err(Error::path("list", &directory))?;
    let read = |thread: fs::DirEntry| fs::read_to_string(thread.path().join(file)).ok();
    Ok(threads.flatten().filter_map(read).collect())
}

/// The processes that any thread of a process has started, and that are there yet.
///
/// # Errors
/// If there is no such process.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let lists = of_threads(pid, "children")?.join(" ");
    Ok(lists.split_whitespace().flat_map(str::parse).collect())
}
