//! Where the cgroup2 file system is mounted.

use std::{fs, io, path::PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";

/// Why the root isn't found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel doesn't tell.
    #[error("reading {MOUNTS}: {0}")]
    Read(#[from] io::Error),
    /// It isn't mounted.
    #[error("no cgroup2 file system is mounted (mount one, or name a cgroup by --cgroup)")]
    Absent,
}

/// The root: `/sys/fs/cgroup`, or `unified` below it beside cgroup v1.
///
/// # Errors
/// [`Error`].
pub(super) fn root() -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string(MOUNTS)?;
    mount_point(&mounts).map(Into::into).ok_or(Error::Absent)
}

/// The first mount point of a cgroup2 file system in the text of mountinfo (proc(5)).
fn mount_point(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_cgroup2 = after.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| before.split(' ').nth(4))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_found_beside_cgroup_v1_and_alone() {
        let table = [
            (
                "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
                Some("/sys/fs/cgroup"),
            ),
            (
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 none rw",
                Some("/sys/fs/cgroup/unified"),
            ),
            (
                "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw",
                None,
            ),
            ("", None),
        ];
        for (mountinfo, expected) in table {
            assert_eq!(mount_point(mountinfo), expected, "{mountinfo}");
        }
    }
}
