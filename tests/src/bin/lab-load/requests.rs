//! Loads made of requests: how they are paced, and over which connections.

mod schedule;

use std::{
    collections::VecDeque,
    fmt::Display,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    rc::Rc,
};

use rustix::event::epoll::EventFlags;
use socket2::{Domain, Socket, Type};

use crate::{
    http::Answer,
    on_threads,
    poll::{Interest, Poller, SECOND, events, now, token},
    requests::schedule::Schedule,
    share,
    tally::Tally,
};

/// How much is read at once, in bytes.
const READ: usize = 64 * 1024;
/// How long a connection that failed rests before it is opened again, in nanoseconds: a server that
/// is away is asked a hundred times a second.
const REST: u64 = SECOND / 100;
/// How long requests of a fixed rate may be answered after the last one was sent, in nanoseconds.
const DRAIN: u64 = SECOND;

/// Where to, over how many connections, for how long.
pub(crate) struct Settings<'a> {
    pub(crate) server: SocketAddr,
    pub(crate) path: &'a str,
    /// Nanoseconds that count; a tenth is added before.
    pub(crate) time: u64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
}

/// When a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As soon as the one before it on the same connection is answered.
    Closed,
    /// When it is due, so many times a second, over all connections.
    Rate(u32),
    /// On a new connection, as soon as the one before it has ended.
    Connect,
}

/// Makes the load.
///
/// # Errors
/// If epoll fails. What happens to connections and requests is in the tally.
pub(crate) fn run(settings: &Settings<'_>, pace: Pace) -> io::Result<(Tally, u64)> {
    let threads = settings.threads.min(settings.connections);
    let begin = now();
    on_threads(threads, |thread| {
        let connections = share(settings.connections, threads, thread);
        let schedule = match pace {
            Pace::Rate(rate) => Some(Schedule::new(begin, rate, threads, thread)),
            Pace::Closed | Pace::Connect => None,
        };
        Requests::new(settings, pace, begin, schedule)?.run(connections)
    })
}

/// Begins to connect.
pub(crate) fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::STREAM.nonblocking(),
        None,
    )?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// One thread's share of the load.
struct Requests {
    poller: Poller,
    tally: Tally,
    pace: Pace,
    server: SocketAddr,
    request: Rc<[u8]>,
    buffer: Box<[u8]>,
    connections: Vec<Connection>,
    /// Connections that wait for a request to be due.
    idle: VecDeque<usize>,
    /// When connections that failed are opened again, in order.
    resting: VecDeque<(u64, usize)>,
    schedule: Option<Schedule>,
    /// What begins, or is answered, from then on counts.
    counts_from: u64,
    end: u64,
}

struct Connection {
    socket: Option<TcpStream>,
    state: State,
    /// What the latency of the request counts from.
    from: u64,
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has no socket.
    Closed,
    Connecting,
    Idle,
    /// A request waits for its answer.
    Asked,
    /// The answer has come; the server is to end the connection.
    Ending,
}

impl Requests {
    fn new(
        settings: &Settings<'_>,
        pace: Pace,
        begin: u64,
        schedule: Option<Schedule>,
    ) -> io::Result<Self> {
        let last = if pace == Pace::Connect {
            "Connection: close\r\n"
        } else {
            ""
        };
        let (path, host) = (settings.path, settings.server);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{last}\r\n");
        let counts_from = begin + settings.time / 10;
        Ok(Self {
            poller: Poller::new()?,
            tally: Tally::new()?,
            pace,
            server: settings.server,
            request: request.into_bytes().into(),
            buffer: vec![0; READ].into(),
            connections: Vec::new(),
            idle: VecDeque::new(),
            resting: VecDeque::new(),
            schedule,
            counts_from,
            end: counts_from + settings.time,
        })
    }

    fn run(mut self, connections: usize) -> io::Result<(Tally, u64)> {
        for index in 0..connections {
            self.connections.push(Connection {
                socket: None,
                state: State::Closed,
                from: 0,
                answer: Answer::default(),
            });
            self.open(index);
        }
        let mut ready = events();
        while now() < self.end {
            self.poller.wait_until(&mut ready, self.next_deadline())?;
            for event in &ready {
                if let Some(index) = token(event) {
                    self.handle(index, event.flags);
                }
            }
            self.wake();
        }
        if let Some(schedule) = &mut self.schedule {
            self.tally.unsent = schedule.due_until(self.end);
            self.schedule = None;
            self.drain()?;
        }
        Ok((self.tally, self.end - self.counts_from))
    }

    fn next_deadline(&self) -> u64 {
        let due = match &self.schedule {
            Some(schedule) if !self.idle.is_empty() => schedule.next(),
            _ => self.end,
        };
        let rested = self.resting.front().map_or(self.end, |(until, _)| *until);
        self.end.min(due).min(rested)
    }

    /// Does what the clock asks for.
    fn wake(&mut self) {
        let now = now();
        while let Some((until, index)) = self.resting.front().copied()
            && until <= now
        {
            self.resting.pop_front();
            self.open(index);
        }
        while !self.idle.is_empty()
            && let Some(due) = self.take_due(now)
            && let Some(index) = self.idle.pop_front()
        {
            self.ask(index, due);
        }
    }

    /// The time of the next request, if it is due.
    fn take_due(&mut self, now: u64) -> Option<u64> {
        let end = self.end;
        let schedule = self.schedule.as_mut()?;
        (schedule.next() <= now && schedule.next() < end).then(|| schedule.take())
    }

    /// Waits for answers to what was sent at a fixed rate.
    fn drain(&mut self) -> io::Result<()> {
        let deadline = now() + DRAIN;
        let mut ready = events();
        let asked = |all: &[Connection]| all.iter().any(|one| one.state == State::Asked);
        while now() < deadline && asked(&self.connections) {
            self.poller.wait_until(&mut ready, deadline)?;
            for event in &ready {
                if let Some(index) = token(event)
                    && self.connections[index].state == State::Asked
                {
                    self.handle(index, event.flags);
                }
            }
        }
        let unanswered = self.connections.iter();
        for _ in unanswered.filter(|connection| connection.state == State::Asked) {
            let server = self.server;
            self.tally
                .error(|| format!("no answer by {server} within 1 s after the load's end"));
        }
        Ok(())
    }

    fn open(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.from = now();
        let opened = connect(self.server).and_then(|socket| {
            self.poller.add(&socket, index, Interest::Changes)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                connection.socket = Some(socket);
                connection.state = State::Connecting;
            }
            Err(error) => self.fail(index, "connect to", error),
        }
    }

    fn handle(&mut self, index: usize, flags: EventFlags) {
        let connection = &mut self.connections[index];
        let Some(socket) = &connection.socket else {
            // Closed by an earlier event of the same wait.
            return;
        };
        if flags.intersects(EventFlags::ERR | EventFlags::HUP)
            && let Ok(Some(error)) = socket.take_error()
        {
            let doing = match connection.state {
                State::Connecting => "connect to",
                _ => "talk to",
            };
            return self.fail(index, doing, error);
        }
        if connection.state == State::Connecting && flags.contains(EventFlags::OUT) {
            connection.state = State::Idle;
            let from = connection.from;
            match self.pace {
                Pace::Connect => self.ask(index, from),
                Pace::Closed | Pace::Rate(_) => self.next(index),
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            self.read(index, flags.contains(EventFlags::RDHUP));
        }
    }

    /// Reads what has come: as a rule one whole answer, after which nothing is awaited, so that the
    /// socket needn't be asked again. If the other side has ended, it is read up to that.
    fn read(&mut self, index: usize, ended: bool) {
        loop {
            let connection = &mut self.connections[index];
            let Some(socket) = &mut connection.socket else {
                return;
            };
            let came = match socket.read(&mut self.buffer) {
                Ok(0) => return self.ended(index),
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(index, "talk to", error),
            };
            if connection.state != State::Asked {
                return self.fail(index, "talk to", "bytes came that weren't asked for");
            }
            match connection.answer.feed(&self.buffer[..came]) {
                Ok(Some(bytes)) => self.answered(index, bytes),
                // A read that didn't fill the buffer has emptied the socket.
                Ok(None) if came == self.buffer.len() => continue,
                Ok(None) => {}
                Err(error) => return self.fail(index, "talk to", error),
            }
            if !ended {
                return;
            }
        }
    }

    fn answered(&mut self, index: usize, bytes: u64) {
        let now = now();
        let connection = &mut self.connections[index];
        let from = connection.from;
        let counts = match self.pace {
            // What is due while it counts, counts, however late it comes.
            Pace::Rate(_) => from >= self.counts_from,
            Pace::Closed | Pace::Connect => now >= self.counts_from && now < self.end,
        };
        self.tally.answer(now.saturating_sub(from), bytes, counts);
        if self.pace == Pace::Connect {
            connection.state = State::Ending;
        } else {
            connection.state = State::Idle;
            self.next(index);
        }
    }

    /// Finds the next request for a connection that has none.
    fn next(&mut self, index: usize) {
        let now = now();
        match self.pace {
            Pace::Closed => self.ask(index, now),
            Pace::Rate(_) | Pace::Connect => match self.take_due(now) {
                Some(due) => self.ask(index, due),
                None => self.idle.push_back(index),
            },
        }
    }

    fn ask(&mut self, index: usize, from: u64) {
        let request = Rc::clone(&self.request);
        let connection = &mut self.connections[index];
        connection.from = from;
        connection.state = State::Asked;
        let Some(socket) = &mut connection.socket else {
            return;
        };
        match socket.write(&request) {
            Ok(written) if written == request.len() => {}
            Ok(_) => self.fail(index, "ask", "the socket has no room for a request"),
            Err(error) => self.fail(index, "ask", error),
        }
    }

    /// The other side has ended the connection.
    fn ended(&mut self, index: usize) {
        match self.connections[index].state {
            State::Ending => {
                self.close(index);
                self.open(index);
            }
            State::Asked => self.fail(index, "talk to", "it closed instead of answering"),
            _ => self.fail(index, "talk to", "it closed the connection"),
        }
    }

    /// Counts an error, and lets the connection rest.
    fn fail(&mut self, index: usize, doing: &str, error: impl Display) {
        let server = self.server;
        self.tally.error(|| format!("{doing} {server}: {error}"));
        if self.connections[index].state == State::Idle {
            self.idle.retain(|idle| *idle != index);
        }
        self.close(index);
        self.resting.push_back((now() + REST, index));
    }

    fn close(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.socket = None;
        connection.state = State::Closed;
        connection.answer.reset();
    }
}
