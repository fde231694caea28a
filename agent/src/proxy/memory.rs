//! How near the process is to its cgroup's limit of memory, beyond which the kernel kills it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much of the limit new connections may use, in percent. The rest is for what is open.
const USABLE: u64 = 85;
/// How long a look at the cgroup's files holds.
const HOLDS: Duration = Duration::from_millis(10);
/// Bytes that a connection takes; it takes most of them only when its tunnel is there.
const EACH: u64 = 16 * 1024;
/// For how long it may have taken less, at least.
const SETTLES: Duration = Duration::from_secs(1);
/// A limit of more than this is none: cgroup v1 says it so.
const NONE: u64 = 1 << 60;

/// The cgroup's limit and use.
#[derive(Debug)]
pub(super) struct Memory {
    files: Option<Files>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    /// Bytes; `None` where there is no limit.
    free: Option<u64>,
    /// Connections taken since then, and in the time before.
    since: Option<Instant>,
    taken: [u64; 2],
}

impl Default for Memory {
    fn default() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            files: Files::find(&own, Path::new("/sys/fs/cgroup")),
            state: Mutex::default(),
        }
    }
}

impl Memory {
    /// Whether there is enough for another connection.
    pub(super) fn take(&self) -> bool {
        let Some(files) = &self.files else {
            return true;
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.looked.is_none_or(|looked| now >= looked + HOLDS) {
            (state.looked, state.free) = (Some(now), files.free());
        }
        state.take(now)
    }
}

impl State {
    fn take(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + SETTLES) {
            (self.since, self.taken) = (Some(now), [0, self.taken[0]]);
        }
        let settling = self.taken.iter().sum::<u64>() * EACH;
        let is_enough = self.free.is_none_or(|free| free > settling);
        self.taken[0] += u64::from(is_enough);
        is_enough
    }
}

/// Where a cgroup says what it may use, what it uses, and of what kinds that is.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    limit: PathBuf,
    usage: PathBuf,
    kinds: PathBuf,
}

impl Files {
    /// By the text of `/proc/self/cgroup`. In a container that is often of the node, and what is mounted the
    /// container's own.
    fn find(own: &str, mount: &Path) -> Option<Self> {
        let group = |line: &str| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (mount, names) = match controllers {
                "" => (mount.to_owned(), ["memory.max", "memory.current"]),
                _ if controllers.split(',').any(|it| it == "memory") => {
                    let names = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
                    (mount.join("memory"), names)
                }
                _ => return None,
            };
            let own = mount.join(path.trim_start_matches('/'));
            let directory = [own, mount]
                .into_iter()
                .find(|it| it.join(names[0]).exists())?;
            Some(Self {
                limit: directory.join(names[0]),
                usage: directory.join(names[1]),
                kinds: directory.join("memory.stat"),
            })
        };
        own.lines().find_map(group)
    }

    /// Bytes that may be used yet; `None` if there is no limit.
    fn free(&self) -> Option<u64> {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = number(&self.limit).filter(|limit| *limit < NONE)?;
        let usable = limit / 100 * USABLE;
        let usage = number(&self.usage)?;
        if usage < usable / 2 {
            return Some(usable - usage);
        }
        // The kernel takes pages of files back before it kills anybody.
        let kinds = fs::read_to_string(&self.kinds).unwrap_or_default();
        Some(usable.saturating_sub(usage.saturating_sub(reclaimable(&kinds))))
    }
}

/// Of `memory.stat`: pages of files, as v2 or v1 call them.
fn reclaimable(kinds: &str) -> u64 {
    let of = |prefix: &str| {
        let name = |name: &str| format!("{prefix}{name} ");
        let names = [name("inactive_file"), name("active_file")];
        let lines = kinds.lines();
        let values = lines.filter_map(|line| {
            let value = names
                .iter()
                .find_map(|name| line.strip_prefix(name.as_str()))?;
            value.parse::<u64>().ok()
        });
        values.sum::<u64>()
    };
    of("total_").max(of(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_own_groups_files_are_found_in_either_version_and_in_a_container() {
        let root = tempfile::tempdir().unwrap();
        let (v2, v1) = (root.path().join("v2"), root.path().join("v1"));
        write(&v2.join("pods/one"), &[("memory.max", "max")]);
        write(
            &v1.join("memory/pods/one"),
            &[("memory.limit_in_bytes", "1")],
        );
        let found = |own: &str, mount: &Path| Files::find(own, mount).map(|files| files.limit);
        let own = v2.join("pods/one/memory.max");
        assert_eq!(found("0::/pods/one\n", &v2), Some(own));
        assert_eq!(found("0::/\n", &v2), None, "the root has no limit");
        let own = v1.join("memory/pods/one/memory.limit_in_bytes");
        assert_eq!(
            found("7:pids:/x\n4:memory:/pods/one\n0::/\n", &v1),
            Some(own)
        );
        write(&v2, &[("memory.max", "5")]);
        assert_eq!(found("0::/of/the/node\n", &v2), Some(v2.join("memory.max")));
    }

    #[test]
    fn what_the_kernel_can_take_back_is_no_shortage() {
        let root = tempfile::tempdir().unwrap();
        let free = |limit: &str, usage: &str, kinds: &str| {
            let files = [
                ("memory.max", limit),
                ("memory.current", usage),
                ("memory.stat", kinds),
            ];
            write(root.path(), &files);
            Files::find("0::/\n", root.path()).unwrap().free()
        };
        assert_eq!(free("1000", "900\n", "anon 900\n"), Some(0));
        assert_eq!(free("1000", "800\n", "anon 800\n"), Some(50));
        assert_eq!(free("1000", "100\n", "anon 100\n"), Some(750));
        let kinds = "inactive_file 60\nactive_file 40\n";
        assert_eq!(free("1000", "900\n", kinds), Some(50));
        let kinds = "inactive_file 0\ntotal_inactive_file 100\n";
        assert_eq!(free("1000", "900\n", kinds), Some(50));
        assert_eq!(free("max\n", "900\n", ""), None);
        assert_eq!(free("9223372036854771712", "900\n", ""), None);
        assert_eq!(free("1000", "unreadable", ""), None);
    }

    #[test]
    fn what_was_taken_a_moment_ago_counts_in_full() {
        let start = Instant::now();
        let mut state = State {
            free: Some(3 * EACH),
            ..State::default()
        };
        let mut taken = |at| (0..10).filter(|_| state.take(at)).count();
        assert_eq!(taken(start), 3);
        assert_eq!(taken(start + SETTLES), 0, "they may still grow");
        assert_eq!(taken(start + 2 * SETTLES), 3, "what is free says it all");
    }
}
