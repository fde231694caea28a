//! Load for the benchmark: `lab-load`, the lab's own server and generator, and others' generators
//! against the same server, which cross-check it.

mod flood;
mod h2load;
mod idle;
mod iperf3;
mod latency;
mod own;
mod wrk;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use flood::{Flood, Harm};
pub use idle::IdleConnections;
pub use latency::{Latency, Point};

use crate::{Child, Error, Output, Place, Result, peer};

/// How long a server may take to listen.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a generator may take beyond the time that it was given.
const GRACE: Duration = Duration::from_secs(30);
/// The longest load.
const LONGEST: Duration = Duration::from_secs(3600);
/// The sink for bulk listens on the port after that for HTTP, iperf3's server on the next one.
const SINK: u16 = 1;
const IPERF3: u16 = 2;

/// Where `lab-load` is: beside the running program, or above the directory of test programs.
///
/// Cargo builds it before the tests of this package; others build it with
/// `cargo build -p ambit-tests --bin lab-load`.
///
/// # Errors
/// If it isn't there.
pub fn load_program() -> Result<PathBuf> {
    peer::program("lab-load", "ambit-tests")
}

/// What a generator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// Bytes from client to server, in 1 to 1,024 streams, counted by the receiver.
    Bulk {
        /// How many connections.
        streams: usize,
    },
    /// One request after the other on each of 1 to 10,000 keep-alive connections.
    RoundTrip {
        /// How many connections.
        connections: usize,
    },
    /// Requests at a rate fixed beforehand, each on the next idle connection.
    FixedRate {
        /// Up to 10,000,000.
        requests_per_second: u32,
        /// How many connections.
        connections: usize,
    },
    /// A new connection for each request. The server, asked for it by `Connection: close`, ends it
    /// first: the port is thus free for the client's next connection.
    Connect {
        /// How many do so at once, 1 to 10,000.
        clients: usize,
    },
}

/// Who makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// `lab-load`, which can do every load.
    Own,
    /// wrk: `RoundTrip` and `Connect`. Its latencies are what it makes of them: it adds what it
    /// thinks that a delay has hidden.
    Wrk,
    /// h2load in HTTP/1.1: `RoundTrip`, and `FixedRate`, of which latency counts from when a request
    /// was sent (a late one hides its delay).
    H2load,
    /// iperf3: `Bulk`.
    Iperf3,
}

/// What a load brought. A warm-up, a tenth of the time before it, counts only where it is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that the receiver got: the sink's count for bulk, else the answers, heads included.
    pub bytes: u64,
    /// The time that counts.
    pub elapsed: Duration,
    /// As `requests`, warm-up included: what CPU time of the whole run is to be divided by.
    pub all_requests: u64,
    /// As `bytes`, warm-up included.
    pub all_bytes: u64,
    /// Requests of a fixed rate that were due, but were not sent before the end, because all
    /// connections were busy. Their latency isn't in `latency`.
    pub unsent: u64,
    /// Connections and requests that failed, warm-up included.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Of the requests that were answered; none if there were none, or nobody measured it.
    pub latency: Option<Latency>,
}

impl LoadResult {
    /// Of a load that brought nothing.
    fn empty() -> Self {
        Self {
            requests: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            all_requests: 0,
            all_bytes: 0,
            unsent: 0,
            errors: 0,
            first_error: None,
            latency: None,
        }
    }

    /// Requests a second; 0 if there was no time.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate isn't exact")]
        let requests = self.requests as f64;
        self.a_second(requests)
    }

    /// Gbit/s; 0 if there was no time.
    #[must_use]
    pub fn gigabits_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate isn't exact")]
        let bytes = self.bytes as f64;
        self.a_second(bytes * 8e-9)
    }

    fn a_second(&self, amount: f64) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        amount / self.elapsed.as_secs_f64()
    }
}

/// `lab-load serve` in a place, until this is dropped.
///
/// HTTP/1.1 with keep-alive on its port, of every address: 1 KiB for any path, `n` bytes for `/<n>`
/// (64 MiB at most). On the port after it a sink for bulk, which reads to the client's end and
/// answers with the number of bytes, 8 of them, big-endian.
#[derive(Debug)]
pub struct LoadServer {
    place: Place,
    child: Child,
}

impl LoadServer {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// If `lab-load` isn't built, or can't listen.
    pub fn start(place: &Place, port: u16) -> Result<Self> {
        Self::start_with(place, port, &[])
    }

    /// As [`LoadServer::start`], with further arguments.
    ///
    /// # Errors
    /// As [`LoadServer::start`].
    pub fn start_with(place: &Place, port: u16, arguments: &[&str]) -> Result<Self> {
        let port = port.to_string();
        let serve = ["serve", "--port", &port].into_iter();
        let mut child = place.spawn(
            place.own_program("lab-load")?,
            serve.chain(arguments.iter().copied()),
        )?;
        child.await_stdout(LISTEN_DEADLINE, |line| line.contains("listening"))?;
        let place = place.clone();
        Ok(Self { place, child })
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// As [`run`], against this server; for iperf3, `iperf3 --server` is started for the time of
    /// the load beside it, on the second port after its own.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(
        &self,
        client: &Place,
        generator: Generator,
        target: SocketAddr,
        load: &Load,
        time: Duration,
    ) -> Result<LoadResult> {
        match (generator, load) {
            (Generator::Iperf3, Load::Bulk { streams }) => iperf3::run(
                client,
                &self.place,
                port_after(target, IPERF3)?,
                *streams,
                time,
            ),
            _ => run(client, generator, target, load, time),
        }
    }
}

/// Makes a load for `time`, to a [`LoadServer`] that is to be reached at `target`: its HTTP port,
/// for bulk too, which goes to the port after it.
///
/// wrk and iperf3 count whole seconds: theirs is `time` rounded up.
///
/// # Errors
/// If the generator can't make this load, isn't installed, or fails by itself. What happened to
/// connections and requests is in the result.
pub fn run(
    place: &Place,
    generator: Generator,
    target: SocketAddr,
    load: &Load,
    time: Duration,
) -> Result<LoadResult> {
    if time.is_zero() || time > LONGEST {
        return Err(Error::Unsupported(format!(
            "a load of {time:?} isn't possible: give it up to {LONGEST:?}"
        )));
    }
    match (generator, load) {
        (Generator::Own, _) => own::run(place, target, load, time),
        (Generator::Wrk, Load::RoundTrip { connections }) => {
            wrk::run(place, target, *connections, true, time)
        }
        (Generator::Wrk, Load::Connect { clients }) => {
            wrk::run(place, target, *clients, false, time)
        }
        (Generator::H2load, Load::RoundTrip { connections }) => {
            h2load::run(place, target, *connections, None, time)
        }
        (
            Generator::H2load,
            Load::FixedRate {
                requests_per_second,
                connections,
            },
        ) => h2load::run(
            place,
            target,
            *connections,
            Some(*requests_per_second),
            time,
        ),
        (Generator::Iperf3, Load::Bulk { .. }) => Err(Error::Unsupported(
            "iperf3 needs a server of its own: use LoadServer::run".into(),
        )),
        (generator, load) => Err(Error::Unsupported(format!(
            "{generator:?} can't make {load:?}: wrk can RoundTrip and Connect, h2load RoundTrip and \
             FixedRate, iperf3 Bulk, and Own all of them"
        ))),
    }
}

fn port_after(target: SocketAddr, after: u16) -> Result<SocketAddr> {
    let port = target.port().checked_add(after);
    let port = port.ok_or_else(|| {
        Error::Unsupported(format!(
            "{target} has no port {after} after it: take a lower one"
        ))
    })?;
    Ok(SocketAddr::new(target.ip(), port))
}

/// Runs a generator to its end; says where it comes from if it isn't there.
fn run_tool(
    place: &Place,
    program: &str,
    package: &str,
    arguments: &[String],
    time: Duration,
) -> Result<Output> {
    let command = place.command(program).args(arguments);
    let started = command.deadline(time + time / 5 + GRACE).run();
    started.map_err(|error| with_cure(error, program, package))
}

fn with_cure(error: Error, program: &str, package: &str) -> Error {
    match error {
        Error::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::Unsupported(format!(
                "{program} isn't installed: `apt-get install {package}`, or `cargo xtask setup`"
            ))
        }
        other => other,
    }
}

/// As many whole seconds as hold `time`.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_told_with_the_cure() {
        let missing = |kind| Error::Start {
            command: "wrk".into(),
            source: io::Error::from(kind),
        };
        let told = with_cure(missing(io::ErrorKind::NotFound), "h2load", "nghttp2-client");
        let expected =
            "h2load isn't installed: `apt-get install nghttp2-client`, or `cargo xtask setup`";
        assert_eq!(told.to_string(), expected);
        let other = with_cure(missing(io::ErrorKind::PermissionDenied), "wrk", "wrk");
        assert!(matches!(other, Error::Start { .. }), "{other}");
    }

    #[test]
    fn whole_seconds_hold_the_time() {
        for (millis, seconds) in [(1, 1), (999, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
