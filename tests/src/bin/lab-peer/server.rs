//! The servers: a thread a connection, a report a connection.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::{Server, connection, report};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Hundreds of connections are served at once; none needs much.
const STACK: usize = 512 * 1024;

/// Listens for ever and serves every connection on a thread of its own.
pub(crate) fn run(
    server: &Server,
    serve: impl Fn(&TcpStream) -> io::Result<Value> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let listener = listen(server)?;
    report(&json!({ "listening": listener.local_addr()?.to_string() }))?;
    let serve = Arc::new(serve);
    loop {
        let (stream, peer) = listener.accept()?;
        let serve = Arc::clone(&serve);
        let handle = move || {
            let local = stream.local_addr().map(|address| address.to_string()).ok();
            let result =
                serve(&stream).unwrap_or_else(|error| json!({ "end": connection::end(&error) }));
            // The connection is closed, and thus reset if it is to be, before that is reported.
            drop(stream);
            let ends = json!({ "peer": peer.to_string(), "local": local });
            report(&connection::merged(ends, result))
        };
        thread::Builder::new().stack_size(STACK).spawn(handle)?;
    }
}

/// Sends back what comes.
pub(crate) fn echo(mut stream: &TcpStream) -> io::Result<Value> {
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(json!({ "received_bytes": bytes, "end": "eof" })),
            n => {
                bytes += n as u64;
                stream.write_all(&buffer[..n])?;
            }
        }
    }
}

/// Reads slowly.
pub(crate) fn sink(stream: &TcpStream, pause_ms: u64, rate: u64) -> io::Result<Value> {
    thread::sleep(Duration::from_millis(pause_ms));
    let received = connection::receive(stream, |bytes| {
        if let Some(micros) = (bytes as u64 * 1_000_000).checked_div(rate) {
            thread::sleep(Duration::from_micros(micros));
        }
    });
    Ok(received.json())
}

/// Reads some bytes and resets.
pub(crate) fn reset(stream: &TcpStream, after: u64) -> io::Result<Value> {
    let bytes = io::copy(&mut stream.take(after), &mut io::sink())?;
    connection::reset(stream)?;
    Ok(json!({ "received_bytes": bytes, "end": "reset by this side" }))
}

pub(crate) fn listen(server: &Server) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(server.listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if server.listen.is_ipv6() {
        // Said in either case: what a system has as default isn't what a test asked for.
        socket.set_only_v6(!server.dual_stack)?;
    }
    socket.bind(&server.listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
