//! Where a report comes from: the command, the sources, and the programs that took part.

use std::{collections::BTreeMap, env, ffi::OsStr, path::Path, process::Command, time::Duration};

use jiff::Timestamp;

use super::{
    plan::{Plan, Subject},
    report,
};

/// The date and time, in UTC.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The command that runs, and the commit that it runs on.
pub(super) fn command(date: String, took: Duration, quick: bool) -> report::Command {
    let arguments: Vec<_> = env::args().skip(1).collect();
    report::Command {
        line: format!("cargo xtask {}", arguments.join(" ")),
        date,
        seconds: took.as_secs_f64(),
        revision: first_line("git", &["describe", "--always", "--dirty", "--exclude=*"]),
        quick,
    }
}

/// What the measured programs say of themselves, those that say it in the usual way.
pub(super) fn versions(ambit: &Path, plan: &Plan) -> BTreeMap<String, String> {
    let sidecars = plan.subjects.iter().filter_map(|subject| match subject {
        Subject::Sidecar(mode) | Subject::HttpSidecar(mode) => {
            let program = mode.strip_prefix("sidecar-")?;
            let program = program.strip_suffix("-http").unwrap_or(program);
            // HAProxy has the short option only, Envoy the long one too.
            let version = ["-v", "--version"]
                .into_iter()
                .find_map(|option| first_line(program, &[option]))?;
            Some((program.to_owned(), version))
        }
        Subject::Direct | Subject::Ambit | Subject::AmbitProxied | Subject::AmbitWaypoint => None,
    });
    let ambit = first_line(ambit, &["--version"]).map(|version| ("ambit".to_owned(), version));
    sidecars.chain(ambit).collect()
}

/// The first line of a program's output that isn't empty; `None` if it fails.
fn first_line(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    output.status.success().then(|| line.to_owned())
}
