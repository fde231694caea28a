//! The servers: HTTP/1.1 on a port, a sink for bulk on the next one, a loop a thread.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, Socket, Type};

use crate::{
    http,
    poll::{Events, Interest, Poller, events, token},
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How much is read at once, in bytes. More would be slower: 256 KiB, with what the kernel copies
/// from, don't fit in a core's own cache; on an EPYC they cost the receiver 1.7 times the CPU.
const READ: usize = 128 * 1024;
/// The length of an answer's body if the path is no number, in bytes.
const BODY: usize = 1024;
/// The longest body that a path may ask for, in bytes.
const LONGEST_BODY: usize = 64 * 1024 * 1024;
/// Tokens of the listeners; connections have those from here on.
const LISTENERS: usize = 2;

/// A server that once doesn't answer for a while.
pub(crate) struct Stall {
    /// How long.
    pub(crate) time: Duration,
    /// How many requests it answers before.
    pub(crate) after: u64,
    /// How many it has answered.
    pub(crate) answered: AtomicU64,
}

/// Serves until the process is killed.
///
/// # Errors
/// If it can't listen, or has no descriptor left for a connection.
pub(crate) fn run(
    port: u16,
    threads: usize,
    stall: Option<Stall>,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let sink = port
        .checked_add(1)
        .ok_or_else(|| io::Error::other("the sink needs a port after --port: take a lower one"))?;
    let stall = stall.map(Arc::new);
    // All listen before any is announced. A listener a thread: the kernel spreads connections, and
    // no thread wakes another.
    let mut workers = (0..threads)
        .map(|_| Worker::new([listen(port)?, listen(sink)?], stall.clone()))
        .collect::<io::Result<Vec<_>>>()?;
    ready()?;
    thread::scope(|scope| {
        let all: Vec<_> = workers
            .drain(..)
            .map(|parts| scope.spawn(|| parts.serve()))
            .collect();
        for one in all {
            one.join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
        }
        Ok(())
    })
}

/// A dual-stack listener that shares its port with those of the other threads.
fn listen(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(IpAddr::from([0_u16; 8]), port);
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // What it accepts inherits this.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What can be sent between threads; the rest of a worker is made on its own.
struct Worker {
    listeners: [TcpListener; LISTENERS],
    stall: Option<Arc<Stall>>,
}

impl Worker {
    fn new(listeners: [TcpListener; LISTENERS], stall: Option<Arc<Stall>>) -> io::Result<Self> {
        Ok(Self { listeners, stall })
    }

    fn serve(self) -> io::Result<()> {
        let poller = Poller::new()?;
        for (token, listener) in self.listeners.iter().enumerate() {
            poller.add(listener, token, Interest::Read)?;
        }
        let mut serving = Serving {
            poller,
            connections: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; READ],
            answers: Answers::new(BODY, false),
            stall: self.stall,
        };
        let mut events = events();
        loop {
            serving.poller.wait(&mut events)?;
            serving.handle(&self.listeners, &events)?;
        }
    }
}

struct Serving {
    poller: Poller,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    answers: Answers,
    stall: Option<Arc<Stall>>,
}

struct Connection {
    socket: TcpStream,
    role: Role,
}

enum Role {
    Http(Exchange),
    /// How many bytes have come.
    Sink(u64),
}

#[derive(Default)]
struct Exchange {
    /// Requests, or part of one, that haven't been answered.
    asked: Vec<u8>,
    /// An answer that the socket had no room for, and how much of it has been written.
    pending: Option<(Rc<[u8]>, usize)>,
    /// No request will follow.
    last: bool,
}

/// What a connection waits for now.
#[derive(PartialEq, Eq)]
enum Next {
    Read,
    Write,
    Nothing,
}

impl Serving {
    fn handle(&mut self, listeners: &[TcpListener; LISTENERS], events: &Events) -> io::Result<()> {
        for token in events.iter().filter_map(token) {
            if let Some(listener) = listeners.get(token) {
                self.accept(listener, token)?;
            } else {
                self.serve(token);
            }
        }
        Ok(())
    }

    /// Accepts one connection; if there are more, the listener is ready again at once.
    fn accept(&mut self, listener: &TcpListener, kind: usize) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match accept_with(listener, flags) {
            Ok(socket) => TcpStream::from(socket),
            // The client has gone already.
            Err(error) if is_of_the_client(error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let role = match kind {
            0 => Role::Http(Exchange::default()),
            _ => Role::Sink(0),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.poller
            .add(socket.as_fd(), index + LISTENERS, Interest::Read)?;
        self.connections[index] = Some(Connection { socket, role });
        Ok(())
    }

    fn serve(&mut self, token: usize) {
        let index = token - LISTENERS;
        // Closed by an earlier event of the same wait.
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let buffer = &mut self.buffer[..];
        let writing = matches!(
            &connection.role,
            Role::Http(Exchange {
                pending: Some(_),
                ..
            })
        );
        let next = match &mut connection.role {
            Role::Sink(total) => sink(&connection.socket, total, buffer),
            Role::Http(exchange) => exchange.go_on(
                &connection.socket,
                buffer,
                &mut self.answers,
                self.stall.as_deref(),
            ),
        };
        let changed = match next {
            Ok(Next::Read) if writing => Interest::Read,
            Ok(Next::Write) if !writing => Interest::Write,
            Ok(Next::Read | Next::Write) => return,
            // A reset is the client's own affair.
            Ok(Next::Nothing) | Err(_) => return self.close(index),
        };
        if self
            .poller
            .change(&connection.socket, token, changed)
            .is_err()
        {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        self.connections[index] = None;
        self.free.push(index);
    }
}

fn is_of_the_client(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(
        error,
        Errno::AGAIN | Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::NETDOWN
    )
}

/// Reads once; after the client's end, tells how much came.
fn sink(mut socket: &TcpStream, total: &mut u64, buffer: &mut [u8]) -> io::Result<Next> {
    match read(socket, buffer)? {
        Some(0) => {
            socket.write_all(&total.to_be_bytes())?;
            Ok(Next::Nothing)
        }
        came => {
            *total += came.unwrap_or_default() as u64;
            Ok(Next::Read)
        }
    }
}

impl Exchange {
    /// Writes what is pending, or reads once; answers what was asked.
    fn go_on(
        &mut self,
        socket: &TcpStream,
        buffer: &mut [u8],
        answers: &mut Answers,
        stall: Option<&Stall>,
    ) -> io::Result<Next> {
        if let Some((answer, written)) = self.pending.take() {
            self.write(socket, answer, written)?;
        } else {
            match read(socket, buffer)? {
                Some(0) => return Ok(Next::Nothing),
                Some(came) if self.asked.is_empty() => {
                    // As a rule a request comes whole, and isn't copied.
                    let used = self.answer(socket, &buffer[..came], answers, stall)?;
                    self.asked.extend_from_slice(&buffer[used..came]);
                    return Ok(self.next());
                }
                Some(came) => self.asked.extend_from_slice(&buffer[..came]),
                None => return Ok(Next::Read),
            }
        }
        let asked = std::mem::take(&mut self.asked);
        let used = self.answer(socket, &asked, answers, stall)?;
        self.asked = asked;
        self.asked.drain(..used);
        Ok(self.next())
    }

    fn next(&self) -> Next {
        match (&self.pending, self.last) {
            (Some(_), _) => Next::Write,
            (None, true) => Next::Nothing,
            (None, false) => Next::Read,
        }
    }

    /// Answers requests until one is pending; says how many bytes they had.
    fn answer(
        &mut self,
        socket: &TcpStream,
        asked: &[u8],
        answers: &mut Answers,
        stall: Option<&Stall>,
    ) -> io::Result<usize> {
        let mut used = 0;
        while self.pending.is_none() && !self.last && used < asked.len() {
            let Some(request) = http::request(&asked[used..]).map_err(io::Error::other)? else {
                break;
            };
            if let Some(stall) = stall
                && stall.answered.fetch_add(1, Ordering::Relaxed) == stall.after
            {
                thread::sleep(stall.time);
            }
            self.last = request.close;
            used += request.head;
            self.write(socket, answers.to(&request), 0)?;
        }
        Ok(used)
    }

    fn write(
        &mut self,
        mut socket: &TcpStream,
        answer: Rc<[u8]>,
        mut written: usize,
    ) -> io::Result<()> {
        match socket.write(&answer[written..]) {
            Ok(more) => written += more,
            Err(error) if is_for_later(&error) => {}
            Err(error) => return Err(error),
        }
        if written < answer.len() {
            self.pending = Some((answer, written));
        }
        Ok(())
    }
}

/// Reads once; none if nothing is there.
fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.read(buffer) {
        Ok(came) => Ok(Some(came)),
        Err(error) if is_for_later(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whole answers: the last one is kept, for a load asks for the same all the time.
struct Answers {
    length: usize,
    last: bool,
    bytes: Rc<[u8]>,
}

impl Answers {
    fn new(length: usize, last: bool) -> Self {
        let close = if last { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{close}\r\n");
        let bytes = [head.as_bytes(), &vec![b'.'; length]].concat().into();
        Self {
            length,
            last,
            bytes,
        }
    }

    fn to(&mut self, request: &http::Request<'_>) -> Rc<[u8]> {
        let path = request.path.trim_start_matches('/');
        let length = path.parse().unwrap_or(BODY).min(LONGEST_BODY);
        if (length, request.close) != (self.length, self.last) {
            *self = Self::new(length, request.close);
        }
        Rc::clone(&self.bytes)
    }
}
