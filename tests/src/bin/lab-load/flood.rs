//! Clients that mean harm: many connections that say nothing, nonsense, too little, or never listen.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    mem::MaybeUninit,
    net::SocketAddr,
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// How often each connection is looked at, and may say something.
const SWEEP: Duration = Duration::from_millis(200);
/// How long a TLS record claims to be whose bytes come one by one.
const RECORD: [u8; 5] = [0x16, 0x03, 0x01, 0x3f, 0x00];

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Harm {
    /// Says nothing.
    Silent,
    /// Says what is no protocol.
    Garbage,
    /// Says a head of HTTP, a byte at a time.
    DripHead,
    /// Says a TLS ClientHello, a byte at a time.
    DripHello,
    /// Asks for page after page, and reads none.
    Unread,
}

#[derive(Args)]
pub(crate) struct Flood {
    /// The servers, in turns.
    #[arg(long, required = true)]
    connect: Vec<SocketAddr>,
    #[arg(long, value_enum)]
    harm: Harm,
    /// Connections at once.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    connections: u16,
    /// Connections in all: for those that the other side ends there are others, up to so many.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    opens: u32,
}

/// Floods until it is killed; says so once all connections were tried for the first time.
pub(crate) fn run(flood: &Flood) -> io::Result<()> {
    let mut slots: Vec<Option<Client>> = (0..flood.connections).map(|_| None).collect();
    let mut servers = flood.connect.iter().cycle();
    let (mut left, mut has_begun) = (flood.opens, false);
    loop {
        for slot in &mut slots {
            let ended = slot.as_mut().is_some_and(|client| client.go_on().is_err());
            if ended {
                *slot = None;
            }
            if slot.is_none() && left > 0 {
                left -= 1;
                *slot = servers
                    .next()
                    .and_then(|server| Client::open(*server, flood.harm).ok());
            }
        }
        if !has_begun {
            has_begun = true;
            writeln!(
                io::stdout(),
                "{}",
                json!({ "flooding": flood.opens - left })
            )?;
        }
        thread::sleep(SWEEP);
    }
}

struct Client {
    socket: Socket,
    harm: Harm,
    said: usize,
}

impl Client {
    fn open(server: SocketAddr, harm: Harm) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            connected => connected?,
        }
        let said = 0;
        Ok(Self { socket, harm, said })
    }

    /// An error once the other side has ended it.
    fn go_on(&mut self) -> io::Result<()> {
        let mut socket = &self.socket;
        let written = match self.harm {
            Harm::Silent => Ok(0),
            Harm::Garbage if self.said > 0 => Ok(0),
            Harm::Garbage => socket.write(&[0xa5; 2048]),
            Harm::DripHead => socket.write(&[b"GET / HTTP/1.1\r\nx: "
                .get(self.said)
                .copied()
                .unwrap_or(b'x')]),
            Harm::DripHello => socket.write(&[RECORD.get(self.said).copied().unwrap_or(1)]),
            Harm::Unread => socket.write(b"GET /metrics HTTP/1.1\r\nhost: ambit\r\n\r\n"),
        };
        match written {
            Ok(written) => self.said += written,
            Err(error) if is_patience(&error) => {}
            Err(error) => return Err(error),
        }
        if self.harm == Harm::Unread {
            return Ok(());
        }
        match socket.peek(&mut [MaybeUninit::uninit()]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            // What is said in answer isn't of interest, only that more may be.
            Ok(_) => socket.read(&mut [0; 4096]).map(drop),
            Err(error) if is_patience(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Not connected yet, or nothing to read, or no room to write.
fn is_patience(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOTCONN)
}
