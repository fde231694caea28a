//! What single processes take: the mesh's own.

use std::{fs, iter::Sum, ops::Add, time::Duration};

use anyhow::{Context, Result};

/// The kernel's unit of time in `/proc/<pid>/stat`, as in `/proc/stat`.
const TICK: Duration = Duration::from_millis(10);

/// Memory of processes, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident pages. A page that several processes share counts in each of them.
    pub(super) resident: u64,
    /// Resident pages, a shared one divided among those that share it.
    pub(super) proportional: u64,
}

impl Add for Memory {
    type Output = Memory;

    fn add(self, other: Memory) -> Memory {
        Memory {
            resident: self.resident + other.resident,
            proportional: self.proportional + other.proportional,
        }
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Memory>>(all: I) -> Memory {
        all.fold(Memory::default(), Add::add)
    }
}

impl Memory {
    /// The sum over processes.
    ///
    /// # Errors
    /// One of them has ended.
    pub(super) fn of(pids: &[u32]) -> Result<Memory> {
        let of_one = |pid: &u32| {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            parse_memory(&text).with_context(|| format!("{path} has no Rss and Pss"))
        };
        pids.iter().map(of_one).sum()
    }
}

/// KiB as MiB.
pub(super) fn mebibytes(kibibytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 KiB")]
    let kibibytes = kibibytes as f64;
    kibibytes / 1024.0
}

/// Memory that the kernel could give to new processes, in KiB.
///
/// # Errors
/// `/proc/meminfo` can't be read.
pub(super) fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    field(&text, "MemAvailable:").context("/proc/meminfo has no MemAvailable")
}

/// CPU time that processes have had so far, all their threads together.
///
/// # Errors
/// One of them has ended.
pub(super) fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let of_one = |pid: &u32| {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        parse_cpu(&text).with_context(|| format!("{path} isn't as proc_pid_stat(5) has it"))
    };
    pids.iter().map(of_one).sum()
}

fn parse_memory(smaps_rollup: &str) -> Option<Memory> {
    Some(Memory {
        resident: field(smaps_rollup, "Rss:")?,
        proportional: field(smaps_rollup, "Pss:")?,
    })
}

/// The number of KiB in the line that starts with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The name in field 2 may hold spaces and parentheses: what follows its last one is field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let user: u32 = fields.nth(11)?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user + TICK * system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_the_names_of_its_lines() {
        let text = "55d0-7ffd ---p 00000000 00:00 0    [rollup]\n\
                    Rss:                7728 kB\nPss:                2048 kB\n\
                    Pss_Dirty:           700 kB\n";
        let expected = Memory {
            resident: 7728,
            proportional: 2048,
        };
        assert_eq!(parse_memory(text), Some(expected));
        assert_eq!(parse_memory("Rss: 12 kB\n"), None);
        assert_eq!(parse_memory("Rss: 12\nPss: 1\n"), None);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let after = "S 1 1 1 0 -1 4194560 100 0 0 0 150 50 7 7 20 0 1 0 99 1 1";
        for name in ["haproxy", "a b", "x) S 9 9 (y"] {
            let stat = format!("42 ({name}) {after}");
            assert_eq!(parse_cpu(&stat), Some(Duration::from_secs(2)), "{name}");
        }
        assert_eq!(parse_cpu("42 (x) S 1"), None);
    }

    #[test]
    fn the_running_process_has_memory_and_its_proportional_share_is_no_more() {
        let memory = Memory::of(&[std::process::id()]).expect("we run");
        assert!(memory.proportional > 0, "{memory:?}");
        assert!(memory.resident >= memory.proportional, "{memory:?}");
    }
}
