//! The end of the lab.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use lab::Lab;

/// Takes the lab down and looks for what may be left of it.
pub(crate) fn take_down(lab: Lab) -> Result<String> {
    let name = lab.name().to_owned();
    let (directory, cgroup) = (lab.directory().to_owned(), lab.cgroup().to_owned());
    lab.tear_down()?;

    let mut left: Vec<PathBuf> = [&directory, &cgroup].into_iter().cloned().collect();
    left.retain(|path| path.exists());
    for entry in fs::read_dir("/run/netns").into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&name) {
            left.push(entry.path());
        }
    }
    // Field 5 of proc_pid_mountinfo(5) is the mount point.
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    left.extend(points.filter(|point| point.starts_with(&directory)));
    ensure!(left.is_empty(), "left of {name}: {left:?}");
    // The cgroup could not have been removed with a process in it.
    Ok("no namespace, process, cgroup, mount or file".to_owned())
}
