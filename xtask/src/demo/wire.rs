//! What could be read between the nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Result, ensure};
use lab::{Packet, Transport};

use super::{nginx, stage::Stage};

/// Where tunnels arrive, and where the certificate authority listens.
const TLS_PORTS: [u16; 2] = [15008, 15012];

/// A request within the mesh and the same request outside of it: the marker in both may be seen
/// only in the second, which proves that it would have been seen in the first.
pub(super) fn shows_only_tls(stage: &mut Stage<'_>) -> Result<String> {
    nginx::ask(&stage.frontend, &stage.catalog, &stage.marker)?;
    nginx::ask(&stage.caller, &stage.old, &stage.marker)?;
    judge_all(stage)
}

/// The same of all that was captured, from the start of the agents until now.
pub(super) fn showed_only_tls_to_the_end(stage: &mut Stage<'_>) -> Result<String> {
    judge_all(stage)
}

fn judge_all(stage: &mut Stage<'_>) -> Result<String> {
    let outside: Vec<IpAddr> = [&stage.caller, &stage.old.pod]
        .iter()
        .flat_map(|pod| pod.addresses())
        .copied()
        .collect();
    let packets = stage.wire.packets()?;
    judge(&packets, &outside, &stage.marker)
}

/// Judges a capture from its first packet; `outside` are the addresses of pods not in the mesh.
fn judge(packets: &[Packet], outside: &[IpAddr], marker: &str) -> Result<String> {
    let is_outside =
        |packet: &Packet| outside.contains(&packet.source) && outside.contains(&packet.destination);
    let (clear, mesh): (Vec<_>, Vec<_>) = packets.iter().partition(|packet| is_outside(packet));

    let readable = mesh.iter().find(|packet| packet.contains(marker));
    ensure!(
        readable.is_none(),
        "the marker is readable in {}",
        shown(readable)
    );
    let ported: Vec<_> = mesh.iter().filter(|packet| has_ports(packet)).collect();
    let other = ported.iter().find(|packet| !is_tls_port(packet));
    ensure!(
        other.is_none(),
        "neither a tunnel nor a call of the authority: {}",
        shown(other)
    );
    let handshakes = handshakes(&mesh)?;
    for port in TLS_PORTS {
        ensure!(
            handshakes.contains_key(&port),
            "no TLS connection to port {port} was captured"
        );
    }
    let in_clear = clear
        .iter()
        .filter(|packet| packet.contains(marker))
        .count();
    ensure!(
        in_clear > 0,
        "the marker wasn't seen outside the mesh either: the capture proves nothing"
    );

    let bytes: usize = ported.iter().map(|packet| packet.payload.len()).sum();
    let mut detail = format!(
        "{} packets of the mesh, all TLS; the marker in none, outside the mesh in {in_clear} of {}",
        ported.len(),
        clear.len()
    );
    for (port, connections) in handshakes {
        write!(detail, "\nport {port}: {connections} TLS connections")?;
    }
    write!(detail, "\n{bytes} bytes of TLS in all")?;
    Ok(detail)
}

/// New connections by port, each of whose directions begins with a record of TLS's handshake.
fn handshakes(packets: &[&Packet]) -> Result<BTreeMap<u16, usize>> {
    /// A record of type handshake (22), legacy version 3.x: RFC 8446, section 5.1.
    const HANDSHAKE: [u8; 2] = [22, 3];

    // Directions whose first bytes are still to come.
    let mut fresh = BTreeSet::new();
    let mut connections = BTreeMap::new();
    for packet in packets {
        let Transport::Tcp {
            source,
            destination,
            flags,
        } = packet.transport
        else {
            continue;
        };
        let (source, destination) = (
            SocketAddr::new(packet.source, source),
            SocketAddr::new(packet.destination, destination),
        );
        // SYN, with ACK or without: each direction has its own.
        if flags & 2 != 0 {
            fresh.insert((source, destination));
        } else if !packet.payload.is_empty() && fresh.remove(&(source, destination)) {
            ensure!(packet.payload.starts_with(&HANDSHAKE), "{packet} isn't TLS");
            if TLS_PORTS.contains(&destination.port()) {
                *connections.entry(destination.port()).or_default() += 1;
            }
        }
    }
    Ok(connections)
}

fn has_ports(packet: &Packet) -> bool {
    !matches!(packet.transport, Transport::Other(_))
}

fn is_tls_port(packet: &Packet) -> bool {
    packet.is_tcp() && TLS_PORTS.iter().any(|port| packet.has_port(*port))
}

fn shown(packet: Option<impl ToString>) -> String {
    packet.map(|packet| packet.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
