//! The cgroup v2 tree: one cgroup a lab, below it one a node, below it one a pod.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Error, Result, sys, wait};

/// How long killed processes may take to leave their cgroup.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `unified` below it beside cgroup v1.
pub(crate) fn root() -> Result<PathBuf> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(Error::path("read", path))?;
    mount_point(&mounts)
        .map(PathBuf::from)
        .ok_or(Error::NoCgroup2)
}

/// Makes a cgroup and those above it.
pub(crate) fn create(cgroup: &Path) -> Result<()> {
    fs::create_dir_all(cgroup).map_err(Error::path("create cgroup", cgroup))
}

/// Kills every process in a cgroup, and removes it once they are gone.
pub(crate) fn remove(cgroup: &Path) -> Result<()> {
    kill(cgroup).map_err(Error::path("kill the processes of cgroup", cgroup))?;
    wait::poll(
        &format!("the removal of cgroup {}", cgroup.display()),
        KILL_DEADLINE,
        || match fs::remove_dir(cgroup) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        },
    )
}

fn kill(cgroup: &Path) -> io::Result<()> {
    match fs::OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.kill"))
    {
        Ok(mut file) => return io::Write::write_all(&mut file, b"1"),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Before Linux 5.14 there is no cgroup.kill.
        Err(_) => {}
    }
    for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
        // One that has ended meanwhile needs no killing.
        let _ = sys::signal(pid.parse().map_err(io::Error::other)?, libc::SIGKILL);
    }
    Ok(())
}

/// The mount point of the first cgroup2 file system in the text of `mountinfo` (proc(5)).
fn mount_point(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after
            .starts_with("cgroup2 ")
            .then(|| before.split(' ').nth(4))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found() {
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
                "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
                None,
            ),
            ("", None),
        ];
        for (mountinfo, expected) in table {
            assert_eq!(mount_point(mountinfo), expected);
        }
    }
}
