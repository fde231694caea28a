//! Connections of the self-test, over loopback.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use ambit_common::mark;
use socket2::{Domain, Protocol, Socket, Type};

/// The server of the self-test; the programs know its port.
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// A new connection. What others send to the port while the test runs is turned away.
    pub(super) fn pair(&self) -> io::Result<Pair> {
        let agent = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
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
