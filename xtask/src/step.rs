//! Steps: commands that run behind one line of progress.

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal, Read, Write},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

/// Runs `command` behind the line `title`: a spinner on a terminal, a plain line elsewhere.
///
/// Its output is shown only if it fails, and then all of it. It gets no input.
///
/// # Errors
/// The command could not be started, or failed.
pub(crate) fn run(title: &str, command: Command) -> Result<()> {
    let started = Instant::now();
    let spinner = start(title);
    let outcome = captured(command);
    spinner.finish_and_clear();
    let failure = match outcome {
        Ok((status, _)) if status.success() => {
            eprintln!("  ok   {title} ({} s)", started.elapsed().as_secs());
            return Ok(());
        }
        Ok((status, output)) => {
            eprintln!("  FAIL {title}: {status}");
            io::stderr().write_all(&output)?;
            status.to_string()
        }
        Err(error) => {
            eprintln!("  FAIL {title}: {error}");
            error.to_string()
        }
    };
    bail!("{title}: {failure}")
}

/// Runs `command` with its output going straight to ours.
///
/// # Errors
/// The command could not be started, or failed.
pub(crate) fn run_in_view(title: &str, mut command: Command) -> Result<()> {
    eprintln!("  ..   {title}");
    let status = command.status().with_context(|| title.to_owned())?;
    if !status.success() {
        bail!("{title}: {status}");
    }
    Ok(())
}

/// The cargo that runs us, with `arguments` separated by spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(arguments.split_whitespace());
    command
}

fn start(title: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        eprintln!("  ..   {title}");
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(title.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Stdout and stderr share one pipe, so that their lines stay in order.
fn captured(mut command: Command) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (mut reader, writer) = io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    // It holds our ends of the pipe: while they are open the reader meets no end of file.
    drop(command);
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    Ok((child.wait()?, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_of_both_streams_is_kept_in_order() {
        let (status, output) = captured(shell("echo one; echo two >&2; echo three; exit 3"))
            .expect("sh can be started");
        assert_eq!(status.code(), Some(3));
        assert_eq!(String::from_utf8_lossy(&output), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_failing_or_absent_command_fails_the_step() {
        assert!(run("succeeds", shell("true")).is_ok());
        let failed = run("counts sheep", shell("exit 3")).expect_err("exit 3 is a failure");
        assert_eq!(failed.to_string(), "counts sheep: exit status: 3");
        let absent = run("is absent", Command::new("/nonexistent")).expect_err("nothing to run");
        assert!(absent.to_string().starts_with("is absent: "), "{absent}");
    }
}
