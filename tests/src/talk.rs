//! Connections of which both ends are looked at: did anybody stand in between?

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::{
    Child, Error, Family, Lab, Node, PeerServer, Place, Pod, PodNetwork, Result, RunningMesh, wait,
};

/// How long a server's report, or a line of a log, may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many bytes a client of [`Place::talk`] sends and gets back.
const TALK: u64 = 100_000;
/// How many bytes are sent at once on a [`Held`] connection.
const WORD: usize = 64 * 1024;

/// How a connection came to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The server saw the client's own address and port: nobody was in between.
    Direct,
    /// The server saw the client's own address with another port: an agent carried it.
    Carried,
    /// The server saw another address than the client's.
    Replaced(IpAddr),
    /// It failed, and how: `refused`, `reset`, `timeout` or what the system said.
    Failed(String),
}

impl Way {
    /// A connection that was accepted and then reset: what an agent's refusal looks like.
    #[must_use]
    pub fn reset() -> Self {
        Self::Failed("reset".into())
    }
}

/// Does something on each pod network with each address family, in a lab of its own.
///
/// # Errors
/// The first of `story`, after the name of the lab it was in.
pub fn on_each_network(name: &str, story: impl Fn(&Lab) -> Result<()>) -> Result<()> {
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        for family in [Family::V4, Family::V6] {
            eprintln!("{network:?} {family:?}");
            story(&Lab::builder(name).pods(network).family(family).build()?)?;
        }
    }
    Ok(())
}

impl Pod {
    /// Starts a server that echoes on port `port` of every address, by one dual-stack socket.
    ///
    /// # Errors
    /// If it doesn't listen.
    pub fn echo(&self, port: u16) -> Result<PeerServer> {
        let listen = format!("[::]:{port}");
        self.peer_server(["echo-server", "--listen", &listen, "--dual-stack"])
    }
}

impl Place {
    /// Connects to `at`, where `server` is to be reached, has some bytes echoed, and says how the
    /// connection came there. One at a time: it waits for the server's next report.
    ///
    /// # Errors
    /// If the server doesn't report a connection that the client holds for good.
    pub fn talk(&self, server: &mut PeerServer, at: SocketAddr) -> Result<Way> {
        let (connect, bytes) = (at.to_string(), TALK.to_string());
        let arguments = ["transfer-client", "--connect", &connect, "--bytes", &bytes];
        let before = server.reports()?.len();
        let told = self.peer(arguments)?;
        server.way(&told, before)
    }

    /// As [`Place::talk`], begun now; [`Talk::end`] waits for its end.
    ///
    /// # Errors
    /// If the client can't be started.
    pub fn begin_talk(&self, server: &PeerServer, at: SocketAddr) -> Result<Talk> {
        let (connect, bytes) = (at.to_string(), TALK.to_string());
        let client = self.spawn_peer([
            "transfer-client",
            "--connect",
            &connect,
            "--bytes",
            &bytes,
            "--timeout-ms",
            "50000",
        ])?;
        Ok(Talk {
            client,
            before: server.reports()?.len(),
        })
    }

    /// Opens a connection that the test itself holds. It belongs to the test's own cgroup.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn hold(&self, at: SocketAddr) -> Result<Held> {
        let opening = || format!("connect to {at}");
        let connect = || TcpStream::connect_timeout(&at, DEADLINE);
        let stream = self.in_namespace(connect)?.map_err(Error::io(opening()))?;
        stream
            .set_read_timeout(Some(DEADLINE))
            .map_err(Error::io(opening()))?;
        stream
            .set_write_timeout(Some(DEADLINE))
            .map_err(Error::io(opening()))?;
        Ok(Held { stream })
    }
}

/// A conversation that goes on.
#[derive(Debug)]
pub struct Talk {
    client: Child,
    before: usize,
}

impl Talk {
    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Place::talk`].
    pub fn end(self, server: &mut PeerServer) -> Result<Way> {
        let told = self.client.wait(Duration::from_secs(60))?.json()?;
        server.way(&told, self.before)
    }
}

/// An open connection to an echo server.
#[derive(Debug)]
pub struct Held {
    stream: TcpStream,
}

impl Held {
    /// Has bytes echoed, and makes sure that they come back as they went.
    ///
    /// # Errors
    /// If the connection fails, or the bytes differ.
    pub fn echo(&mut self) -> io::Result<()> {
        let word: Vec<u8> = (0..=u8::MAX).cycle().take(WORD).collect();
        let mut answer = vec![0; WORD];
        // The server echoes while it reads, so sockets' buffers bound neither side.
        for (said, heard) in word.chunks(4096).zip(answer.chunks_mut(4096)) {
            self.stream.write_all(said)?;
            self.stream.read_exact(heard)?;
        }
        if answer == word {
            Ok(())
        } else {
            Err(io::Error::other("the echo differs"))
        }
    }

    /// The client's own address.
    ///
    /// # Errors
    /// If the socket has none any more.
    pub fn address(&self) -> Result<SocketAddr> {
        self.stream
            .local_addr()
            .map_err(Error::io("ask for a socket's address"))
    }

    /// Waits until the other side ends the connection: `Ok` for an orderly end.
    ///
    /// # Errors
    /// How else it ended.
    pub fn await_end(&mut self) -> io::Result<()> {
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("the server said something")),
        }
    }
}

impl PeerServer {
    /// Addresses of the clients whose connections have ended, in the order of their ends; IPv4
    /// as itself, even where the server's socket is of IPv6.
    ///
    /// # Errors
    /// If a report can't be read.
    pub fn clients(&self) -> Result<Vec<SocketAddr>> {
        self.reports()?.iter().map(client_of).collect()
    }

    fn way(&mut self, told: &Value, before: usize) -> Result<Way> {
        if let Some(failure) = failure(told) {
            return Ok(Way::Failed(failure));
        }
        let reports = self.await_reports(before + 1, DEADLINE)?;
        let seen = client_of(&reports[before])?;
        let own = address_of(&told["local"])?;
        Ok(if seen == own {
            Way::Direct
        } else if seen.ip() == own.ip() {
            Way::Carried
        } else {
            Way::Replaced(seen.ip())
        })
    }
}

impl Node {
    /// Does something and tells by how much a counter of the node's programs moved meanwhile.
    ///
    /// # Errors
    /// If `run` fails, or the agent doesn't answer.
    pub fn counting<T>(&self, reason: &str, run: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
        let before = self.packets(reason)?;
        let done = run()?;
        Ok((done, self.packets(reason)? - before))
    }
}

impl RunningMesh<'_> {
    /// Waits for a line of the access log of a node's agent in which all of `parts` are.
    ///
    /// # Errors
    /// If none is written in time.
    pub fn await_access(&mut self, node: &str, parts: &[&str]) -> Result<String> {
        let agent = self.agent(node);
        let wanted = |line: &&str| {
            line.contains("ambit::access") && parts.iter().all(|part| line.contains(part))
        };
        wait::poll(
            &format!("a line of the access log of {node} with {parts:?}"),
            DEADLINE,
            || {
                let log = agent.stderr();
                let found = log.lines().find(wanted).map(ToOwned::to_owned);
                found.ok_or_else(|| {
                    let lines: Vec<&str> = log
                        .lines()
                        .filter(|line| line.contains("ambit::access"))
                        .collect();
                    lines.join("\n")
                })
            },
        )
    }
}

/// How a client's conversation failed, if it did. Both directions may tell; a reset is what the
/// other side did, the rest are its consequences.
fn failure(told: &Value) -> Option<String> {
    let ends: Vec<&str> = ["end", "send_error"]
        .iter()
        .filter_map(|field| told[field].as_str())
        .collect();
    let failed = ends
        .iter()
        .find(|end| **end == "reset")
        .or(ends.iter().find(|e| **e != "eof"));
    match failed {
        Some(failed) => Some((*failed).into()),
        None if told["received_sha256"] != told["sent_sha256"] => Some(format!(
            "{} bytes came back, or others",
            told["received_bytes"]
        )),
        None => None,
    }
}

fn client_of(report: &Value) -> Result<SocketAddr> {
    address_of(&report["peer"])
}

fn address_of(value: &Value) -> Result<SocketAddr> {
    let parsed: Option<SocketAddr> = value.as_str().and_then(|text| text.parse().ok());
    let address = parsed.ok_or_else(|| Error::Malformed {
        what: "an address that lab-peer told".into(),
        cause: value.to_string(),
    })?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}
