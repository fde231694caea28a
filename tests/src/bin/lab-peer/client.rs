//! The clients. A connection that fails is a result, not a failure of the program.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::Barrier,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::{Client, connection, report};

/// Hundreds of connections are open at once; none needs much.
const STACK: usize = 512 * 1024;
/// How many different failures are told.
const TOLD_ERRORS: usize = 5;

/// Makes one connection and reports on it.
pub(crate) fn run(
    client: &Client,
    talk: impl FnOnce(&TcpStream) -> io::Result<Value>,
) -> anyhow::Result<()> {
    let result = connect(client).and_then(|stream| {
        let ends = ends(&stream)?;
        let said = talk(&stream).unwrap_or_else(|error| json!({ "end": connection::end(&error) }));
        // Closed, and thus reset if it is to be, before that is reported.
        drop(stream);
        Ok(connection::merged(ends, said))
    });
    report(
        &result
            .unwrap_or_else(|error| json!({ "connected": false, "end": connection::end(&error) })),
    )
}

/// Makes connections and has each echo its requests; none closes before all have been served, so
/// that they are all open at once beyond whatever accepts them here too.
pub(crate) fn echo(
    client: &Client,
    connections: usize,
    requests: usize,
    bytes: usize,
) -> io::Result<Value> {
    let (all_open, all_served) = (Barrier::new(connections), Barrier::new(connections));
    let results = on_threads(connections, |number| {
        let stream = connect(client);
        all_open.wait();
        let served = stream.and_then(|mut stream| {
            for request in 0..requests {
                echo_once(&mut stream, &format!("{number}/{request} "), bytes)?;
            }
            Ok(stream)
        });
        all_served.wait();
        served.map(drop)
    })?;
    let mut errors: Vec<String> = results
        .iter()
        .filter_map(|result| Some(connection::end(result.as_ref().err()?)))
        .collect();
    let failed = errors.len();
    errors.sort();
    errors.dedup();
    errors.truncate(TOLD_ERRORS);
    Ok(json!({ "succeeded": connections - failed, "failed": failed, "errors": errors }))
}

/// Holds connections until the other side ends them.
pub(crate) fn idle(client: &Client, connections: usize) -> anyhow::Result<()> {
    let open = on_threads(connections, |_| {
        let mut stream = connect(client)?;
        echo_once(&mut stream, "open ", 8)?;
        stream.set_read_timeout(None)?;
        Ok(stream)
    })?;
    let open: Vec<TcpStream> = open.into_iter().collect::<io::Result<_>>()?;
    report(&json!({ "open": open.len() }))?;
    let ends: Vec<String> = open
        .iter()
        .map(|mut stream| match stream.read(&mut [0]) {
            Ok(_) => "eof".into(),
            Err(error) => connection::end(&error),
        })
        .collect();
    report(&json!({ "ends": ends }))
}

/// Has a text echoed over and over, on one connection for as long as that lasts, then on another.
pub(crate) fn persistent(client: &Client, text: &str, interval: Duration) -> anyhow::Result<()> {
    let mut connections = 0_usize;
    loop {
        match connect(client) {
            Err(_) => thread::sleep(interval),
            Ok(mut stream) => {
                stream.set_read_timeout(None)?;
                connections += 1;
                let mut requests = 0_usize;
                let end = loop {
                    if let Err(error) = echo_once(&mut stream, text, text.len()) {
                        break connection::end(&error);
                    }
                    if requests == 0 {
                        report(&json!({ "echoing": connections }))?;
                    }
                    requests += 1;
                    thread::sleep(interval);
                };
                report(&json!({ "broken": connections, "requests": requests, "end": end }))?;
            }
        }
    }
}

/// Has bytes echoed, then resets.
pub(crate) fn reset(mut stream: &TcpStream, after: u64) -> io::Result<Value> {
    let bytes = vec![b'r'; usize::try_from(after).map_err(io::Error::other)?];
    stream.write_all(&bytes)?;
    let echoed = io::copy(&mut stream.take(after), &mut io::sink())?;
    connection::reset(stream)?;
    Ok(json!({ "received_bytes": echoed, "end": "reset by this side" }))
}

/// Sends bytes and waits for the other side to end the connection.
pub(crate) fn observe(mut stream: &TcpStream, bytes: u64) -> io::Result<Value> {
    stream.write_all(&vec![
        b'o';
        usize::try_from(bytes).map_err(io::Error::other)?
    ])?;
    Ok(connection::receive(stream, |_| ()).json())
}

fn connect(client: &Client) -> io::Result<TcpStream> {
    let timeout = Duration::from_millis(client.timeout_ms);
    let socket = Socket::new(Domain::for_address(client.connect), Type::STREAM, None)?;
    if let Some(source) = client.source {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&client.connect.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket.into())
}

fn ends(stream: &TcpStream) -> io::Result<Value> {
    Ok(json!({
        "connected": true,
        "local": stream.local_addr()?.to_string(),
        "peer": stream.peer_addr()?.to_string(),
    }))
}

fn echo_once(stream: &mut TcpStream, text: &str, bytes: usize) -> io::Result<()> {
    let request: Vec<u8> = text.bytes().cycle().take(bytes).collect();
    stream.write_all(&request)?;
    let mut answer = vec![0; bytes];
    stream.read_exact(&mut answer)?;
    if answer != request {
        return Err(io::Error::other("the echo differs from the request"));
    }
    Ok(())
}

/// Runs `each` with 0 to `count - 1`, each on a thread of its own.
fn on_threads<T: Send>(
    count: usize,
    each: impl Fn(usize) -> io::Result<T> + Sync,
) -> io::Result<Vec<io::Result<T>>> {
    let each = &each;
    thread::scope(|scope| {
        let start = |number| {
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, move || each(number))
        };
        let threads = (0..count).map(start).collect::<io::Result<Vec<_>>>()?;
        let join = |thread: thread::ScopedJoinHandle<'_, io::Result<T>>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Ok(threads.into_iter().map(join).collect())
    })
}
