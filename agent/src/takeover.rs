//! One agent leads a node; the next takes over from it, listening sockets included.
//!
//! Who has the lock on `node.lock` leads: it alone writes the node's maps. A successor asks at
//! `node.sock`. It gets the lock and every listening socket, and the predecessor goes on taking
//! connections until the successor says that it does. The sockets are the same ones, so nothing that waits
//! in them is lost, and no packet meets a closed port.

mod wire;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{self, Instant},
};

/// What an agent and its successor speak; another number means that they don't understand each other.
const PROTOCOL: u8 = 1;
/// The predecessor's, with the lock and the sockets.
const YOURS: u8 = 2;
/// The successor's: it takes connections.
const SERVING: u8 = 3;
/// An agent's to a waypoint that it starts, with the sockets that this one listens at.
const LISTEN: u8 = 4;

/// For how long to ask again while nobody listens at the socket: whoever leads has just started, or is
/// about to be gone.
const ASK_FOR: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long the other agent may take for a step. Loading the programs is the longest of them.
const STEP: Duration = Duration::from_secs(30);
/// How often an agent that was replaced looks whether anybody leads.
const LOOK: Duration = Duration::from_secs(1);

/// Why an agent can't lead its node, or can't be relieved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory, or a file in it.
    #[error(
        "{path}: {source}; --run-directory must be a directory that only this node's agents write to"
    )]
    Directory {
        /// What it is about.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another agent leads, and nobody answers.
    #[error(
        "another agent leads this node (it holds {lock}) and doesn't answer at its socket: {source}; stop it first"
    )]
    Silent {
        /// The lock.
        lock: PathBuf,
        /// The last try's.
        source: io::Error,
    },
    /// Another agent leads, and doesn't hand over.
    #[error("the agent that leads this node doesn't hand over: {0}; stop it first")]
    Refused(io::Error),
    /// The successor has the lock, but doesn't serve.
    #[error("the agent that was to take over didn't: {0}")]
    Failed(io::Error),
}

/// The right to lead the node, and the way in for a successor.
#[derive(Debug)]
pub struct Lead {
    lock: OwnedFd,
    door: UnixListener,
}

/// The agent that led before. It goes on taking connections until told that we do.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// An agent that wants to lead.
#[derive(Debug)]
pub struct Successor(UnixStream);

/// Listening sockets of the predecessor.
#[derive(Debug, Default)]
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// All that are left.
    pub fn into_all(self) -> Vec<TcpListener> {
        self.0
    }

    /// The socket that is bound to an address, if there is one.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |socket: &TcpListener| socket.local_addr().is_ok_and(|bound| bound == address);
        let index = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(index))
    }
}

/// Takes the lead: at once if nobody has it, else from whoever does, who from then on only carries what it
/// has accepted, and accepts what comes.
///
/// # Errors
/// [`Error`]: somebody else leads and doesn't hand over.
pub async fn lead(directory: &Path) -> Result<(Lead, Inherited, Option<Predecessor>), Error> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Directory { path, source }
    };
    // Whoever may write here may lead.
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(of(directory))?;
    let path = lock_path(directory);
    let lock = open_lock(&path).map_err(of(&path))?;
    let deadline = Instant::now() + ASK_FOR;
    loop {
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let door = open_door(directory).map_err(of(directory))?;
            let lead = Lead {
                lock: lock.into(),
                door,
            };
            return Ok((lead, Inherited::default(), None));
        }
        match UnixStream::connect(socket_path(directory)).await {
            Ok(stream) => {
                let (lock, inherited) = ask(&stream).await.map_err(Error::Refused)?;
                let door = open_door(directory).map_err(of(directory))?;
                return Ok((Lead { lock, door }, inherited, Some(Predecessor(stream))));
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(Error::Silent { lock: path, source });
            }
            Err(_) => time::sleep(ASK_AGAIN).await,
        }
    }
}

async fn ask(stream: &UnixStream) -> io::Result<(OwnedFd, Inherited)> {
    in_time(async {
        wire::send(stream, PROTOCOL, &[]).await?;
        let mut descriptors = wire::receive(stream, YOURS).await?.into_iter();
        let lock = descriptors
            .next()
            .ok_or_else(|| io::Error::other("it sent no lock"))?;
        Ok((
            lock,
            Inherited(descriptors.map(TcpListener::from).collect()),
        ))
    })
    .await
}

impl Predecessor {
    /// Tells it that connections are taken here now: it accepts no more, and ends when those that it has
    /// are over.
    ///
    /// # Errors
    /// [`Error::Refused`]: it is gone. What it had accepted is cut off, and nothing else is lost.
    pub async fn relieve(self) -> Result<(), Error> {
        let sent = in_time(wire::send(&self.0, SERVING, &[])).await;
        sent.map_err(Error::Refused)
    }
}

impl Lead {
    /// Waits until another agent wants to lead.
    pub async fn asked(&self) -> Successor {
        loop {
            match self.door.accept().await {
                Ok((stream, _)) => match in_time(wire::receive(&stream, PROTOCOL)).await {
                    Ok(_) => return Successor(stream),
                    Err(error) => tracing::warn!("an agent that wants to lead this node: {error}"),
                },
                Err(error) => {
                    tracing::warn!("accepting an agent that wants to lead this node: {error}");
                    time::sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}

impl Successor {
    /// Gives it the lead, with the listening sockets, and waits until it takes connections. Nothing that a
    /// leader does may be done any more.
    ///
    /// # Errors
    /// [`Error::Failed`]: it has ended, or takes too long. Nobody leads the node then: whoever was to be
    /// relieved should end, and be started anew.
    pub async fn relieves(self, lead: Lead, listeners: Vec<OwnedFd>) -> Result<(), Error> {
        let mut given = vec![lead.lock.as_fd()];
        given.extend(listeners.iter().map(AsFd::as_fd));
        // What doesn't fit is bound anew, once this one has closed it.
        given.truncate(wire::MAX_DESCRIPTORS);
        let handing = async {
            in_time(wire::send(&self.0, YOURS, &given)).await?;
            in_time(wire::receive(&self.0, SERVING)).await
        };
        handing.await.map(drop).map_err(Error::Failed)
    }
}

/// Gives a waypoint that was started the sockets that it is to listen at.
///
/// # Errors
/// The stream's: it has ended.
pub async fn give(stream: &UnixStream, sockets: &[impl AsFd]) -> io::Result<()> {
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    in_time(wire::send(stream, LISTEN, &sockets)).await
}

/// The sockets that the agent gives which started this waypoint.
///
/// # Errors
/// The stream's: it isn't an agent's.
pub async fn given(stream: &UnixStream) -> io::Result<Inherited> {
    let given = in_time(wire::receive(stream, LISTEN)).await?;
    Ok(Inherited(
        given.into_iter().map(TcpListener::from).collect(),
    ))
}

/// Completes when nobody leads the node any more.
pub async fn vacant(directory: &Path) {
    let path = lock_path(directory);
    loop {
        time::sleep(LOOK).await;
        let lock = open_lock(&path);
        if lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()) {
            return;
        }
    }
}

/// Removes what is left when no agent runs; the directory too, unless something is mounted there.
///
/// # Errors
/// The kernel's, with the path.
pub fn remove(directory: &Path) -> Result<(), Error> {
    for path in [lock_path(directory), socket_path(directory)] {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Directory { path, source });
            }
            _ => {}
        }
    }
    // It's empty, if it is ours.
    let _ = fs::remove_dir(directory);
    Ok(())
}

/// The predecessor's door, if there is one, is replaced in one step.
fn open_door(directory: &Path) -> io::Result<UnixListener> {
    let new = directory.join("node.sock.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let door = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, socket_path(directory))?;
    Ok(door)
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).open(path)
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.join("node.lock")
}

fn socket_path(directory: &Path) -> PathBuf {
    directory.join("node.sock")
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match time::timeout(STEP, step).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {}s", STEP.as_secs()),
        )),
    }
}

#[cfg(test)]
mod tests;
