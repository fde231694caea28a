//! Captures that must pass and captures that must not.

use std::time::Duration;

use super::*;

const MARKER: &str = "not-for-other-eyes";
const HELLO: &[u8] = b"\x16\x03\x01\x00\x05hello";
const SYN: u8 = 2;
const ACK: u8 = 16;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tcp(source: (&str, u16), destination: (&str, u16), flags: u8, payload: &[u8]) -> Packet {
    Packet {
        time: Duration::ZERO,
        source: address(source.0),
        destination: address(destination.0),
        transport: Transport::Tcp {
            source: source.1,
            destination: destination.1,
            flags,
        },
        payload: payload.to_vec(),
    }
}

/// A handshake from node b to a port of node a.
fn tls(port: u16) -> Vec<Packet> {
    let (client, server) = (("10.78.0.2", 40_000), ("10.78.0.1", port));
    vec![
        tcp(client, server, SYN, b""),
        tcp(server, client, SYN | ACK, b""),
        tcp(client, server, ACK, HELLO),
        tcp(server, client, ACK, HELLO),
        tcp(client, server, ACK, b"\x17\x03\x03 whatever"),
    ]
}

/// The marker between two pods that aren't in the mesh.
fn outside() -> Packet {
    tcp(
        ("10.77.1.4", 50_000),
        ("10.77.2.4", 8080),
        ACK,
        MARKER.as_bytes(),
    )
}

fn good() -> Vec<Packet> {
    [tls(15008), tls(15012), vec![outside()]].concat()
}

fn judged(packets: &[Packet]) -> Result<String> {
    judge(
        packets,
        &[address("10.77.1.4"), address("10.77.2.4")],
        MARKER,
    )
}

#[test]
fn tls_alone_passes_with_its_count() {
    let detail = judged(&good()).expect("all is TLS");
    let first = detail.lines().next().expect("there is a summary");
    let expected =
        "10 packets of the mesh, all TLS; the marker in none, outside the mesh in 1 of 1";
    assert_eq!(first, expected);
}

#[test]
fn anything_that_could_be_read_fails() {
    let (a, b) = (("10.78.0.1", 15008), ("10.78.0.2", 41_000));
    let mut no_tls = vec![tcp(b, a, SYN, b""), tcp(b, a, ACK, b"CONNECT / HTTP/1.1")];
    no_tls.extend(good());
    let with = |packet: Packet| [good(), vec![packet]].concat();
    let table = [
        (
            "marker in a tunnel",
            with(tcp(b, a, ACK, MARKER.as_bytes())),
            "readable",
        ),
        (
            "marker from one of the mesh",
            with(tcp(
                ("10.77.1.2", 1),
                ("10.77.2.4", 8080),
                ACK,
                MARKER.as_bytes(),
            )),
            "readable",
        ),
        (
            "another port",
            with(tcp(("10.77.1.2", 1), ("10.77.2.2", 8080), SYN, b"")),
            "neither a tunnel nor a call",
        ),
        ("tunnel without TLS", no_tls, "isn't TLS"),
        (
            "no tunnel",
            [tls(15012), vec![outside()]].concat(),
            "port 15008",
        ),
        (
            "no call of the authority",
            [tls(15008), vec![outside()]].concat(),
            "port 15012",
        ),
        (
            "no marker anywhere",
            [tls(15008), tls(15012)].concat(),
            "proves nothing",
        ),
    ];
    for (name, packets, expected) in table {
        let error = judged(&packets).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
