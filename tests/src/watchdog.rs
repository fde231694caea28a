//! Takes a lab down, whatever becomes of the process that made it.
//!
//! A shell outside the process's session waits at the end of a pipe. The pipe ends when the lab
//! is dropped, and when its process dies of a panic, Ctrl-C, SIGTERM or SIGKILL: one mechanism
//! for every end, and no signal handler in the test.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use crate::{Error, Result, sys};

/// The shell that waits; its script lies in the lab's directory, for a lab that is kept.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: process::Child,
    script: PathBuf,
}

impl Watchdog {
    /// Starts watching. From here on the lab is taken down even if the caller is killed.
    pub(crate) fn start(lab: &str, cgroup: &Path, directory: &Path) -> Result<Watchdog> {
        let script = directory.join("teardown.sh");
        let text = format!(
            "LAB='{lab}' CGROUP='{}' DIRECTORY='{}'\n{}",
            cgroup.display(),
            directory.display(),
            include_str!("teardown.sh")
        );
        fs::write(&script, text).map_err(Error::path("write", &script))?;
        let mut command = Command::new("sh");
        command.arg(&script).arg("wait").current_dir("/");
        // nextest calls a test leaky if a child holds its standard output.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        sys::start_in_own_session(&mut command);
        let start = |source| Error::Start {
            command: "sh teardown.sh wait".into(),
            source,
        };
        Ok(Watchdog {
            shell: command.spawn().map_err(start)?,
            script,
        })
    }

    /// Takes the lab down now and waits for it.
    pub(crate) fn tear_down(&mut self) -> Result<()> {
        drop(self.shell.stdin.take());
        let mut stderr = String::new();
        if let Some(mut pipe) = self.shell.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr);
        }
        let status = self
            .shell
            .wait()
            .map_err(Error::io("wait for the teardown"))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Failed {
            command: format!("sh {}", self.script.display()),
            status,
            stderr,
        })
    }

    /// Lets the lab stand, and returns the script that takes it down.
    pub(crate) fn dismiss(&mut self) -> Result<&Path> {
        if let Some(mut stdin) = self.shell.stdin.take() {
            stdin
                .write_all(b"keep\n")
                .map_err(Error::io("dismiss the watchdog"))?;
        }
        self.shell
            .wait()
            .map_err(Error::io("wait for the watchdog"))?;
        Ok(&self.script)
    }
}
