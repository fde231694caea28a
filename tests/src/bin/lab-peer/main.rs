//! What pods of the lab run to talk to each other: servers and clients that report in JSON.
//!
//! A server prints `{"listening": "<address>"}` when it is ready, then one line a connection, when
//! that has ended; a server of requests, a line a request. A client prints one line. Blocking sockets
//! and threads, the application that a mesh must not surprise, but where a protocol needs more than
//! bytes.

mod advertise;
mod asynchronous;
mod client;
mod connection;
mod forge;
mod grpc;
mod http_client;
mod http_server;
mod otlp;
mod raw;
mod server;
mod websocket;

use std::{io::Write as _, net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

#[derive(Parser)]
#[command(about = "Servers and clients for the pods of the lab")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Sends back what it gets, until the client's end.
    EchoServer {
        #[command(flatten)]
        server: Server,
    },
    /// Opens connections, all at once, and has each echo its requests.
    EchoClient {
        #[command(flatten)]
        client: Client,
        /// How many connections are open at once.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// How many requests each makes.
        #[arg(long, default_value_t = 1)]
        requests: usize,
        /// How long a request is, in bytes.
        #[arg(long, default_value_t = 64)]
        bytes: usize,
    },
    /// Opens connections, reports that, and waits until all have been ended by the other side.
    IdleClient {
        #[command(flatten)]
        client: Client,
        /// How many.
        #[arg(long, default_value_t = 1)]
        connections: usize,
    },
    /// Has a text echoed over and over until it is killed: reports the first echo on each
    /// connection, and how each ended. Tries again where it can't connect.
    PersistentClient {
        #[command(flatten)]
        client: Client,
        /// The text of each request.
        #[arg(long)]
        text: String,
        /// Pause between requests, and between attempts to connect, in milliseconds.
        #[arg(long, default_value_t = 20)]
        interval_ms: u64,
    },
    /// Sends and receives at once, and reports the hashes of both.
    TransferServer {
        #[command(flatten)]
        server: Server,
        /// How many bytes it sends.
        #[arg(long)]
        bytes: u64,
    },
    /// Sends and receives at once, and reports the hashes of both.
    TransferClient {
        #[command(flatten)]
        client: Client,
        /// How many bytes it sends.
        #[arg(long)]
        bytes: u64,
    },
    /// A slow reader: sleeps first, then reads to the end at a bounded rate.
    SinkServer {
        #[command(flatten)]
        server: Server,
        /// How long it sleeps before it reads, in milliseconds.
        #[arg(long, default_value_t = 0)]
        pause_ms: u64,
        /// How much it reads a second, in bytes; 0 is without limit.
        #[arg(long, default_value_t = 0)]
        rate: u64,
    },
    /// One side ends its direction; the other one goes on.
    HalfCloseServer {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        half_close: HalfClose,
    },
    /// One side ends its direction; the other one goes on.
    HalfCloseClient {
        #[command(flatten)]
        client: Client,
        #[command(flatten)]
        half_close: HalfClose,
    },
    /// Resets each connection after some bytes.
    ResetServer {
        #[command(flatten)]
        server: Server,
        /// How many bytes it reads before.
        #[arg(long, default_value_t = 1)]
        after: u64,
    },
    /// Has an echo server echo some bytes, then resets the connection.
    ResetClient {
        #[command(flatten)]
        client: Client,
        /// How many bytes are echoed before.
        #[arg(long, default_value_t = 1)]
        after: u64,
    },
    /// Sends some bytes and reports how the connection ends, without ending it.
    ObserveClient {
        #[command(flatten)]
        client: Client,
        /// How many bytes it sends.
        #[arg(long, default_value_t = 1)]
        bytes: u64,
    },
    /// Answers HTTP/1.1 and HTTP/2 with what it has seen, and does what the query says.
    HttpServer(http_server::HttpServer),
    /// Makes HTTP requests, one after the other on one connection.
    HttpClient(http_client::HttpClient),
    /// Echoes messages of WebSocket.
    WebsocketServer {
        #[command(flatten)]
        server: Server,
    },
    /// Has messages of WebSocket echoed.
    WebsocketClient(websocket::WebSocketClient),
    /// Echoes messages of gRPC, method /lab.Echo/Call.
    GrpcServer(grpc::GrpcServer),
    /// Makes one gRPC call.
    GrpcClient(grpc::GrpcClient),
    /// Sends bytes as they are, slowly, and reports what comes back.
    RawClient(raw::RawClient),
    /// Answers a head of HTTP/1.1 with bytes as they are, and closes.
    RawServer(raw::RawServer),
    /// Takes spans by OTLP over gRPC.
    Otlp {
        #[command(flatten)]
        server: Server,
    },
    /// Sends TCP SYNs, or answers, with any source address, in any dress, through a raw socket.
    ForgeSyn {
        #[command(flatten)]
        forgery: forge::Forgery,
    },
    /// Sends a router advertisement with a prefix to all nodes of eth0's link.
    AdvertiseRouter,
}

/// Where a server listens.
#[derive(Args)]
struct Server {
    /// The address and port; port 0 is any that is free.
    #[arg(long)]
    listen: SocketAddr,
    /// Let an IPv6 socket take IPv4 too, which it sees as v4-mapped.
    #[arg(long)]
    dual_stack: bool,
}

/// Where a client connects to.
#[derive(Args)]
struct Client {
    /// The server.
    #[arg(long)]
    connect: SocketAddr,
    /// The client's own address, if not the one the system chooses; port 0 is any.
    #[arg(long)]
    source: Option<SocketAddr>,
    /// How long connecting, and each read or write, may take, in milliseconds.
    #[arg(long, default_value_t = 20_000)]
    timeout_ms: u64,
}

#[derive(Args)]
struct HalfClose {
    /// How many bytes each side sends.
    #[arg(long, default_value_t = 1000)]
    bytes: u64,
    /// Who ends its direction first; the other one sends only after it has seen that.
    #[arg(long, value_enum, default_value_t = Side::Client)]
    first: Side,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Side {
    Client,
    Server,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().mode {
        Mode::EchoServer { server } => server::run(&server, server::echo),
        Mode::TransferServer { server, bytes } => {
            server::run(&server, move |stream| connection::transfer(stream, bytes))
        }
        Mode::SinkServer {
            server,
            pause_ms,
            rate,
        } => server::run(&server, move |stream| server::sink(stream, pause_ms, rate)),
        Mode::HalfCloseServer {
            server,
            half_close: HalfClose { bytes, first },
        } => server::run(&server, move |stream| {
            connection::half_close(stream, bytes, first == Side::Server)
        }),
        Mode::ResetServer { server, after } => {
            server::run(&server, move |stream| server::reset(stream, after))
        }
        Mode::EchoClient {
            client,
            connections,
            requests,
            bytes,
        } => report(&client::echo(&client, connections, requests, bytes)?),
        Mode::IdleClient {
            client,
            connections,
        } => client::idle(&client, connections),
        Mode::PersistentClient {
            client,
            text,
            interval_ms,
        } => client::persistent(&client, &text, Duration::from_millis(interval_ms)),
        Mode::TransferClient { client, bytes } => {
            client::run(&client, |stream| connection::transfer(stream, bytes))
        }
        Mode::HalfCloseClient {
            client,
            half_close: HalfClose { bytes, first },
        } => client::run(&client, |stream| {
            connection::half_close(stream, bytes, first == Side::Client)
        }),
        Mode::ResetClient { client, after } => {
            client::run(&client, |stream| client::reset(stream, after))
        }
        Mode::ObserveClient { client, bytes } => {
            client::run(&client, |stream| client::observe(stream, bytes))
        }
        Mode::HttpServer(arguments) => http_server::run(arguments),
        Mode::HttpClient(arguments) => http_client::run(&arguments),
        Mode::WebsocketServer { server } => websocket::serve(&server),
        Mode::WebsocketClient(arguments) => websocket::run(&arguments),
        Mode::GrpcServer(arguments) => grpc::serve(arguments),
        Mode::GrpcClient(arguments) => grpc::run(&arguments),
        Mode::RawClient(arguments) => raw::run(&arguments),
        Mode::RawServer(arguments) => raw::serve(arguments),
        Mode::Otlp { server } => otlp::serve(&server),
        Mode::ForgeSyn { forgery } => report(&forge::send(&forgery)?),
        Mode::AdvertiseRouter => report(&advertise::send()?),
    }
}

/// Prints a line of JSON, whole, whichever thread it comes from.
fn report(value: &Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{value}")?;
    Ok(stdout.flush()?)
}
