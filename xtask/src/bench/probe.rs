//! A client for what the load generator doesn't do: single requests, and connections to keep.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// How long one step of a connection may take: longer than a SYN that is sent again twice.
const PATIENCE: Duration = Duration::from_secs(8);
/// Asks the load server for one byte.
const REQUEST: &[u8] = b"GET /1 HTTP/1.1\r\nHost: bench\r\n\r\n";
/// The longest answer that is read; the server's are far shorter.
const LONGEST: u64 = 64 * 1024;

/// An open HTTP/1.1 connection. Made and used in the client's network namespace.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects as an application does, with the kernel's own retries.
    ///
    /// # Errors
    /// It was refused, or nobody answered within 8 s.
    pub(super) fn open(server: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    /// Makes a request and reads its answer.
    ///
    /// # Errors
    /// The connection failed, or the answer isn't a whole 200.
    pub(super) fn ask(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(REQUEST)?;
        read_answer(&mut self.stream)
    }
}

/// A request in a connection of its own.
///
/// # Errors
/// As [`Connection::open`] and [`Connection::ask`].
pub(super) fn ask_once(server: SocketAddr) -> io::Result<()> {
    Connection::open(server)?.ask()
}

/// Asks again until there is an answer, as an application does that starts before its server.
///
/// # Errors
/// None came within `limit`: the last attempt's.
pub(super) fn until_answered(server: SocketAddr, limit: Duration) -> io::Result<()> {
    /// A refusal comes at once: not more attempts than would look prompt.
    const PAUSE: Duration = Duration::from_millis(2);

    let end = Instant::now() + limit;
    loop {
        match ask_once(server) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Reads a 200 that tells its length, and no byte more.
fn read_answer(stream: &mut impl BufRead) -> io::Result<()> {
    let mut head = stream.take(LONGEST);
    let (mut line, mut length) = (String::new(), None);
    head.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("the answer is {:?}", line.trim())));
    }
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| io::Error::other("the answer doesn't tell its length"))?;
    let read = io::copy(&mut stream.take(length), &mut io::sink())?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-Length: 4\r\n\r\nbodyHTTP/1.1 ";
        read_answer(&mut bytes).expect("it is whole");
        assert_eq!(bytes, b"HTTP/1.1 ");
    }

    #[test]
    fn anything_but_a_whole_200_is_a_failure() {
        let table = [
            ("", io::ErrorKind::UnexpectedEof),
            ("HTTP/1.1 200 OK\r\n", io::ErrorKind::UnexpectedEof),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo",
                io::ErrorKind::UnexpectedEof,
            ),
            (
                "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
                io::ErrorKind::Other,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nbody", io::ErrorKind::Other),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
                io::ErrorKind::Other,
            ),
        ];
        for (text, kind) in table {
            let error = read_answer(&mut text.as_bytes()).expect_err(text);
            assert_eq!(error.kind(), kind, "{text:?}");
        }
    }
}
