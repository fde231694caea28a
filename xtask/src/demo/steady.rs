//! Steady requests from a pod, each of them counted.
//!
//! Not by curl, which tells too little about the one connection that must stay open throughout.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use lab::Place;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);
/// For a request and its answer; beyond that it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Traffic ends by itself after this long.
const BOUND: Duration = Duration::from_secs(120);
/// No answer here is longer, in bytes.
const LONGEST: usize = 4096;

/// What became of the requests of one kind.
pub(super) struct Tally {
    /// New connections, or one that stays.
    pub(super) kind: &'static str,
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) first_failure: Option<String>,
}

/// Makes requests from a place to a server while `work` runs: in one connection that stays open,
/// and in a new connection each.
///
/// # Errors
/// The place's network namespace can't be entered.
pub(super) fn during<T>(
    place: &Place,
    server: SocketAddr,
    marker: &str,
    work: impl FnOnce() -> T,
) -> lab::Result<(T, [Tally; 2])> {
    let stop = AtomicBool::new(false);
    let [in_one, in_new] = [true, false].map(|stays| {
        let stop = &stop;
        move || place.in_namespace(|| requests(server, marker, stays, stop))
    });
    thread::scope(|scope| {
        let (in_one, in_new) = (scope.spawn(in_one), scope.spawn(in_new));
        let worked = {
            let _stop = StopOnDrop(&stop);
            work()
        };
        let tallies = [in_one, in_new].map(|thread| match thread.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let [in_one, in_new] = tallies;
        Ok((worked, [in_one?, in_new?]))
    })
}

/// A panic in the work must end the traffic too.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn requests(server: SocketAddr, marker: &str, stays: bool, stop: &AtomicBool) -> Tally {
    let kind = if stays {
        "one connection"
    } else {
        "a connection each"
    };
    let mut tally = Tally {
        kind,
        requests: 0,
        failures: 0,
        first_failure: None,
    };
    let request = format!("GET / HTTP/1.1\r\nHost: demo\r\nX-Marker: {marker}\r\n\r\n");
    let end = Instant::now() + BOUND;
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        tally.requests += 1;
        match exchange(connection.take(), server, &request, marker) {
            Ok(open) => connection = stays.then_some(open),
            Err(error) => {
                tally.failures += 1;
                tally.first_failure.get_or_insert(error.to_string());
            }
        }
        thread::sleep(PAUSE);
    }
    tally
}

/// Makes one request, in a new connection if none is open.
fn exchange(
    connection: Option<BufReader<TcpStream>>,
    server: SocketAddr,
    request: &str,
    marker: &str,
) -> io::Result<BufReader<TcpStream>> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            BufReader::new(stream)
        }
    };
    connection.get_mut().write_all(request.as_bytes())?;
    let (status, body) = answer(&mut connection)?;
    if status.contains(" 200 ") && body.contains(marker) {
        return Ok(connection);
    }
    Err(io::Error::other(format!(
        "the answer is {status:?}, {body:?}"
    )))
}

/// The status line and the body of an answer that tells its length.
fn answer(connection: &mut impl BufRead) -> io::Result<(String, String)> {
    let (mut status, mut length) = (String::new(), 0);
    connection.read_line(&mut status)?;
    if status.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed without an answer",
        ));
    }
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed in the answer",
            ));
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length.min(LONGEST)];
    connection.read_exact(&mut body)?;
    Ok((
        status.trim().to_owned(),
        String::from_utf8_lossy(&body).into_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let mut bytes: &[u8] =
            b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-Length: 4\r\n\r\nbodyHTTP/1.1 ";
        let (status, body) = answer(&mut bytes).expect("it is whole");
        assert_eq!(
            (status.as_str(), body.as_str()),
            ("HTTP/1.1 200 OK", "body")
        );
        assert_eq!(bytes, b"HTTP/1.1 ");
    }

    #[test]
    fn a_connection_that_ends_early_is_a_failure() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo",
        ] {
            let error = answer(&mut text.as_bytes()).expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
        }
    }
}
