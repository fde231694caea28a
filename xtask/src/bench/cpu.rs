//! What the machine's processors did while something ran, the kernel and its interrupts included.
//!
//! A proxy costs more than its own processes show: packets that pass the network stack once more
//! are handled in softirqs, which the kernel accounts to whoever happens to be interrupted, or to
//! nobody. So the whole machine is counted, and nothing is subtracted.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// The kernel's unit of time in `/proc/stat`: USER_HZ is 100 on every architecture that matters.
const TICK: Duration = Duration::from_millis(10);

/// The machine's counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    counters: Counters,
    at: Instant,
}

/// What was used between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Used {
    /// CPU time of the whole machine.
    pub(super) busy: Duration,
    /// CPU time that the hypervisor gave to others. It isn't in `busy`.
    pub(super) stolen: Duration,
    /// All that the processors could have given.
    pub(super) all: Duration,
}

/// Sums over all processors since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counters {
    processors: u32,
    /// `idle` and `iowait`.
    idle: Duration,
    stolen: Duration,
}

impl Clock {
    /// Reads `/proc/stat`.
    ///
    /// # Errors
    /// It can't be read, or isn't what proc_stat(5) says.
    pub(super) fn now() -> Result<Clock> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Ok(Clock {
            counters: Counters::parse(&text)
                .context("/proc/stat has no line `cpu` with eight counters")?,
            at: Instant::now(),
        })
    }

    /// What was used since an earlier moment.
    pub(super) fn since(&self, earlier: &Clock) -> Used {
        self.counters
            .since(earlier.counters, self.at.duration_since(earlier.at))
    }
}

impl Counters {
    fn parse(stat: &str) -> Option<Counters> {
        let mut lines = stat.lines();
        let all = lines.next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u32> = all
            .split_whitespace()
            .map(|field| field.parse().ok())
            .collect::<Option<_>>()?;
        // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
        let [_, _, _, idle, iowait, _, _, steal, ..] = ticks[..] else {
            return None;
        };
        Some(Counters {
            processors: u32::try_from(lines.take_while(|line| line.starts_with("cpu")).count())
                .ok()?,
            idle: TICK * idle + TICK * iowait,
            stolen: TICK * steal,
        })
    }

    /// Time that was neither idle nor stolen, rather than the sum of the busy fields: most kernels
    /// fill those by looking at each tick at what runs, which overlooks whoever sleeps across the
    /// ticks, while idle time is measured from the moment a processor goes idle.
    fn since(self, earlier: Counters, elapsed: Duration) -> Used {
        let all = elapsed * self.processors;
        let idle = self.idle.saturating_sub(earlier.idle);
        let stolen = self.stolen.saturating_sub(earlier.stolen);
        Used {
            busy: all.saturating_sub(idle).saturating_sub(stolen),
            stolen,
            all,
        }
    }
}

impl Used {
    /// The busy share of all CPU time, 0 to 1.
    pub(super) fn busy_share(&self) -> f64 {
        share(self.busy, self.all)
    }

    /// The stolen share of all CPU time, 0 to 1.
    pub(super) fn stolen_share(&self) -> f64 {
        share(self.stolen, self.all)
    }
}

/// A part of a whole, 0 of nothing.
pub(super) fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        0.0
    } else {
        part.as_secs_f64() / whole.as_secs_f64()
    }
}

/// CPU time that the processes of a cgroup and of those below it have had, softirqs that ran in
/// their name included.
///
/// # Errors
/// It has no `cpu.stat`, or one without `usage_usec`.
pub(super) fn of_cgroup(cgroup: &Path) -> Result<Duration> {
    let path = cgroup.join("cpu.stat");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    usage(&text).with_context(|| format!("{} has no usage_usec", path.display()))
}

fn usage(cpu_stat: &str) -> Option<Duration> {
    let mut fields = cpu_stat.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = fields.find(|(name, _)| *name == "usage_usec")?;
    value.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  1000 20 300 4000 50 6 70 8 0 0\n\
                        cpu0 500 10 150 2000 25 3 35 4 0 0\n\
                        cpu1 500 10 150 2000 25 3 35 4 0 0\n\
                        intr 100 0 0\n";

    #[test]
    fn processors_idle_and_stolen_time_are_read() {
        assert_eq!(
            Counters::parse(STAT),
            Some(Counters {
                processors: 2,
                idle: Duration::from_millis(40_500),
                stolen: Duration::from_millis(80),
            })
        );
    }

    #[test]
    fn what_is_no_stat_is_refused() {
        for text in [
            "",
            "intr 1",
            "cpu  1 2 3",
            "cpu  1 2 3 4 5 6 7 x",
            "cpu0 1 2 3 4 5 6 7 8",
        ] {
            assert_eq!(Counters::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn busy_is_what_was_neither_idle_nor_stolen() {
        let counters = |idle, stolen| Counters {
            processors: 2,
            idle: Duration::from_millis(idle),
            stolen: Duration::from_millis(stolen),
        };
        let table = [
            // Idle, stolen, and what remains of 2 s of two processors.
            (0, 0, 4000),
            (1000, 0, 3000),
            (1000, 1000, 2000),
            // The counters lag behind by a tick: never below nothing.
            (4010, 0, 0),
        ];
        for (idle, stolen, busy) in table {
            let used = counters(500 + idle, 100 + stolen)
                .since(counters(500, 100), Duration::from_secs(2));
            let expected = Used {
                busy: Duration::from_millis(busy),
                stolen: Duration::from_millis(stolen),
                all: Duration::from_secs(4),
            };
            assert_eq!(used, expected, "{idle} ms idle, {stolen} ms stolen");
        }
    }

    #[test]
    fn usage_of_a_cgroup_is_found_among_its_fields() {
        let table = [
            ("usage_usec 1500000\nuser_usec 1\n", Some(1500)),
            ("user_usec 1\nusage_usec 7000\n", Some(7)),
            ("user_usec 1\n", None),
        ];
        for (text, milliseconds) in table {
            assert_eq!(
                usage(text),
                milliseconds.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }
}
