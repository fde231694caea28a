//! The agent's listening sockets.

use std::{
    io,
    net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ambit_common::{capture::Listener, mark};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::{dial::set_transparent, pacing, route::TUNNEL_PORT};
use crate::takeover::Inherited;

const OUTBOUND_PORT: u16 = 15001;
const PLAINTEXT_PORT: u16 = 15006;

/// Connections that may wait to be accepted; `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// The sockets that take what is captured, with role and whether they are IPv6: one for each role
/// and family that the node has.
///
/// The programs hand connections to them, whatever address those are for. They are bound to
/// loopback, so that nothing else reaches them, and nobody can pretend to have been captured.
///
/// Those of a predecessor are used where there are some.
///
/// # Errors
/// The kernel's refusal, with the address.
pub fn captured(
    ipv6: bool,
    inherited: &mut Inherited,
) -> io::Result<Vec<(Listener, bool, TcpListener)>> {
    let mut listeners = Vec::new();
    for (role, port, mark) in [
        // Answers for VIPs, which NAT must not see.
        (Listener::Outbound, OUTBOUND_PORT, mark::AGENT),
        // Answers to clients that may have come through NAT, which must see it.
        (Listener::Plaintext, PLAINTEXT_PORT, mark::AGENT_TRACKED),
        (Listener::Tunnel, TUNNEL_PORT, mark::AGENT_TRACKED),
    ] {
        for address in families(ipv6, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST) {
            let listener = listen(SocketAddr::new(address, port), inherited, |socket| {
                set_transparent(socket, address.is_ipv6())?;
                socket.set_mark(mark)?;
                if role == Listener::Outbound {
                    // Accepted sockets, whose clients are this node's pods, inherit it.
                    pacing::stop(socket);
                }
                match role {
                    // Accepted sockets inherit it: what nobody brings to its end is seen to be
                    // cut off, also if the agent is killed before it has looked at the connection.
                    Listener::Outbound | Listener::Plaintext => {
                        socket.set_linger(Some(Duration::ZERO))
                    }
                    Listener::Tunnel => Ok(()),
                }
            })?;
            listeners.push((role, address.is_ipv6(), listener));
        }
    }
    Ok(listeners)
}

/// The sockets that take tunnels sent to the node's own addresses, one a family; a predecessor's where there
/// are some.
///
/// # Errors
/// The kernel's refusal, with the address.
pub fn tunnels(ipv6: bool, inherited: &mut Inherited) -> io::Result<Vec<TcpListener>> {
    families(ipv6, Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
        .map(|address| {
            let address = SocketAddr::new(address, TUNNEL_PORT);
            listen(address, inherited, |_| Ok(()))
        })
        .collect()
}

/// A socket of the agent's own: a predecessor's, or a new one.
///
/// # Errors
/// The kernel's refusal.
pub fn own(address: SocketAddr, inherited: &mut Inherited) -> io::Result<TcpListener> {
    open(address, inherited, |_| Ok(()))
}

/// A socket that another process is to accept from.
///
/// # Errors
/// The kernel's refusal, with the address.
pub fn others(address: SocketAddr) -> io::Result<net::TcpListener> {
    bound(address, |_| Ok(())).map_err(|error| naming(address, &error))
}

fn families(ipv6: bool, v4: Ipv4Addr, v6: Ipv6Addr) -> impl Iterator<Item = IpAddr> {
    [IpAddr::V4(v4), IpAddr::V6(v6)]
        .into_iter()
        .filter(move |address| ipv6 || address.is_ipv4())
}

fn listen(
    address: SocketAddr,
    inherited: &mut Inherited,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<TcpListener> {
    let prepare = |socket: &Socket| {
        // Tunnels have a socket for loopback and one for all addresses, on one port.
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        prepare(socket)
    };
    open(address, inherited, prepare).map_err(|error| naming(address, &error))
}

fn naming(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("listening on {address}: {error}"))
}

fn open(
    address: SocketAddr,
    inherited: &mut Inherited,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<TcpListener> {
    let socket = match inherited.take(address) {
        Some(socket) => socket,
        None => bound(address, prepare)?,
    };
    TcpListener::from_std(socket)
}

fn bound(
    address: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
