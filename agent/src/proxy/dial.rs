//! Opening connections on behalf of clients. A pod of this node is dialled with a [`Permit`] only.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ambit_common::mark;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::{TcpSocket, TcpStream}, time};

use crate::policy::Permit;

/// How long a server may take to accept.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Source ports of connections that bear a client's address. Below the range that Linux gives
/// pods (32768 to 60999), so that no connection of the client's own can have the same ports.
const PORTS: RangeInclusive<u16> = 16384..=32767;

/// How many ports are tried. A port is taken only if this node already has a connection from the
/// same client through it to the same server.
const ATTEMPTS: u32 = 16;

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
pub async fn to_pod(permit: &Permit, client: Option<IpAddr>) -> Result<TcpStream, Error> {
    connect(permit.destination_address(), client, mark::AGENT).await
}

/// Dials a server that isn't of the mesh, as the client itself would have.
///
/// # Errors
/// [`Error`].
pub async fn outside(address: SocketAddr, client: Option<IpAddr>) -> Result<TcpStream, Error> {
    // Tracked: a pod's way out of the cluster may need the node's masquerade.
    connect(address, client, mark::AGENT_TRACKED).await
}

/// Dials another agent, from the node's own address.
///
/// # Errors
/// [`Error`].
pub async fn agent(address: SocketAddr) -> Result<TcpStream, Error> {
    connect(address, None, mark::AGENT_TRACKED).await
}

async fn connect(
    address: SocketAddr,
    client: Option<IpAddr>,
    mark: u32,
) -> Result<TcpStream, Error> {
    // A v4 client can't be kept towards a v6 server: the node's address stands in.
    let client = client.filter(|client| client.is_ipv4() == address.is_ipv4());
    let attempt = async {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            let result = match socket(address, client, mark) {
                Ok(socket) => socket.connect(address).await,
                Err(error) => Err(error),
            };
            match result {
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

fn is_port_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn socket(address: SocketAddr, client: Option<IpAddr>, mark: u32) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(mark)?;
    if let Some(client) = client {
        set_transparent(&socket, client.is_ipv6())?;
        // Connections to other servers may have the same source; the kernel compares the whole
        // four-tuple when it connects.
        socket.set_reuse_address(true)?;
        let port = rand::random_range(PORTS);
        socket.bind(&SocketAddr::new(client, port).into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Lets a socket have an address that isn't the node's.
///
/// # Errors
/// Without `CAP_NET_ADMIN`.
pub fn set_transparent(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 { socket.set_ip_transparent_v6(true) } else { socket.set_ip_transparent_v4(true) }
}

/// Whose connections a listening socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// What the programs capture, for whatever address: they hand it over, so the socket is bound
    /// to loopback, where nothing else can reach it and no look-up by port finds it.
    Captured,
    /// What is sent to the node.
    Node,
}

/// A listening socket.
///
/// # Errors
/// The kernel's refusal.
pub fn listener(
    whose: For,
    port: u16,
    is_ipv6: bool,
    mark: u32,
) -> io::Result<tokio::net::TcpListener> {
    /// Connections that may wait to be accepted; `net.core.somaxconn` bounds it too.
    const BACKLOG: i32 = 4096;
    let (domain, address): (_, IpAddr) = match (is_ipv6, whose) {
        (true, For::Captured) => (Domain::IPV6, Ipv6Addr::LOCALHOST.into()),
        (true, For::Node) => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        (false, For::Captured) => (Domain::IPV4, Ipv4Addr::LOCALHOST.into()),
        (false, For::Node) => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Two agents listen at once while one takes over from the other.
    socket.set_reuse_port(true)?;
    if is_ipv6 {
        socket.set_only_v6(true)?;
    }
    if whose == For::Captured {
        set_transparent(&socket, is_ipv6)?;
    }
    socket.set_mark(mark)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}

/// Closes a connection with a reset: the client must see that it failed, not that it ended.
pub fn reset(stream: TcpStream) {
    if let Ok(stream) = stream.into_std() {
        // Without it the client sees an end instead of a reset, which is all that is lost.
        let _ = Socket::from(stream).set_linger(Some(Duration::ZERO));
    }
}
