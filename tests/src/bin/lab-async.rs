//! What event-driven pods of the lab run: non-blocking sockets, edge-triggered epoll, and the
//! conclusion that many programs draw from a read that returned less than it could: that there is
//! no more.
//!
//! A server prints `{"listening": "<address>"}`, then a line a connection; a client prints one line.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How much is read or written at once.
const CHUNK: usize = 64 * 1024;
/// The length after which bytes repeat: a prime, so that a lost or doubled chunk is noticed.
const PERIOD: usize = 1_000_003;

/// A period of the bytes that all send, and a chunk more.
static PATTERN: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..PERIOD + CHUNK).map(|at| byte(at % PERIOD)).collect());

#[derive(Parser)]
#[command(about = "Event-driven servers and clients for the pods of the lab")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
    #[command(flatten)]
    exchange: Exchange,
}

#[derive(Subcommand)]
enum Mode {
    /// Exchanges bytes with whoever connects.
    Serve {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Connects, and exchanges bytes on each connection.
    Call {
        /// Where to connect to.
        #[arg(long)]
        connect: SocketAddr,
        /// How many connections in all.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// How many of them at once.
        #[arg(long, default_value_t = 1)]
        at_once: usize,
    },
}

/// What both sides do: send bytes and end, and read the other side's to their end.
#[derive(Args, Clone, Copy)]
struct Exchange {
    /// How many bytes each side sends.
    #[arg(long, global = true, default_value_t = 64)]
    bytes: usize,
    /// How many times, each once the other side's bytes have come.
    #[arg(long, global = true, default_value_t = 1)]
    times: u32,
    /// For how long it doesn't read at first, in milliseconds.
    #[arg(long, global = true, default_value_t = 0)]
    pause_ms: u64,
    /// How long it takes over each read, in microseconds.
    #[arg(long, global = true, default_value_t = 0)]
    read_us: u64,
    /// Resets the connection instead of ending it, once all is read.
    #[arg(long, global = true)]
    reset: bool,
    /// Ends its direction only once all of the other's is read.
    #[arg(long, global = true)]
    end_last: bool,
    /// How long all of it may take, in milliseconds.
    #[arg(long, global = true, default_value_t = 30_000)]
    timeout_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.mode {
        Mode::Serve { listen } => serve(listen, cli.exchange).await,
        Mode::Call {
            connect,
            connections,
            at_once,
        } => call(connect, connections, at_once, cli.exchange).await,
    }
}

async fn serve(listen: SocketAddr, exchange: Exchange) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!(
        "{}",
        json!({ "listening": listener.local_addr()?.to_string() })
    );
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move { println!("{}", report(exchange.run(stream).await)) });
    }
}

async fn call(
    address: SocketAddr,
    connections: usize,
    at_once: usize,
    exchange: Exchange,
) -> Result<()> {
    let turns = Arc::new(Semaphore::new(at_once));
    let mut calls = JoinSet::new();
    for _ in 0..connections {
        let turns = turns.clone();
        calls.spawn(async move {
            let _turn = turns.acquire().await.map_err(io::Error::other)?;
            exchange.run(TcpStream::connect(address).await?).await
        });
    }
    let results = calls.join_all().await;
    let succeeded = results.iter().filter(|result| result.is_ok()).count();
    let first_error = results.into_iter().find_map(Result::err);
    let mut told = report(first_error.map_or(Ok(()), Err));
    told["succeeded"] = succeeded.into();
    println!("{told}");
    Ok(())
}

fn report(result: io::Result<()>) -> Value {
    match result {
        Ok(()) => json!({ "end": "eof" }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => json!({ "end": "reset" }),
        Err(error) => json!({ "end": error.to_string() }),
    }
}

impl Exchange {
    async fn run(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let limit = Duration::from_millis(self.timeout_ms);
        match timeout(limit, self.both_ways(stream)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn both_ways(self, mut stream: TcpStream) -> io::Result<()> {
        for left in (0..self.times).rev() {
            let ends = left == 0 && !self.reset && !self.end_last;
            self.exchange(&mut stream, ends).await?;
        }
        if self.end_last {
            stream.shutdown().await?;
            if stream.read(&mut [0]).await? > 0 {
                return Err(io::Error::other("more came than was sent"));
            }
        }
        if self.reset {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Sends and reads once, and ends, or doesn't yet.
    async fn exchange(self, stream: &mut TcpStream, ends: bool) -> io::Result<()> {
        let pattern = PATTERN.as_slice();
        let (mut reader, mut writer) = stream.split();
        let send = async {
            let mut sent = 0;
            while sent < self.bytes {
                let start = sent % PERIOD;
                let length = CHUNK.min(self.bytes - sent);
                writer.write_all(&pattern[start..start + length]).await?;
                sent += length;
            }
            if ends {
                writer.shutdown().await?;
            }
            Ok(())
        };
        let receive = async {
            sleep(Duration::from_millis(self.pause_ms)).await;
            let mut buffer = vec![0; CHUNK];
            let mut received = 0;
            loop {
                // Behind these bytes may be those of the next time.
                let most = if ends {
                    CHUNK
                } else {
                    CHUNK.min(self.bytes - received)
                };
                let length = reader.read(&mut buffer[..most]).await?;
                let start = received % PERIOD;
                if buffer[..length] != pattern[start..start + length] {
                    return Err(io::Error::other(format!("other bytes after {received}")));
                }
                received += length;
                if self.read_us > 0 {
                    sleep(Duration::from_micros(self.read_us)).await;
                }
                let is_done = !ends && received == self.bytes;
                if length == 0 && received != self.bytes {
                    return Err(io::Error::other(format!("the end came after {received}")));
                }
                if length == 0 || is_done {
                    return Ok(());
                }
            }
        };
        tokio::try_join!(send, receive)?;
        Ok(())
    }
}

/// Every byte tells about its place.
fn byte(place: usize) -> u8 {
    place
        .wrapping_mul(31)
        .wrapping_add(place >> 8)
        .to_le_bytes()[0]
}
