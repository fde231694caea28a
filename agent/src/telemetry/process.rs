//! The standard `process_*` metrics, read from `/proc/self` at scrape time.

use std::fs;

use prometheus::proto::MetricFamily;

use super::collector::{Family, Kind};

/// The kernel reports times to user space in 1/100 s on every architecture that Linux with eBPF
/// runs on (`USER_HZ`), whatever its own tick.
const TICKS_PER_SECOND: f64 = 100.0;

const RESIDENT: Family = gauge("process_resident_memory_bytes", "Resident memory.");
const VIRTUAL: Family = gauge("process_virtual_memory_bytes", "Virtual memory.");
const THREADS: Family = gauge("process_threads", "Threads.");
const OPEN_FILES: Family = gauge("process_open_fds", "Open file descriptors.");
const START: Family = gauge(
    "process_start_time_seconds",
    "Start of the process, in seconds since 1970.",
);
const CPU: Family = Family {
    name: "process_cpu_seconds_total",
    help: "CPU time in user and kernel mode.",
    kind: Kind::Counter,
    labels: &[],
};

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        labels: &[],
    }
}

pub(super) const FAMILIES: &[&Family] = &[&RESIDENT, &VIRTUAL, &THREADS, &OPEN_FILES, &START, &CPU];

/// What can be read; a file that can't (a hardened `/proc`) only leaves its families out.
pub(super) fn collect() -> Vec<MetricFamily> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (status, stat) = (read("/proc/self/status"), read("/proc/self/stat"));
    let times = parse_stat(&stat);
    let boot = line_value(&read("/proc/stat"), "btime");
    let start = times.as_ref().zip(boot);
    let files = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let values = [
        (
            RESIDENT,
            line_value(&status, "VmRSS:").map(|kib| kib * 1024.0),
        ),
        (
            VIRTUAL,
            line_value(&status, "VmSize:").map(|kib| kib * 1024.0),
        ),
        (THREADS, line_value(&status, "Threads:")),
        // One of them is the directory being read.
        (
            OPEN_FILES,
            files.map(|count| count.saturating_sub(1) as f64),
        ),
        (START, start.map(|(times, boot)| boot + times.start)),
        (CPU, times.map(|times| times.cpu)),
    ];
    let known = values
        .into_iter()
        .filter_map(|(family, value)| Some((family, value?)));
    known.map(|(family, value)| family.single(value)).collect()
}

/// The first number of the line that starts with `name`.
fn line_value(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Times in seconds.
#[derive(Debug, PartialEq)]
struct Times {
    /// User and system time spent.
    cpu: f64,
    /// Start, since boot.
    start: f64,
}

/// Reads fields 14, 15 (utime, stime) and 22 (starttime) of proc(5)'s stat.
fn parse_stat(stat: &str) -> Option<Times> {
    // Field 2 is the program's name in parentheses, which may hold spaces and parentheses.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<_> = after_name.split_whitespace().collect();
    // The first field here is the third of the file.
    let seconds = |number: usize| {
        let ticks: f64 = fields.get(number - 3)?.parse().ok()?;
        Some(ticks / TICKS_PER_SECOND)
    };
    Some(Times {
        cpu: seconds(14)? + seconds(15)?,
        start: seconds(22)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_name_with_parentheses() {
        let stat = "7 (a) (b c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 9000 1 2";
        let times = Times {
            cpu: 4.0,
            start: 90.0,
        };
        assert_eq!(parse_stat(stat), Some(times));
        for broken in ["", "7 (a", "7 (a) S 1 2", "7 (a) S x x x x x x x x x x x x"] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn this_process_reports_every_family() {
        let families = collect();
        assert_eq!(families.len(), FAMILIES.len());
        let resident = families[0].get_metric()[0].get_gauge().get_value();
        assert!(resident > 1_000_000.0, "{resident}");
    }
}
