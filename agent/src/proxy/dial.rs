//! Opening connections on behalf of clients. A pod of this node is dialled with a [`Permit`] only.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ambit_common::mark;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, time};

use super::{copy::ResetOnDrop, pacing};
use crate::policy::Permit;

/// How long a server may take to accept.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Source ports of connections that bear a client's address. Below the range that Linux gives
/// pods (32768 to 60999), so that no connection of the client's own can have the same ports; as
/// many as in that range, since a closed connection keeps its port for a minute (TIME_WAIT).
const PORTS: RangeInclusive<u16> = 1024..=32767;

/// How many ports are tried. A port is taken only if this node already has a connection from the
/// same client through it to the same server.
const ATTEMPTS: u32 = 16;

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel says so.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// Nothing answers.
    #[error("connecting to {address}: no answer within {}s", TIMEOUT.as_secs())]
    Timeout {
        /// The server.
        address: SocketAddr,
    },
}

/// Dials the pod that a permit allows, with the client's address as source if `client` is given.
///
/// # Errors
/// [`Error`].
pub(super) async fn to_pod(permit: &Permit, client: Option<IpAddr>) -> Result<ResetOnDrop, Error> {
    let address = permit.destination_address();
    Ok(connect(address, client, Server::PodOfThisNode)
        .await?
        .into())
}

/// Dials a server that isn't of the mesh, as the client itself would have.
///
/// # Errors
/// [`Error`].
pub(super) async fn outside(
    address: SocketAddr,
    client: Option<IpAddr>,
) -> Result<ResetOnDrop, Error> {
    Ok(connect(address, client, Server::Elsewhere).await?.into())
}

/// Dials another agent, from an address of the node's (or pod's) own.
///
/// # Errors
/// [`Error`].
pub(super) async fn agent(address: SocketAddr, marking: Marking) -> Result<TcpStream, Error> {
    let server = match marking {
        Marking::Agents => Server::Elsewhere,
        Marking::None => Server::Unmarked,
    };
    connect(address, None, server).await
}

/// Dials a server that isn't of the mesh, as any other program would.
///
/// # Errors
/// [`Error`].
pub(crate) async fn unmarked(address: SocketAddr) -> Result<ResetOnDrop, Error> {
    Ok(connect(address, None, Server::Unmarked).await?.into())
}

/// How sockets are told from those of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// As those of a node's agent, which the capture leaves alone.
    Agents,
    /// Not at all, which needs no capability.
    None,
}

#[derive(Clone, Copy)]
enum Server {
    PodOfThisNode,
    Elsewhere,
    Unmarked,
}

impl Server {
    fn mark(self) -> Option<u32> {
        match self {
            Self::PodOfThisNode => Some(mark::AGENT),
            // Tracked: a pod's way out of the cluster may need the node's masquerade.
            Self::Elsewhere => Some(mark::AGENT_TRACKED),
            Self::Unmarked => None,
        }
    }
}

async fn connect(
    address: SocketAddr,
    client: Option<IpAddr>,
    server: Server,
) -> Result<TcpStream, Error> {
    // A v4 client can't be kept towards a v6 server: the node's address stands in.
    let client = client.filter(|client| client.is_ipv4() == address.is_ipv4());
    let attempt = async {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match connect_once(address, client, server).await {
                Err(error) if attempts > 0 && client.is_some() && is_port_taken(&error) => {}
                other => return other,
            }
        }
    };
    match time::timeout(TIMEOUT, attempt).await {
        Err(_) => Err(Error::Timeout { address }),
        Ok(result) => result
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| Error::Connect { address, source }),
    }
}

async fn connect_once(
    address: SocketAddr,
    client: Option<IpAddr>,
    server: Server,
) -> io::Result<TcpStream> {
    let socket = socket(address, client, server)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        connected => connected?,
    }
    let stream = TcpStream::from_std(socket.into())?;
    // A server of this node has mostly answered before `connect` returns.
    if !is_connected(&stream) {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

fn is_connected(stream: &TcpStream) -> bool {
    let mut wanted = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut wanted, Some(&Timespec::default())).is_ok() && wanted[0].revents() == PollFlags::OUT
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

fn socket(address: SocketAddr, client: Option<IpAddr>, server: Server) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if let Some(mark) = server.mark() {
        socket.set_mark(mark)?;
    }
    if let Server::PodOfThisNode = server {
        pacing::stop(&socket);
    }
    if let Some(client) = client {
        set_transparent(&socket, client.is_ipv6())?;
        // Connections to other servers may have the same source; the kernel compares the whole
        // four-tuple when it connects.
        socket.set_reuse_address(true)?;
        let port = rand::random_range(PORTS);
        socket.bind(&SocketAddr::new(client, port).into())?;
    }
    Ok(socket)
}

/// Lets a socket have an address that isn't the node's.
///
/// # Errors
/// Without `CAP_NET_ADMIN`.
pub(super) fn set_transparent(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        socket.set_ip_transparent_v6(true)
    } else {
        socket.set_ip_transparent_v4(true)
    }
}
