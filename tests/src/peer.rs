//! `lab-peer`, the program that pods run to talk to each other.

use std::{env, ffi::OsStr, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{Child, Error, Output, Place, Result};

/// The program's name.
const PEER: &str = "lab-peer";
/// How long a server may take to listen.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take, if nothing else is said.
const CLIENT_DEADLINE: Duration = Duration::from_secs(60);

/// Where `lab-peer` is: beside the running program, or above the directory of test programs.
///
/// Cargo builds it before the tests of this package; others build it with
/// `cargo build -p ambit-tests --bin lab-peer`.
///
/// # Errors
/// If it isn't there.
pub fn peer_program() -> Result<PathBuf> {
    program(PEER, "ambit-tests")
}

/// A program that cargo has built beside the running one.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf> {
    let own = env::current_exe().map_err(Error::io("find the running program"))?;
    let mut found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name));
    found.find(|path| path.is_file()).ok_or_else(|| {
        Error::Unsupported(format!(
            "there is no {name} beside {}: run `cargo build -p {package} --bin {name}`",
            own.display()
        ))
    })
}

/// A `lab-peer` that listens. It is killed when this is dropped.
#[derive(Debug)]
pub struct PeerServer {
    child: Child,
    address: SocketAddr,
}

impl Place {
    /// Starts a server mode of `lab-peer` and waits until it listens.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn peer_server<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<PeerServer> {
        let mut child = self.spawn(self.own_program(PEER)?, args)?;
        let line = child.await_stdout(LISTEN_DEADLINE, |line| line.contains("\"listening\""))?;
        let address = parse(&line)?["listening"]
            .as_str()
            .and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| Error::malformed("lab-peer's first line", line))?;
        Ok(PeerServer { child, address })
    }

    /// Runs a client mode of `lab-peer` to its end, within 60 s, and returns its result.
    ///
    /// # Errors
    /// If it fails by itself; that a connection fails is part of its result.
    pub fn peer<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Value> {
        let command = self
            .command(self.own_program(PEER)?)
            .args(args)
            .deadline(CLIENT_DEADLINE);
        parse(command.run()?.success()?.trim_end())
    }

    /// Starts a client mode of `lab-peer` and goes on: [`Child::wait`] and [`Output::json`], or
    /// [`Child::await_json`].
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn_peer<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Child> {
        self.spawn(self.own_program(PEER)?, args)
    }
}

impl PeerServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has reported so far: one value a connection, in the order of their ends.
    ///
    /// # Errors
    /// If a line isn't JSON.
    pub fn reports(&self) -> Result<Vec<Value>> {
        let text = self.child.stdout();
        // The last line may not be finished yet.
        let lines = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        lines.skip(1).map(parse).collect()
    }

    /// Waits until `count` connections are reported, and returns them.
    ///
    /// # Errors
    /// If it ends first, or `deadline` passes.
    pub fn await_reports(&mut self, count: usize, deadline: Duration) -> Result<Vec<Value>> {
        let stdout = self.child.stdout_path().to_owned();
        let enough = |lines: &[&str]| (lines.len() > count).then_some(());
        self.child.await_lines(&stdout, deadline, enough)?;
        self.reports()
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Child {
    /// Waits for a line of standard output that is a JSON object with a field.
    ///
    /// # Errors
    /// If it ends first, or `deadline` passes.
    pub fn await_json(&mut self, field: &str, deadline: Duration) -> Result<Value> {
        let has = |line: &str| parse(line).is_ok_and(|value| value.get(field).is_some());
        parse(&self.await_stdout(deadline, has)?)
    }
}

impl Output {
    /// Its standard output as one JSON value, if it ended with status 0.
    ///
    /// # Errors
    /// If it failed, or wrote something else.
    pub fn json(self) -> Result<Value> {
        parse(self.success()?.trim_end())
    }
}

fn parse(line: &str) -> Result<Value> {
    serde_json::from_str(line).map_err(|error| Error::malformed(format!("{line:?}"), error))
}
