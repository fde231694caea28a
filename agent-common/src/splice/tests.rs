extern crate std;

use std::{vec, vec::Vec};

use super::*;

/// The reader of one direction, and what is on its way to it.
#[derive(Default)]
struct Reader {
    redirected: Vec<u32>,
    tcp: Vec<u32>,
    read: Vec<u32>,
}

impl Reader {
    /// As the kernel has it: what was redirected comes first.
    fn read(&mut self, many: usize) {
        for _ in 0..many {
            if !self.redirected.is_empty() {
                self.read.push(self.redirected.remove(0));
            } else if !self.tcp.is_empty() {
                self.read.push(self.tcp.remove(0));
            }
        }
    }
}

#[test]
fn whatever_the_reader_does_the_order_is_kept_and_the_queue_bounded() {
    const LIMIT: u32 = 8;
    // A generator of its own: the crate has no other use for one.
    let mut random = 12345_u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % below
    };
    let (mut switched_to_tcp, mut switched_back) = (0, 0);
    for _ in 0..200 {
        let (mut reader, mut path, mut sent) = (Reader::default(), PATH_TCP, 0);
        for _ in 0..300 {
            if next(2) == 0 {
                reader.read(next(12) as usize);
                continue;
            }
            let queued = u32::try_from(reader.redirected.len()).unwrap();
            let message = Message {
                path,
                size: 1,
                queued,
                limit: LIMIT,
                has_arrived: reader.tcp.is_empty(),
            };
            let before = path;
            match way(message) {
                Way::Redirect => {
                    path = PATH_SPLICED;
                    reader.redirected.push(sent);
                }
                Way::Tcp(_) => {
                    path = PATH_TCP;
                    reader.tcp.push(sent);
                }
            }
            switched_to_tcp += u32::from(before > path);
            switched_back += u32::from(before < path);
            sent += 1;
            assert!(reader.redirected.len() <= LIMIT as usize);
        }
        reader.read(1000);
        assert_eq!(reader.read, (0..sent).collect::<Vec<_>>());
    }
    assert!(switched_to_tcp > 0 && switched_back > 0);
}

#[test]
fn each_case_of_the_switching_rule() {
    use SpliceCounter::{TcpFull, TcpOnItsWay};
    // Path, the message's size, bytes queued, TCP's bytes read.
    for (path, size, queued, has_arrived, expected) in [
        (PATH_TCP, 100, 0, true, Way::Redirect),
        (PATH_TCP, 100, 100, true, Way::Redirect),
        (PATH_TCP, 100, 101, true, Way::Tcp(TcpFull)),
        (PATH_TCP, 1, 0, false, Way::Tcp(TcpOnItsWay)),
        (PATH_SPLICED, 100, 300, true, Way::Redirect),
        (PATH_SPLICED, 100, 301, true, Way::Tcp(TcpFull)),
        (PATH_SPLICED, u32::MAX, u32::MAX, true, Way::Tcp(TcpFull)),
    ] {
        let message = Message {
            path,
            size,
            queued,
            limit: 400,
            has_arrived,
        };
        assert_eq!(way(message), expected, "{message:?}");
    }
}

#[test]
fn the_two_ends_of_a_connection_have_each_others_keys() {
    for key in [0, 1, 8, 9, u64::MAX] {
        assert_ne!(peer_key(key), key);
        assert_eq!(peer_key(peer_key(key)), key);
    }
}

#[test]
fn what_isnt_new_of_a_packet_is_known_by_sequence_numbers() {
    const LAST: u32 = u32::MAX;
    for (first, length, next, expected) in [
        (1000, 100, 1000, 0),
        (1000, 100, 1001, 1),
        (1000, 100, 1099, 99),
        (1000, 100, 1100, 100),
        (1000, 100, 2000, 100),
        (1000, 100, 900, 0),
        (1000, 0, 1000, 0),
        (LAST - 9, 100, 10, 20),
        (LAST, 1, LAST, 0),
        (0, 100, LAST, 0),
    ] {
        let found = known(first, length, next);
        assert_eq!(found, expected, "{first} {length} {next}");
    }
}

#[test]
fn the_later_sequence_number_is_known_across_the_wrap() {
    for (one, other, expected) in [
        (5, 6, 6),
        (6, 5, 6),
        (5, 5, 5),
        (u32::MAX, 3, 3),
        (3, u32::MAX, 3),
    ] {
        assert_eq!(later(one, other), expected, "{one} {other}");
    }
}

#[test]
fn nothing_is_redirected_after_an_end_or_a_reset() {
    // In the order of net/tcp_states.h, from ESTABLISHED to CLOSING.
    let states = 1..=11;
    let sending: Vec<_> = states.clone().filter(|state| sends(*state)).collect();
    let receiving: Vec<_> = states.filter(|state| receives(*state)).collect();
    assert_eq!((sending, receiving), (vec![1, 8], vec![1, 4, 5]));
}

#[test]
fn a_receiver_keeps_half_of_its_buffer_for_tcp() {
    for (wanted, buffer, expected) in [(100, 1000, 100), (600, 1000, 500), (1, 0, 0)] {
        assert_eq!(limit(wanted, buffer), expected);
    }
}
