//! What the kernel says of a process.

use std::fs;

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
