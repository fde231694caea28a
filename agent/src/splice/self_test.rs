//! Whether the running kernel's splice does what applications expect of TCP.
//!
//! Each test has a connection of its own over loopback, whose ends the programs take for the agent's
//! and an application's. Kernels differ: bytes that wait unread are counted only since 6.13 or so,
//! and told by FIONREAD only since 6.19, where they weren't backported.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use ambit_common::splice::{OWN_NAMESPACE, PATH_SPLICED, PATH_TCP, SpliceSettings};
use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::ioctl_fionread,
};
use socket2::SockRef;

use super::leg::join;
use crate::capture::{
    maps::{self, place},
    splice::{Kernel, Splice},
};

mod pair;

use pair::{Pair, Server};

/// How long anything on loopback may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// The limit under which the tests run, in bytes.
const LIMIT: u32 = 64 * 1024;
/// What is sent at once to fill a peer, in bytes.
const CHUNK: usize = 16 * 1024;
/// Far more than any reader is given, were its limit kept: the limit twice, the buffers of TCP.
const FAR_TOO_MUCH: usize = 4 << 20;

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A map can't be used.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// A call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The kernel does something else than TCP does.
    #[error("{test}: {found}")]
    Differs {
        /// What was tried.
        test: &'static str,
        /// What came of it.
        found: String,
    },
    /// It was told to fail.
    #[error("it was told to fail")]
    Forced,
}

/// Runs every test, under a limit of its own.
///
/// # Errors
/// [`Error`]: the first that failed.
pub(super) fn run(splice: &mut Splice, fail: bool) -> Result<(), Error> {
    splice.configure(SpliceSettings { limit: LIMIT })?;
    let test = Test {
        kernel: splice.kernel(),
        server: Server::listen()?,
    };
    test.redirect_and_what_a_reader_sees()?;
    test.back_pressure()?;
    test.one_queue()?;
    test.end_after_the_last_byte()?;
    test.nothing_after_an_end()?;
    test.reset_after_the_last_byte()?;
    let pair = test.server.pair()?;
    half_a_packet_is_read_once(splice, &pair)?;
    if fail {
        return Err(Error::Forced);
    }
    Ok(())
}

struct Test<'a> {
    kernel: &'a Kernel,
    server: Server,
}

impl Test<'_> {
    /// What is sent goes past TCP, and shows by poll, epoll, FIONREAD and MSG_PEEK.
    fn redirect_and_what_a_reader_sees(&self) -> Result<(), Error> {
        let Pair { agent, application } = self.pair()?;
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&ready, &application, data, interest).map_err(io::Error::from)?;
        for (mut sender, reader, name) in [
            (&agent, &application, "from the agent"),
            (&application, &agent, "to the agent"),
        ] {
            sender.write_all(b"hello")?;
            sender.write_all(b" world")?;
            check(self.path(sender) == Some(PATH_SPLICED), "redirect", || {
                format!("bytes {name} went through TCP")
            })?;
            await_readable(reader)?;
        }
        let mut events = Vec::with_capacity(4);
        let seen = epoll::wait(
            &ready,
            rustix::buffer::spare_capacity(&mut events),
            Some(&Timespec::default()),
        )
        .map_err(io::Error::from)?;
        check(seen == 1, "epoll", || {
            "it doesn't tell of bytes that wait".into()
        })?;
        for reader in [&application, &agent] {
            let waiting = ioctl_fionread(reader).map_err(io::Error::from)?;
            check(waiting == 11, "FIONREAD", || {
                format!("{waiting} instead of 11")
            })?;
            let mut buffer = [0; 64];
            let peeked = reader.peek(&mut buffer)?;
            check(
                buffer[..peeked] == b"hello world"[..peeked] && peeked > 0,
                "MSG_PEEK",
                || format!("{peeked} bytes: {:?}", &buffer[..peeked]),
            )?;
            let read = read_exactly(reader, 11)?;
            check(read == b"hello world", "read", || format!("{read:?}"))?;
            let after = ioctl_fionread(reader).map_err(io::Error::from)?;
            check(after == 0 && is_empty(reader)?, "read", || {
                format!("{after} bytes wait after the last was read")
            })?;
        }
        Ok(())
    }

    /// Bytes that wait are counted; above the limit a sender goes on through TCP and is held back
    /// there; nothing is lost or overtaken, and once all is read it goes past TCP again.
    fn back_pressure(&self) -> Result<(), Error> {
        const TEST: &str = "back-pressure";
        let Pair { agent, application } = self.pair()?;
        let pattern = pattern();
        for (mut sender, reader) in [(&agent, &application), (&application, &agent)] {
            let sent = fill(sender, &pattern)?;
            check(
                sent < FAR_TOO_MUCH && self.path(sender) == Some(PATH_TCP),
                TEST,
                || format!("{sent} bytes were taken"),
            )?;
            let received = read_exactly(reader, sent)?;
            check(received == pattern[..sent], TEST, || {
                "other bytes arrived".into()
            })?;
            // The kernel lets the first message after a send that it couldn't finish go the same
            // way without asking the program.
            for _ in 0..2 {
                sender.write_all(b"more")?;
                let more = read_exactly(reader, 4)?;
                check(more == b"more", TEST, || format!("{more:?} arrived"))?;
            }
            check(self.path(sender) == Some(PATH_SPLICED), TEST, || {
                "it doesn't end when all is read".into()
            })?;
        }
        Ok(())
    }

    /// What went past TCP and what came through it are read at once: a short read says that there is no
    /// more, and programs with edge-triggered epoll rely on it.
    fn one_queue(&self) -> Result<(), Error> {
        const TEST: &str = "one queue";
        let Pair { agent, application } = self.pair()?;
        let pattern = pattern();
        for (mut sender, mut reader) in [(&agent, &application), (&application, &agent)] {
            let mut sent = 0;
            while sent < FAR_TOO_MUCH && (sent == 0 || self.path(sender) != Some(PATH_TCP)) {
                sent += sender.write(&pattern[sent..][..CHUNK])?;
            }
            let start = Instant::now();
            while ioctl_fionread(reader).map_err(io::Error::from)? < sent as u64
                && start.elapsed() < DEADLINE
            {
                thread::yield_now();
            }
            let mut buffer = vec![0; sent + 1];
            let read = reader.read(&mut buffer)?;
            check(
                read == sent && buffer[..read] == pattern[..read],
                TEST,
                || format!("{read} bytes were read at once, of {sent}"),
            )?;
        }
        Ok(())
    }

    /// FIN: the last byte is read before it, and the other direction goes on.
    fn end_after_the_last_byte(&self) -> Result<(), Error> {
        let Pair { agent, application } = self.pair()?;
        for (mut sender, mut reader) in [(&agent, &application), (&application, &agent)] {
            sender.write_all(b"last")?;
            sender.shutdown(Shutdown::Write)?;
            let read = read_exactly(reader, 4)?;
            await_readable(reader)?;
            let ended = reader.read(&mut [0; 4]);
            check(read == b"last" && matches!(ended, Ok(0)), "FIN", || {
                format!("{read:?}, then {ended:?}")
            })?;
        }
        Ok(())
    }

    /// Who has said its end can't send, and who is reset hears of it.
    fn nothing_after_an_end(&self) -> Result<(), Error> {
        let Pair { agent, application } = self.pair()?;
        agent.shutdown(Shutdown::Write)?;
        let sent = (&agent).write(b"late");
        let is_refused = matches!(&sent, Err(error) if error.kind() == ErrorKind::BrokenPipe);
        check(is_refused, "send after FIN", || format!("{sent:?}"))?;
        (&application).write_all(b"last")?;
        let read = read_exactly(&agent, 4)?;
        check(read == b"last", "send after FIN", || format!("{read:?}"))
    }

    /// RST: the last byte is read before it.
    fn reset_after_the_last_byte(&self) -> Result<(), Error> {
        let Pair { agent, application } = self.pair()?;
        (&agent).write_all(b"last")?;
        SockRef::from(&agent).set_linger(Some(Duration::ZERO))?;
        drop(agent);
        let read = read_exactly(&application, 4)?;
        await_readable(&application)?;
        let ended = (&application).read(&mut [0; 4]);
        let is_reset = matches!(&ended, Err(error) if error.kind() == ErrorKind::ConnectionReset);
        check(read == b"last" && is_reset, "RST", || {
            format!("{read:?}, then {ended:?}")
        })
    }

    /// A new connection whose ends have joined.
    fn pair(&self) -> Result<Pair, Error> {
        let pair = self.server.pair()?;
        // Only what has been used may join.
        (&pair.application).write_all(b"!")?;
        read_exactly(&pair.agent, 1)?;
        let (agent, application) = (pair.agent.local_addr()?, pair.application.local_addr()?);
        let [agent, application] = [agent, application].map(|end| place(end, OWN_NAMESPACE));
        let joined = join(self.kernel, agent, application);
        if let Err(reason) = joined {
            check(false, "join", || reason.name().to_owned())?;
        }
        Ok(pair)
    }

    fn path(&self, socket: &TcpStream) -> Option<u32> {
        self.kernel.end(socket).map(|end| end.path)
    }
}

/// The rest of a packet of which the reader has read a part before it became a member, and then what
/// comes after it.
fn half_a_packet_is_read_once(splice: &Splice, pair: &Pair) -> Result<(), Error> {
    const PART: usize = 3 * CHUNK / 4;
    let (mut sender, reader) = (&pair.agent, &pair.application);
    let pattern = pattern();
    sender.write_all(&pattern[..CHUNK])?;
    let mut received = read_exactly(reader, PART)?;
    splice.enter(rand::random(), reader.as_raw_fd())?;
    sender.write_all(&pattern[CHUNK..][..CHUNK])?;
    received.extend(read_exactly(reader, 2 * CHUNK - PART)?);
    check(
        received == pattern[..2 * CHUNK] && is_empty(reader)?,
        "half a packet",
        || "other bytes arrived".into(),
    )
}

/// Writes until nothing is taken any more; how much was.
fn fill(mut socket: &TcpStream, pattern: &[u8]) -> io::Result<usize> {
    let mut bytes = 0;
    while let Some(rest) = pattern.get(bytes..).filter(|rest| !rest.is_empty()) {
        match socket.write(&rest[..rest.len().min(CHUNK)]) {
            Ok(written) => bytes += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Bytes of which no two pieces are alike.
fn pattern() -> Vec<u8> {
    let words = 0..u32::try_from(FAR_TOO_MUCH / 4).unwrap_or(u32::MAX);
    words.flat_map(u32::to_ne_bytes).collect()
}

fn read_exactly(mut socket: &TcpStream, length: usize) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => await_readable(socket)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(buffer)
}

fn is_empty(mut socket: &TcpStream) -> io::Result<bool> {
    match socket.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        other => other.map(|_| false),
    }
}

fn await_readable(socket: &TcpStream) -> Result<(), Error> {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    let deadline = Timespec::try_from(DEADLINE).unwrap_or_default();
    let ready = poll(&mut sockets, Some(&deadline)).map_err(io::Error::from)?;
    check(ready == 1, "poll", || {
        "it doesn't tell of bytes that wait, or of an end".into()
    })
}

fn check(holds: bool, test: &'static str, found: impl FnOnce() -> String) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Differs {
        test,
        found: found(),
    })
}
