//! Real processes in a pod or on a node.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, ExitStatus, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{Error, Place, Result, ip, sys, wait};

/// How long a process that is run to its end may take, if nothing else is said.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// What would send a client to a proxy of the machine, which no namespace of the lab can reach.
const PROXY_VARIABLES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// A command for a place of the lab, made by [`Place::command`].
#[derive(Debug)]
pub struct Command {
    place: Place,
    program: String,
    inner: process::Command,
    deadline: Duration,
}

impl Command {
    pub(crate) fn new(place: Place, program: &OsStr) -> Command {
        let mut inner = process::Command::new(program);
        for variable in PROXY_VARIABLES {
            inner.env_remove(variable);
        }
        Command {
            place,
            program: Path::new(program)
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            inner,
            deadline: RUN_DEADLINE,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Command {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable; the others are inherited, but those that name a proxy.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.inner.env(name, value);
        self
    }

    /// How long [`Command::run`] waits for the end. Default 60 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Command {
        self.deadline = deadline;
        self
    }

    /// Runs the command to its end. A failure of the program itself is in the [`Output`].
    ///
    /// # Errors
    /// If it can't be started, or isn't done by the deadline (it is killed then).
    pub fn run(self) -> Result<Output> {
        let deadline = self.deadline;
        self.spawn()?.wait(deadline)
    }

    /// Starts the command and goes on. Standard input is empty.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(mut self) -> Result<Child> {
        let number = self.place.shared.sequence.fetch_add(1, Ordering::Relaxed);
        let label = self.place.label.replace('/', "-");
        let file = |end| {
            let name = format!("{number:03}-{label}-{}.{end}", self.program);
            self.place.shared.logs().join(name)
        };
        let (stdout, stderr) = (file("out"), file("err"));
        let create = |path: &PathBuf| File::create(path).map_err(Error::path("create", path));
        let (out, err) = (create(&stdout)?, create(&stderr)?);
        self.inner.stdin(Stdio::null()).stdout(out).stderr(err);
        // A group of its own, so that it can be killed with its children, and so that Ctrl-C
        // leaves the order of dying to the lab.
        self.inner.process_group(0);

        let procs = self.place.cgroup.join("cgroup.procs");
        let procs = File::options()
            .write(true)
            .open(&procs)
            .map_err(Error::path("open", &procs))?;
        let namespace = ip::namespace_path(&self.place.namespace);
        let namespace = File::open(&namespace).map_err(Error::path("open", &namespace))?;
        sys::start_in(&mut self.inner, procs, namespace);

        let command = format!("{} ({})", describe(&self.inner), self.place.label);
        let start = |source| Error::Start {
            command: command.clone(),
            source,
        };
        let child = self.inner.spawn().map_err(start)?;
        Ok(Child {
            inner: child,
            place: self.place,
            command,
            stdout,
            stderr,
        })
    }
}

/// A running process. It is killed, with its process group, when this is dropped.
#[derive(Debug)]
pub struct Child {
    inner: process::Child,
    place: Place,
    command: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Child {
    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// What it has written to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// The file its standard error goes to.
    #[must_use]
    pub fn stderr_path(&self) -> &Path {
        &self.stderr
    }

    /// The file its standard output goes to.
    #[must_use]
    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }

    /// Whether it hasn't ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.inner.try_wait(), Ok(None))
    }

    /// Sends it a signal (`libc::SIGTERM`, ...).
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if !self.is_running() {
            return Err(self.ended("take a signal"));
        }
        sys::signal(self.pid(), signal).map_err(Error::io(format!("signal {}", self.command)))
    }

    /// Waits for its end, and kills it if that doesn't come within `deadline`.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn wait(mut self, deadline: Duration) -> Result<Output> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let waiting = || format!("wait for {}", self.command);
            if sys::wait_for_exit(self.pid(), left).map_err(Error::io(waiting()))? {
                let status = self.inner.wait().map_err(Error::io(waiting()))?;
                let stdout = fs::read(&self.stdout).map_err(Error::path("read", &self.stdout))?;
                let command = self.command.clone();
                return Ok(Output {
                    command,
                    status,
                    stdout,
                    stderr: self.stderr(),
                });
            }
            if left.is_zero() {
                return Err(Error::Timeout {
                    waiting_for: format!("the end of `{}`", self.command),
                    after: deadline,
                    state: format!("stderr {:?}, stdout {:?}", self.stderr(), self.stdout()),
                });
            }
        }
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// If it has ended before, or doesn't end within 10 s.
    pub fn stop(mut self) -> Result<Output> {
        self.signal(libc::SIGTERM)?;
        self.wait(STOP_DEADLINE)
    }

    /// Kills it with SIGKILL, and what it started with it, and waits.
    pub fn kill(self) {
        drop(self);
    }

    /// Waits for a line of its standard output.
    ///
    /// # Errors
    /// If it ends first, or `deadline` passes.
    pub fn await_stdout(
        &mut self,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let first = |lines: &[&str]| lines.iter().find(|line| wanted(line)).map(|l| (*l).into());
        self.await_lines(&self.stdout.clone(), deadline, first)
    }

    /// Waits for a line of its standard error.
    ///
    /// # Errors
    /// If it ends first, or `deadline` passes.
    pub fn await_stderr(
        &mut self,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let first = |lines: &[&str]| lines.iter().find(|line| wanted(line)).map(|l| (*l).into());
        self.await_lines(&self.stderr.clone(), deadline, first)
    }

    /// Waits until `find` finds what it wants among all lines that one of the files has by then.
    ///
    /// The output goes to files, so that a kept lab's processes survive this one; a file is
    /// polled.
    pub(crate) fn await_lines<T>(
        &mut self,
        file: &Path,
        deadline: Duration,
        find: impl Fn(&[&str]) -> Option<T>,
    ) -> Result<T> {
        let what = format!("the awaited output of `{}`", self.command);
        let found = wait::poll(&what, deadline, || {
            // Looked at before the file: the last line of a process that ends is still seen.
            let running = self.is_running();
            let text = read(file);
            let lines = text
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'));
            match find(&lines.collect::<Vec<_>>()) {
                Some(found) => Ok(Some(found)),
                None if !running => Ok(None),
                None => Err(format!(
                    "stderr {:?}, stdout {:?}",
                    self.stderr(),
                    self.stdout()
                )),
            }
        })?;
        found.ok_or_else(|| self.ended("write the awaited output"))
    }

    fn ended(&self, before: &str) -> Error {
        Error::Malformed {
            what: format!("the output of `{}`", self.command),
            cause: format!(
                "the process ended before it could {before}; stderr {:?}, stdout {:?}",
                self.stderr(),
                self.stdout()
            ),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.place.shared.kept.load(Ordering::Relaxed) || !self.is_running() {
            return;
        }
        // It has not been reaped, so its id can't be another's.
        let _ = sys::signal_group(self.pid(), libc::SIGKILL);
        let _ = self.inner.wait();
    }
}

/// How a process ended, and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, and where it ran.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// Its standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its standard output as text, if it ended with status 0.
    ///
    /// # Errors
    /// Names the command, its status and its standard error.
    pub fn success(self) -> Result<String> {
        if self.succeeded() {
            return Ok(self.text());
        }
        Err(Error::Failed {
            command: self.command,
            status: self.status,
            stderr: self.stderr,
        })
    }
}

fn describe(command: &process::Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

fn read(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
