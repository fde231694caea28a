//! Requests of one client, each looked at: did an answer come, and was it what was sent?

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::MARKER;
use crate::{Place, Result, wait};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(40);
/// For a connection, while agents are killed: a SYN that nobody took is sent again after a second, and
/// what is measured is how soon one is taken again. The kernel answers it, whatever the agent does just then.
const HASTY: Duration = Duration::from_millis(300);
/// For a connection, and for an answer in any case: beyond that a request has failed.
const PATIENT: Duration = Duration::from_secs(10);
/// For how long a connection stays open: for less than an agent that was replaced waits for it to end.
const KEPT: Duration = Duration::from_secs(2);
/// A request, in bytes. It begins with the marker, which thus is whole in one segment.
const REQUEST: usize = 2048;

/// In which connections requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// In one that stays open for two seconds; in a new one if it breaks.
    Kept,
    /// In a new one each.
    Each,
}

/// What became of requests so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Answered by what was sent.
    pub answered: u64,
    /// Without an answer, or without a whole one.
    pub failed: u64,
    /// Answered by something else. It must never be.
    pub differing: u64,
    /// Of answers, in bytes.
    pub received: u64,
}

/// Requests to an echo server, one after the other, until this is dropped.
#[derive(Debug)]
pub struct Requests {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    hasty: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    differing: AtomicU64,
    received: AtomicU64,
    /// When the latest request that was answered began, and when its answer was there.
    latest: Mutex<Option<(Instant, Instant)>>,
    failure: Mutex<Option<String>>,
}

impl Requests {
    /// Begins to make them in a place; `name` says which they are where something is wrong.
    #[must_use]
    pub fn begin(
        name: &str,
        place: &Place,
        server: SocketAddr,
        connections: Connections,
    ) -> Requests {
        let shared = Arc::<Shared>::default();
        let (its, place) = (Arc::clone(&shared), place.clone());
        let run = move || place.in_namespace(|| its.run(server, connections));
        Requests {
            name: format!("{name}, {connections:?}"),
            shared,
            thread: Some(thread::spawn(run)),
        }
    }

    /// Which they are.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether connections are given up soon, to be tried again.
    pub fn hurry(&self, hasty: bool) {
        self.shared.hasty.store(hasty, Ordering::Relaxed);
    }

    /// What became of them so far.
    #[must_use]
    pub fn count(&self) -> Count {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Count {
            answered: read(&self.shared.answered),
            failed: read(&self.shared.failed),
            differing: read(&self.shared.differing),
            received: read(&self.shared.received),
        }
    }

    /// Why the latest one failed, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.shared.failure).clone()
    }

    /// Waits until a request is answered that began after a moment, and says how long after it the answer
    /// came.
    ///
    /// # Errors
    /// If none is within `deadline`.
    pub fn await_answer(&self, after: Instant, deadline: Duration) -> Result<Duration> {
        let what = format!("an answer again ({})", self.name);
        wait::poll(&what, deadline, || match *lock(&self.shared.latest) {
            Some((began, came)) if began >= after => Ok(came - after),
            _ => Err(self.failure().unwrap_or_else(|| "none failed".into())),
        })
    }

    /// Stops, and says what became of them.
    ///
    /// # Errors
    /// If the client's namespace couldn't be entered.
    pub fn stop(mut self) -> Result<Count> {
        self.end()?;
        Ok(self.count())
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.stop.store(true, Ordering::Relaxed);
        } else {
            let _ = self.end();
        }
    }
}

impl Shared {
    fn run(&self, server: SocketAddr, connections: Connections) {
        let (mut kept, mut opened) = (None, Instant::now());
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let request = request(number);
            let began = Instant::now();
            if kept.is_none() {
                opened = began;
            }
            let made = self.request(kept.take(), server, &request);
            kept = match made {
                Ok(stream) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    *lock(&self.latest) = Some((began, Instant::now()));
                    let stays = connections == Connections::Kept && opened.elapsed() < KEPT;
                    Some(stream).filter(|_| stays)
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    *lock(&self.failure) = Some(format!("request {number}: {error}"));
                    None
                }
            };
            thread::sleep(PAUSE);
        }
    }

    fn request(
        &self,
        kept: Option<TcpStream>,
        server: SocketAddr,
        request: &[u8],
    ) -> io::Result<TcpStream> {
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect(server)?,
        };
        stream.write_all(request)?;
        let mut answer = [0; REQUEST];
        let mut length = 0;
        while length < answer.len() {
            let came = match stream.read(&mut answer[length..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                came => came,
            };
            self.received.fetch_add(came as u64, Ordering::Relaxed);
            length += came;
            if answer[..length] != request[..length] {
                self.differing.fetch_add(1, Ordering::Relaxed);
                return Err(io::Error::other("the answer isn't what was sent"));
            }
        }
        Ok(stream)
    }

    fn connect(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let patience = match self.hasty.load(Ordering::Relaxed) {
            true => HASTY,
            false => PATIENT,
        };
        let stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_read_timeout(Some(PATIENT))?;
        stream.set_write_timeout(Some(PATIENT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The marker, the number, and bytes of which no two requests have the same.
fn request(number: u64) -> Vec<u8> {
    let mut request = format!("{MARKER} {number} ").into_bytes();
    let mut state = number;
    while request.len() < REQUEST {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        request.extend_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
    }
    request.truncate(REQUEST);
    request
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_their_bytes() {
        let (one, two) = (request(1), request(2));
        assert_eq!((one.len(), two.len()), (REQUEST, REQUEST));
        assert!(one.starts_with(MARKER.as_bytes()));
        assert_ne!(one[REQUEST - 8..], two[REQUEST - 8..]);
    }
}
