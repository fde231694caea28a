//! The report of a run: a table for the terminal, and files in three formats.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    machine::Machine,
    measurement::{Curve, Measurement, Missing, Sample},
    statistics,
};

mod grid;
mod html;
mod markdown;
mod plots;
mod table;
mod text;

pub(super) use self::text::number;

/// All that a run yields; `report.json` is this but for the curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) command: Command,
    pub(super) missing: Vec<Missing>,
    /// What one must know to judge the figures, a sentence each.
    #[serde(default)]
    pub(super) notes: Vec<String>,
    pub(super) measurements: Vec<Measurement>,
    #[serde(skip)]
    curves: Vec<Curve>,
}

/// How the run was made, so that anyone can make it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    /// As it was typed.
    pub(super) line: String,
    /// When it started, for people.
    pub(super) date: String,
    /// How long it took.
    pub(super) seconds: f64,
    /// Of git; `None` outside a checkout.
    pub(super) revision: Option<String>,
    /// Fewer and shorter rounds: wider intervals.
    pub(super) quick: bool,
}

impl Report {
    /// A report of what was sampled and of what wasn't.
    ///
    /// `curves` are for the plots of latency, which are drawn from the percentiles among the
    /// samples where there is none.
    pub(super) fn new(
        machine: Machine,
        command: Command,
        missing: Vec<Missing>,
        samples: &[Sample],
        curves: Vec<Curve>,
    ) -> Report {
        let measurements = statistics::measurements(samples);
        Report {
            machine,
            command,
            missing,
            notes: Vec::new(),
            measurements,
            curves,
        }
    }

    /// Adds what one must know to judge the figures.
    #[must_use]
    pub(super) fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Report {
        self.notes.extend(notes);
        self
    }

    /// For the terminal: each figure's ratio to mode `none`.
    pub(super) fn table(&self) -> String {
        table::of(self)
    }

    /// Writes `report.json`, `report.md` and `report.html`.
    ///
    /// # Errors
    /// A file can't be written, or a plot can't be drawn.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("the report as JSON")? + "\n";
        let html = html::of(self).context("the report's plots")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let files = [
            ("report.json", json),
            ("report.md", markdown::of(self)),
            ("report.html", html),
        ];
        for (name, text) in files {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
