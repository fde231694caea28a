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

/// The ids of the processes in a cgroup itself.
pub(crate) fn processes(cgroup: &Path) -> Result<Vec<u32>> {
    let path = cgroup.join("cgroup.procs");
    let listed = fs::read_to_string(&path).map_err(Error::path("read", &path))?;
    Ok(listed.lines().filter_map(|pid| pid.parse().ok()).collect())
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

/// A cgroup whose processes may have so much memory; of whichever version has the machine's memory.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    is_v2: bool,
}

impl MemoryGroup {
    /// Makes one below the cgroup of this process, without a limit.
    ///
    /// # Errors
    /// If neither version can limit memory here.
    pub fn new(name: &str) -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (parent, is_v2) = if v1.is_dir() {
            (v1.to_owned(), false)
        } else {
            let root = root()?;
            let control = root.join("cgroup.subtree_control");
            fs::write(&control, "+memory").map_err(Error::path("write", &control))?;
            (root, true)
        };
        let directory = parent.join(format!("{name}-{}", std::process::id()));
        create(&directory)?;
        Ok(Self { directory, is_v2 })
    }

    /// What a process's id is written to, to have it in the group.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Lets the group have so many bytes more than it can't do without now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn allow_more(&self, bytes: u64) -> Result<()> {
        let (limit, usage) = match self.is_v2 {
            true => ("memory.max", "memory.current"),
            false => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        };
        let read = |name: &str| {
            let path = self.directory.join(name);
            fs::read_to_string(&path).map_err(Error::path("read", &path))
        };
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
        let files: u64 = read("memory.stat")?
            .lines()
            .filter_map(|line| line.split_once("active_file "))
            .filter(|(prefix, _)| ["", "in"].contains(prefix))
            .map(|(_, bytes)| number(bytes))
            .sum();
        let limit = self.directory.join(limit);
        let wanted = number(&read(usage)?).saturating_sub(files) + bytes;
        fs::write(&limit, wanted.to_string()).map_err(Error::path("write", &limit))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Says nothing new if it fails: the processes in it are gone, or somebody's to look at.
        let _ = remove(&self.directory);
    }
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
