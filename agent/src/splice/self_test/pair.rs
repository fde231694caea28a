//! Connections of the self-test, over loopback.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use ambit_common::mark;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of TCP's own buffers, which grow to megabytes if nothing is said. Half of twice as much, as
/// the kernel has it, is more than the test's limit.
const TCP_BUFFER: usize = 128 * 1024;

/// The server of the self-test.
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// Both ends of a connection, in non-blocking mode.
pub(super) struct Pair {
    /// With the agent's mark.
    pub(super) agent: TcpStream,
    /// Without.
    pub(super) application: TcpStream,
}

impl Server {
    pub(super) fn listen() -> io::Result<Self> {
        let listener = socket()?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(16)?;
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// A new connection. What others send to the port while the test runs is turned away.
    pub(super) fn pair(&self) -> io::Result<Pair> {
        let agent = socket()?;
        agent.set_mark(mark::AGENT)?;
        agent.connect(&self.address.into())?;
        let agent = TcpStream::from(agent);
        let own = agent.local_addr()?;
        loop {
            let (application, peer) = self.listener.accept()?;
            if peer == own {
                for end in [&agent, &application] {
                    end.set_nonblocking(true)?;
                    end.set_nodelay(true)?;
                }
                return Ok(Pair { agent, application });
            }
        }
    }
}

/// A socket that TCP soon has enough of.
fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_send_buffer_size(TCP_BUFFER)?;
    socket.set_recv_buffer_size(TCP_BUFFER)?;
    Ok(socket)
}
