//! What the user sees: progress while it runs, a table and a report at the end.

use std::{
    fs,
    io::{self, IsTerminal},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Runs checks behind a progress bar and keeps what came of them.
pub(crate) struct Show {
    bar: ProgressBar,
    outcomes: Vec<Outcome>,
}

/// What came of one check.
struct Outcome {
    name: String,
    pass: bool,
    /// What was seen, or why it failed. The first line says it all, the others show it.
    detail: String,
}

impl Show {
    /// `total` is how many checks there will be. Without a terminal there is no bar.
    pub(crate) fn new(total: usize) -> Show {
        let bar = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("  {spinner} [{pos}/{len}] {msg} ({elapsed})");
            let bar = ProgressBar::new(total as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        } else {
            ProgressBar::hidden()
        };
        let outcomes = Vec::new();
        Show { bar, outcomes }
    }

    /// Runs one check.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<String>) {
        self.make(name, || Ok(((), check()?)));
    }

    /// Runs a check that yields what later ones need, `None` if it failed.
    pub(crate) fn make<T>(
        &mut self,
        name: &str,
        check: impl FnOnce() -> Result<(T, String)>,
    ) -> Option<T> {
        let started = Instant::now();
        if self.bar.is_hidden() {
            eprintln!("  ..   {name}");
        }
        self.bar.set_message(name.to_owned());
        let (made, detail) = match check() {
            Ok((made, detail)) => (Some(made), detail),
            Err(error) => (None, format!("{error:#}")),
        };
        self.bar.inc(1);
        let pass = made.is_some();
        let word = if pass { "ok  " } else { "FAIL" };
        let seconds = started.elapsed().as_secs_f64();
        self.say(&format!(
            "  {word} {name} ({seconds:.1} s)\n{}",
            indented(&detail)
        ));
        let name = name.to_owned();
        self.outcomes.push(Outcome { name, pass, detail });
        made
    }

    /// Says what goes on in a check that takes long.
    pub(crate) fn progress(&self) -> impl Fn(&str) + use<> {
        let (bar, began) = (self.bar.clone(), Instant::now());
        move |now: &str| {
            if bar.is_hidden() {
                eprintln!("  ..   {:4} s  {now}", began.elapsed().as_secs());
            }
            bar.set_message(now.to_owned());
        }
    }

    /// Prints above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Prints the table and writes the report.
    ///
    /// # Errors
    /// The report can't be written, or a check failed.
    pub(crate) fn close(self, report: &Path, took: Duration) -> Result<()> {
        self.bar.finish_and_clear();
        write(report, &json_of(&self.outcomes))
            .with_context(|| format!("cannot write {}", report.display()))?;
        println!("\n{}", table(&self.outcomes));
        let failed = self.outcomes.iter().filter(|outcome| !outcome.pass).count();
        let passed = self.outcomes.len() - failed;
        println!(
            "{passed} passed, {failed} failed in {} s; {}",
            took.as_secs(),
            report.display()
        );
        if failed > 0 {
            bail!("{failed} of {} checks failed", self.outcomes.len());
        }
        Ok(())
    }
}

fn write(report: &Path, value: &Value) -> io::Result<()> {
    if let Some(directory) = report.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(report, format!("{value:#}\n"))
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(|line| format!("         {line}"))
        .collect();
    lines.join("\n")
}

/// One object a check.
fn json_of(outcomes: &[Outcome]) -> Value {
    let object = |Outcome { name, pass, detail }: &Outcome| json!({ "name": name, "pass": pass, "detail": detail });
    outcomes.iter().map(object).collect()
}

fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.name.len())
        .max()
        .unwrap_or(0)
        .max(5);
    let mut text = format!("{:width$}  result  detail\n", "check");
    for Outcome { name, pass, detail } in outcomes {
        let result = if *pass { "pass" } else { "FAIL" };
        let summary = detail.lines().next().unwrap_or_default();
        text += &format!("{name:width$}  {result}    {summary}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Show {
        let bar = ProgressBar::hidden();
        let mut show = Show {
            bar,
            outcomes: Vec::new(),
        };
        assert_eq!(
            show.make("counts sheep", || Ok((3, "three\none by one".to_owned()))),
            Some(3)
        );
        show.check("sleeps", || bail!("too loud"));
        show
    }

    #[test]
    fn the_table_says_each_detail_in_one_line() {
        let table = table(&shown().outcomes);
        let expected = "check         result  detail\n\
                        counts sheep  pass    three\n\
                        sleeps        FAIL    too loud\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn one_failed_check_fails_the_demo_and_is_in_the_report() {
        let directory = std::env::temp_dir().join(format!("demo-report-{}", std::process::id()));
        let report = directory.join("report.json");
        let closed = shown().close(&report, Duration::ZERO);
        assert_eq!(
            closed.expect_err("a check failed").to_string(),
            "1 of 2 checks failed"
        );
        let written = fs::read_to_string(&report).expect("the report is written");
        fs::remove_dir_all(&directory).expect("the directory is ours");
        let expected = json!([
            { "name": "counts sheep", "pass": true, "detail": "three\none by one" },
            { "name": "sleeps", "pass": false, "detail": "too loud" },
        ]);
        assert_eq!(serde_json::from_str::<Value>(&written).ok(), Some(expected));
    }
}
