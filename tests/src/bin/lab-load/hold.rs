//! Connections that are kept open after one request each.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::{http::Answer, share};

/// How long connecting, and each step of a request, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many connections are opened at once: clients that come one by one, and no flood of them.
const AT_ONCE: usize = 8;
/// How much is read at once, in bytes.
const READ: usize = 4096;

/// Opens connections, makes a request on each, and gives them, idle.
///
/// # Errors
/// The first that failed.
pub(crate) fn open(server: SocketAddr, connections: usize) -> io::Result<Vec<TcpStream>> {
    let request = format!("GET / HTTP/1.1\r\nHost: {server}\r\n\r\n");
    let request = request.as_bytes();
    thread::scope(|scope| {
        let parts: Vec<_> = (0..AT_ONCE)
            .map(|part| {
                let count = share(connections, AT_ONCE, part);
                scope.spawn(move || (0..count).map(|_| ask(server, request)).collect())
            })
            .collect();
        let mut held = Vec::with_capacity(connections);
        for part in parts {
            let opened: io::Result<Vec<TcpStream>> = part
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            held.extend(opened?);
        }
        Ok(held)
    })
}

/// A connection on which one request was answered.
fn ask(server: SocketAddr, request: &[u8]) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&server, PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(request)?;
    let (mut answer, mut buffer) = (Answer::default(), [0; READ]);
    loop {
        let came = socket.read(&mut buffer)?;
        if came == 0 {
            return Err(io::Error::other("it closed instead of answering"));
        }
        if answer
            .feed(&buffer[..came])
            .map_err(io::Error::other)?
            .is_some()
        {
            return Ok(socket);
        }
    }
}
