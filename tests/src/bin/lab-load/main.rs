//! The benchmark's own servers and load generator.
//!
//! All figures rest on it, so it is to cost as little CPU as it can: one loop a thread, non-blocking
//! sockets, no spinning, no allocation on the way of a request.

mod bulk;
mod flood;
mod hold;
mod http;
mod poll;
mod requests;
mod serve;
mod tally;

use std::{io, io::Write as _, net::SocketAddr, num::NonZero, sync::atomic::AtomicU64, thread};

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::{requests::Pace, tally::Tally};

#[derive(Parser)]
#[command(about = "The benchmark's servers and load generator")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
    /// How many threads serve, or make load; half as many as there are processors by default.
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

#[derive(Subcommand)]
enum Mode {
    /// Answers HTTP/1.1 (1 KiB, or as many bytes as the path `/<n>` says) on a port; on the next one
    /// it takes bytes, and tells their number, 8 bytes big-endian, after the client's end.
    Serve {
        /// The port.
        #[arg(long)]
        port: u16,
        /// For tests: don't answer for so many milliseconds, once.
        #[arg(long, hide = true)]
        stall_ms: Option<u64>,
        /// After how many requests.
        #[arg(long, hide = true, default_value_t = 0)]
        stall_after: u64,
    },
    /// N streams from here to the server, counted there.
    Bulk {
        #[command(flatten)]
        target: Target,
        /// How many streams.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
        streams: u16,
    },
    /// Requests one after the other on N keep-alive connections.
    RoundTrip {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        connections: u16,
    },
    /// Requests that are due at a fixed rate, each on the next idle one of N connections. Latency
    /// counts from when a request was due.
    FixedRate {
        #[command(flatten)]
        target: Target,
        /// Requests a second.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        rate: u32,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        connections: u16,
    },
    /// N keep-alive connections with one answered request each, open until this is killed.
    Hold {
        /// The server.
        #[arg(long)]
        connect: SocketAddr,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=20_000))]
        connections: u16,
    },
    /// N connections that mean harm, opened again when the server ends them, until this is killed.
    Flood(flood::Flood),
    /// N clients, each of which connects, asks, is answered, and ends in order, again and again.
    Connect {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        clients: u16,
    },
}

#[derive(Args)]
struct Target {
    /// The server.
    #[arg(long)]
    connect: SocketAddr,
    /// What is asked for.
    #[arg(long, default_value = "/")]
    path: String,
    /// How long, in milliseconds; a tenth of it is added for warming up, which doesn't count.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    time_ms: u64,
}

impl Target {
    /// In nanoseconds.
    fn time(&self) -> u64 {
        self.time_ms * 1_000_000
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    raise_descriptor_limit()?;
    let threads = cli.threads.map_or_else(half_the_processors, usize::from);
    let (tally, elapsed) = match cli.mode {
        Mode::Serve {
            port,
            stall_ms,
            stall_after,
        } => {
            let stall = stall_ms.map(|time| serve::Stall {
                time: std::time::Duration::from_millis(time),
                after: stall_after,
                answered: AtomicU64::new(0),
            });
            return Ok(serve::run(port, threads, stall, || announce(port))?);
        }
        Mode::Hold {
            connect,
            connections,
        } => {
            let _held = hold::open(connect, usize::from(connections))?;
            writeln!(io::stdout(), "{}", json!({ "held": connections }))?;
            loop {
                thread::park();
            }
        }
        Mode::Flood(flood) => return Ok(flood::run(&flood)?),
        Mode::Bulk { target, streams } => {
            bulk::run(target.connect, usize::from(streams), threads, target.time())?
        }
        Mode::RoundTrip {
            target,
            connections,
        } => requests::run(&target.load(threads, connections), Pace::Closed)?,
        Mode::FixedRate {
            target,
            rate,
            connections,
        } => requests::run(&target.load(threads, connections), Pace::Rate(rate))?,
        Mode::Connect { target, clients } => {
            requests::run(&target.load(threads, clients), Pace::Connect)?
        }
    };
    let result = serde_json::to_string(&tally.result(elapsed))?;
    Ok(writeln!(io::stdout(), "{result}")?)
}

impl Target {
    fn load(&self, threads: usize, connections: u16) -> requests::Settings<'_> {
        requests::Settings {
            server: self.connect,
            path: &self.path,
            time: self.time(),
            connections: usize::from(connections),
            threads,
        }
    }
}

fn announce(port: u16) -> io::Result<()> {
    writeln!(io::stdout(), "{}", json!({ "listening": port }))
}

/// Server and client share a machine: each leaves room for the other, and for what is measured.
fn half_the_processors() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .div_ceil(2)
}

/// A descriptor a connection: as many as the system lets us have.
fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// How many of `all` are one thread's, if the first ones take what can't be divided.
fn share(all: usize, threads: usize, thread: usize) -> usize {
    all / threads + usize::from(thread < all % threads)
}

/// Runs parts of a load on threads of their own, and adds up what they count.
fn on_threads(
    threads: usize,
    part: impl Fn(usize) -> io::Result<(Tally, u64)> + Sync,
) -> io::Result<(Tally, u64)> {
    thread::scope(|scope| {
        let part = &part;
        let others: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || part(thread)))
            .collect();
        let (mut tally, mut elapsed) = part(0)?;
        for other in others {
            let ended = other.join();
            let (more, took) =
                ended.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
            tally.add(more)?;
            elapsed = elapsed.max(took);
        }
        Ok((tally, elapsed))
    })
}
