//! What libFuzzer says at its end.

use std::fmt;

/// What came of a target that held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    executions: u64,
    /// Edges of our code that some input has taken: of the seeds, and at the end.
    seeded: u64,
    covered: u64,
    /// Inputs that have taken a new one.
    new: u64,
    seconds: u64,
}

impl Report {
    /// Reads the last lines; `None` where they say nothing of coverage.
    pub(super) fn read(lines: &[String]) -> Option<Self> {
        let number = |words: &str| words.split_whitespace().next()?.parse().ok();
        let after = |line: &str, key: &str| number(line.split_once(key)?.1);
        let stat = |key: &str| lines.iter().rev().find_map(|line| after(line, key));
        let coverage = |event: &str| {
            let line = lines.iter().find(|line| line.contains(event))?;
            after(line, " cov: ")
        };
        // `Done 1234 runs in 31 second(s)`
        Some(Self {
            executions: stat("stat::number_of_executed_units:")?,
            seeded: coverage("\tINITED ")?,
            covered: coverage("\tDONE ")?,
            new: stat("stat::new_units_added:")?,
            seconds: stat(" runs in ")?,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} executions, {} edges covered ({} by the seeds), {} new inputs, {} s",
            self.executions, self.covered, self.seeded, self.new, self.seconds
        )
    }
}

/// Why a target has failed: what the panic says, or libFuzzer of its limits.
pub(super) fn cause(lines: &[String]) -> String {
    let is_cause =
        |line: &&String| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    let Some(at) = lines.iter().position(|line| is_cause(&line)) else {
        return lines.last().cloned().unwrap_or_default();
    };
    let said = lines[at..]
        .iter()
        .take_while(|line| !line.starts_with("note: run with"));
    said.take(8)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_reached_is_read_off_the_last_lines() {
        let output = lines(
            "INFO: seed corpus: files: 5 min: 1b max: 63b total: 180b rss: 60Mb\n\
             #6\tINITED cov: 210 ft: 300 corp: 5/180b exec/s: 0 rss: 61Mb\n\
             #91\tNEW    cov: 214 ft: 310 corp: 6/200b lim: 63 exec/s: 0 rss: 61Mb L: 20/63 MS: 1 CopyPart-\n\
             #51042\tDONE   cov: 245 ft: 702 corp: 69/3012b lim: 490 exec/s: 1646 rss: 92Mb\n\
             Done 51042 runs in 31 second(s)\n\
             stat::number_of_executed_units: 51042\n\
             stat::average_exec_per_sec:     1646\n\
             stat::new_units_added:          201\n",
        );
        let report = Report::read(&output).unwrap();
        assert_eq!(
            report.to_string(),
            "51042 executions, 245 edges covered (210 by the seeds), 201 new inputs, 31 s"
        );
    }

    #[test]
    fn without_coverage_there_is_no_report() {
        let output = lines(
            "#2\tINITED exec/s: 0 rss: 61Mb\n#9\tDONE   exec/s: 4 rss: 92Mb\n\
             Done 9 runs in 2 second(s)\nstat::number_of_executed_units: 9\nstat::new_units_added: 0\n",
        );
        assert_eq!(Report::read(&output), None);
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_panic_or_of_the_limit() {
        for (output, expected) in [
            (
                "#2\tINITED cov: 1\nthread '<unnamed>' panicked at a.rs:1:2:\n\"x\" became \"y\"\n\
                 note: run with `RUST_BACKTRACE=1`\nrest",
                "thread '<unnamed>' panicked at a.rs:1:2:\n\"x\" became \"y\"",
            ),
            (
                "==1== ERROR: libFuzzer: timeout after 10 seconds",
                "==1== ERROR: libFuzzer: timeout after 10 seconds",
            ),
            ("one\nkilled", "killed"),
            ("", ""),
        ] {
            assert_eq!(cause(&lines(output)), expected);
        }
    }
}
