use proptest::prelude::*;

use super::*;

const ETHERNET: &[u8] = &[0, 0, 0, 1, 0, 0, 0];

/// A pcap file of frames, in the byte order of the machine that wrote it.
fn file(magic: [u8; 4], link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let big_endian = magic[0] == 0xa1;
    let word = |n: u32| {
        if big_endian {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let mut file = magic.to_vec();
    file.extend([0; 16]);
    file.extend(word(link));
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for n in [7, 5, length, length] {
            file.extend(word(n));
        }
        file.extend(frame);
    }
    file
}

fn tcp_segment(payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x1f, 0x90, 0x00, 0x50];
    segment.extend([0; 8]);
    segment.extend([0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn v4_packet(body: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 1, 2, 10, 77, 2, 3]);
    ip.extend(body);
    ip
}

fn v6_packet(body: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    ip.extend([6, 64]);
    ip.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
    ip.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
    ip.extend(body);
    ip
}

fn frame(header: usize, protocol_at: usize, protocol: [u8; 2], ip: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; header];
    frame[protocol_at..protocol_at + 2].copy_from_slice(&protocol);
    frame.extend(ip);
    frame
}

#[test]
fn a_syn_is_read_behind_every_link_layer_byte_order_and_ip_version() {
    const LITTLE: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];
    const BIG: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];
    const NANO: [u8; 4] = [0x4d, 0x3c, 0xb2, 0xa1];
    let v4 = v4_packet(&tcp_segment(b"hello"));
    let v6 = v6_packet(&tcp_segment(b"hello"));
    let table = [
        (LITTLE, 1, frame(14, 12, [8, 0], &v4), "10.77.1.2", 5000),
        (BIG, 1, frame(14, 12, [8, 0], &v4), "10.77.1.2", 5000),
        (NANO, 1, frame(14, 12, [0x86, 0xdd], &v6), "fd00::1", 5),
        (LITTLE, 113, frame(16, 14, [8, 0], &v4), "10.77.1.2", 5000),
        (
            LITTLE,
            276,
            frame(20, 0, [0x86, 0xdd], &v6),
            "fd00::1",
            5000,
        ),
    ];
    for (magic, link, frame, source, nanoseconds) in table {
        let packets = parse_pcap(&file(magic, link, &[frame])).unwrap();
        let [packet] = packets.as_slice() else {
            panic!("{packets:?}")
        };
        assert_eq!(packet.source, source.parse::<IpAddr>().unwrap());
        assert_eq!(packet.time, Duration::new(7, nanoseconds));
        let tcp = Transport::Tcp {
            source: 8080,
            destination: 80,
            flags: 2,
        };
        assert_eq!(packet.transport, tcp);
        assert!(packet.is_syn() && !packet.is_reset() && packet.has_port(80));
        assert_eq!(packet.payload, b"hello");
        assert!(packet.contains("ell") && !packet.contains("xyz"));
    }
}

#[test]
fn padding_behind_the_packet_is_not_payload() {
    let mut padded = frame(14, 12, [8, 0], &v4_packet(&tcp_segment(b"")));
    padded.extend([0; 6]);
    let packets = parse_pcap(&file([0xd4, 0xc3, 0xb2, 0xa1], 1, &[padded])).unwrap();
    assert_eq!(packets[0].payload, b"");
}

#[test]
fn frames_that_are_not_ip_are_left_out_and_broken_files_refused() {
    let arp = frame(14, 12, [8, 6], ETHERNET);
    assert_eq!(
        parse_pcap(&file([0xd4, 0xc3, 0xb2, 0xa1], 1, &[arp])).unwrap(),
        []
    );
    let whole = file(
        [0xd4, 0xc3, 0xb2, 0xa1],
        1,
        &[frame(14, 12, [8, 0], &v4_packet(b""))],
    );
    let table = [
        (&whole[..10], "shorter than its header"),
        (&whole[..30], "ends in a record's header"),
        (&whole[..whole.len() - 1], "ends in a packet"),
        (&file([1, 2, 3, 4], 1, &[]), "doesn't begin as pcap"),
        (&file([0xd4, 0xc3, 0xb2, 0xa1], 9, &[]), "link layer"),
    ];
    for (bytes, expected) in table {
        let error = parse_pcap(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn any_frame_is_read_or_left_out(
        link in prop::sample::select(vec![1u32, 113, 276]),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..4),
    ) {
        let count = frames.len();
        let packets = parse_pcap(&file([0xd4, 0xc3, 0xb2, 0xa1], link, &frames)).unwrap();
        prop_assert!(packets.len() <= count);
    }

    #[test]
    fn any_ip_header_before_any_body_is_read_or_left_out(
        v4 in any::<bool>(),
        ip in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let protocol = if v4 { [8, 0] } else { [0x86, 0xdd] };
        let bytes = file([0xd4, 0xc3, 0xb2, 0xa1], 1, &[frame(14, 12, protocol, &ip)]);
        prop_assert!(parse_pcap(&bytes).unwrap().len() <= 1);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_pcap(&bytes);
    }
}
