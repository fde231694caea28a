//! What the user sees while it runs: a bar with the time that is left, or a line a round.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// How far the run is, by the time that its steps were estimated to take.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    total: Duration,
    done: Duration,
    /// The line shown last where there is no terminal.
    line: String,
}

impl Progress {
    /// `total` is what all steps are estimated to take. Without a terminal there is no bar.
    pub(super) fn new(total: Duration) -> Progress {
        let bar = if io::stderr().is_terminal() {
            let bar = ProgressBar::new(milliseconds(total)).with_style(style());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        Progress {
            bar,
            started: Instant::now(),
            total,
            done: Duration::ZERO,
            line: String::new(),
        }
    }

    /// Says what is done now: `line` for a reader without a terminal, who is shown each only once,
    /// and `detail` after it for one who sees the bar.
    pub(super) fn show(&mut self, line: &str, detail: &str) {
        self.bar.set_message(format!("{line} {detail}"));
        if self.bar.is_hidden() && self.line != line {
            let left = self.total.saturating_sub(self.done);
            eprintln!("  ..   {line} (about {} left)", HumanDuration(left));
            line.clone_into(&mut self.line);
        }
    }

    /// Whether there is no time for something that is estimated to take so long.
    pub(super) fn is_late(&self, limit: Option<Duration>, estimate: Duration) -> bool {
        limit.is_some_and(|limit| self.started.elapsed() + estimate > limit)
    }

    /// Something that was estimated to take so long is done.
    pub(super) fn advance(&mut self, estimate: Duration) {
        self.done += estimate;
        self.bar.set_position(milliseconds(self.done));
    }

    /// Prints above the bar.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Removes the bar, and tells how long it all took.
    pub(super) fn close(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}

fn style() -> ProgressStyle {
    let left = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // The bar's own unit is estimated time: more to be trusted than the speed so far.
        let left = state.len().unwrap_or(0).saturating_sub(state.pos());
        let _ = write!(text, "{}", HumanDuration(Duration::from_millis(left)));
    };
    ProgressStyle::with_template("  [{wide_bar}] {percent}%, about {left} left\n  {spinner} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("left", left)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
