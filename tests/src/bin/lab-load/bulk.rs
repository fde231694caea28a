//! Streams of bytes in one direction.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
};

use crate::{
    on_threads,
    poll::{Events, Interest, Poller, SECOND, events, now, token},
    share,
    tally::Tally,
};

/// How much is written at once, in bytes.
const WRITE: usize = 128 * 1024;
/// How long opening a connection may take, and, after the last byte was written, the receiver's
/// count, in nanoseconds.
const PATIENCE: u64 = 10 * SECOND;
/// What the receiver tells: a number of 8 bytes.
const COUNT: usize = 8;

/// Sends for `time` nanoseconds, after a tenth of that on connections of its own, which doesn't
/// count. What counts is what the receivers tell, from the first byte until the last one told.
///
/// # Errors
/// If epoll fails. What happens to streams is in the tally.
pub(crate) fn run(
    server: SocketAddr,
    streams: usize,
    threads: usize,
    time: u64,
) -> io::Result<(Tally, u64)> {
    let (warm, _) = run_once(server, streams, threads, time / 10)?;
    let (mut tally, elapsed) = run_once(server, streams, threads, time)?;
    let mut of_warm_up = warm;
    of_warm_up.bytes = 0;
    tally.add(of_warm_up)?;
    Ok((tally, elapsed))
}

fn run_once(
    server: SocketAddr,
    streams: usize,
    threads: usize,
    time: u64,
) -> io::Result<(Tally, u64)> {
    let threads = threads.min(streams);
    on_threads(threads, |thread| {
        Bulk::new(server, share(streams, threads, thread))?.run(time)
    })
}

struct Bulk {
    poller: Poller,
    tally: Tally,
    server: SocketAddr,
    streams: Vec<Option<Stream>>,
}

struct Stream {
    socket: TcpStream,
    connected: bool,
    written: u64,
    count: Vec<u8>,
}

impl Bulk {
    fn new(server: SocketAddr, streams: usize) -> io::Result<Self> {
        let mut bulk = Self {
            poller: Poller::new()?,
            tally: Tally::new()?,
            server,
            streams: Vec::new(),
        };
        for index in 0..streams {
            let opened = crate::requests::connect(server).and_then(|socket| {
                bulk.poller.add(&socket, index, Interest::Write)?;
                Ok(Stream {
                    socket,
                    connected: false,
                    written: 0,
                    count: Vec::with_capacity(COUNT),
                })
            });
            bulk.streams.push(None);
            match opened {
                Ok(stream) => bulk.streams[index] = Some(stream),
                Err(error) => bulk.fail(index, "connect", &error),
            }
        }
        Ok(bulk)
    }

    fn run(mut self, time: u64) -> io::Result<(Tally, u64)> {
        let begin = now();
        self.until(begin + time, Self::write)?;
        for index in 0..self.streams.len() {
            self.end(index);
        }
        self.until(now() + PATIENCE, Self::count)?;
        let elapsed = now() - begin;
        for index in 0..self.streams.len() {
            if self.streams[index].is_some() {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                self.fail(index, "hear the receiver's count", &late);
            }
        }
        Ok((self.tally, elapsed))
    }

    /// Does something to each stream that is ready, until none is left or the time has come.
    fn until(&mut self, deadline: u64, act: fn(&mut Self, usize)) -> io::Result<()> {
        let mut ready: Events = events();
        while now() < deadline && self.streams.iter().any(Option::is_some) {
            self.poller.wait_until(&mut ready, deadline)?;
            for index in ready.iter().filter_map(token) {
                act(self, index);
            }
        }
        Ok(())
    }

    fn write(&mut self, index: usize) {
        static BLOCK: [u8; WRITE] = [b'.'; WRITE];
        let Some(stream) = &mut self.streams[index] else {
            return;
        };
        let written = stream.confirm().and_then(|()| stream.socket.write(&BLOCK));
        match written {
            Ok(bytes) => stream.written += bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(index, "send to", &error),
        }
    }

    /// Says that no more will come, and waits for the count.
    fn end(&mut self, index: usize) {
        let Some(stream) = &mut self.streams[index] else {
            return;
        };
        let ended = stream
            .confirm()
            .and_then(|()| stream.socket.shutdown(Shutdown::Write))
            .and_then(|()| self.poller.change(&stream.socket, index, Interest::Read));
        if let Err(error) = ended {
            self.fail(index, "end a stream to", &error);
        }
    }

    fn count(&mut self, index: usize) {
        let Some(stream) = &mut self.streams[index] else {
            return;
        };
        let mut buffer = [0; COUNT];
        let came = match stream.socket.read(&mut buffer[stream.count.len()..]) {
            Ok(came) => came,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return self.fail(index, "hear the count of", &error),
        };
        let at = stream.count.len();
        stream.count.extend_from_slice(&buffer[at..at + came]);
        let told = <[u8; COUNT]>::try_from(&stream.count[..]).map(u64::from_be_bytes);
        match told {
            Ok(told) if told == stream.written => {
                self.tally.bytes += told;
                self.tally.all_bytes += told;
                self.streams[index] = None;
            }
            Ok(told) => {
                let lost = format!("it got {told} bytes of {}", stream.written);
                self.fail(index, "send all to", &io::Error::other(lost));
            }
            Err(_) if came == 0 => {
                let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
                self.fail(index, "hear the count of", &closed);
            }
            Err(_) => {}
        }
    }

    fn fail(&mut self, index: usize, doing: &str, error: &io::Error) {
        let server = self.server;
        self.tally.error(|| format!("{doing} {server}: {error}"));
        self.streams[index] = None;
    }
}

impl Stream {
    /// Asks once whether the connection has come about.
    fn confirm(&mut self) -> io::Result<()> {
        if !self.connected {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            self.connected = true;
        }
        Ok(())
    }
}
