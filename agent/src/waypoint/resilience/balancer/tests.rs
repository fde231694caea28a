use std::collections::{HashMap, HashSet};

use super::*;
use crate::discovery::model::HashKey;

/// What is known of endpoints, by the last byte of their address.
#[derive(Default)]
struct Known {
    ejected: HashSet<u8>,
    in_flight: HashMap<u8, u32>,
    share: HashMap<u8, u32>,
}

fn last(endpoint: SocketAddr) -> u8 {
    match endpoint {
        SocketAddr::V4(v4) => v4.ip().octets()[3],
        SocketAddr::V6(v6) => v6.ip().octets()[15],
    }
}

impl Standing for Known {
    fn has_ejected(&self) -> bool {
        !self.ejected.is_empty()
    }
    fn is_ejected(&self, endpoint: SocketAddr) -> bool {
        self.ejected.contains(&last(endpoint))
    }
    fn in_flight(&self, endpoint: SocketAddr) -> u32 {
        self.in_flight.get(&last(endpoint)).copied().unwrap_or(0)
    }
    fn starts_slowly(&self) -> bool {
        !self.share.is_empty()
    }
    fn share(&self, endpoint: SocketAddr) -> u32 {
        self.share.get(&last(endpoint)).copied().unwrap_or(FULL)
    }
}

/// Endpoints 10.0.0.1 and so on: those with odd numbers in zone `a`, the others in zone `b`.
fn endpoints(count: u8) -> Vec<Endpoint> {
    let endpoint = |last: u8| Endpoint {
        port_name: "".into(),
        address: [10, 0, 0, last].into(),
        port: 80,
        node: None,
        zone: Some(if last % 2 == 1 { "a" } else { "b" }.into()),
    };
    (1..=count).map(endpoint).collect()
}

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 80).into()
}

/// Nothing but who there is.
fn plain<'a>(strategy: &'a Strategy, candidates: &'a [&'a Endpoint]) -> Draw<'a> {
    Draw {
        strategy,
        candidates,
        zone: None,
        hash: Some(0),
        tried: &[],
        turn: 0,
        random: 0,
    }
}

const BY_SOURCE: Strategy = Strategy::ConsistentHash(HashKey::SourceAddress);

/// Who gets how many of 12,000 requests.
fn shares(draw: &Draw<'_>, known: &Known) -> Vec<(u8, u32)> {
    let mut shares = std::collections::BTreeMap::new();
    for turn in 0..12_000 {
        let draw = Draw {
            turn,
            random: turn as u64,
            hash: draw.hash.map(|_| turn as u64),
            ..*draw
        };
        let chosen = draw.choose(known).unwrap();
        *shares.entry(last(chosen.socket_address())).or_default() += 1;
    }
    shares.into_iter().collect()
}

#[test]
fn no_strategy_chooses_from_nobody_and_each_takes_the_only_one() {
    let all = endpoints(1);
    let one: Vec<&Endpoint> = all.iter().collect();
    let tried = [address(1)];
    for strategy in [Strategy::LeastRequest, Strategy::RoundRobin, BY_SOURCE] {
        let draw = |candidates| Draw {
            zone: Some("b"),
            tried: &tried,
            ..plain(&strategy, candidates)
        };
        let known = Known {
            ejected: [1].into(),
            ..Known::default()
        };
        assert_eq!(draw(&[]).choose(&known), None);
        assert_eq!(draw(&one).choose(&known), Some(one[0]), "{strategy:?}");
    }
}

#[test]
fn every_strategy_gives_all_that_are_alike_the_same() {
    let all = endpoints(4);
    let candidates: Vec<&Endpoint> = all.iter().collect();
    for (strategy, tolerance) in [
        (Strategy::LeastRequest, 200),
        (Strategy::RoundRobin, 0),
        (BY_SOURCE, 200),
    ] {
        let draw = plain(&strategy, &candidates);
        for (endpoint, share) in shares(&draw, &Known::default()) {
            assert!(
                share.abs_diff(3_000) <= tolerance,
                "{strategy:?} {endpoint}: {share}"
            );
        }
    }
}

/// Who comes into question, in whichever way it is chosen: all of them and nobody else.
#[test]
fn bad_endpoints_are_left_out_as_long_as_there_are_others() {
    let all = endpoints(4);
    let candidates: Vec<&Endpoint> = all.iter().collect();
    for (what, zone, ejected, tried, expected) in [
        ("all", None, &[][..], &[][..], &[1, 2, 3, 4][..]),
        ("own zone first", Some("a"), &[], &[], &[1, 3]),
        (
            "a zone without endpoints",
            Some("c"),
            &[],
            &[],
            &[1, 2, 3, 4],
        ),
        ("ejected", None, &[1, 2], &[], &[3, 4]),
        ("tried", None, &[], &[1, 2], &[3, 4]),
        ("ejected or tried", None, &[1], &[2], &[3, 4]),
        ("in the own zone too", Some("a"), &[1], &[], &[3]),
        (
            "another zone before a bad one",
            Some("a"),
            &[1],
            &[3],
            &[2, 4],
        ),
        ("all were tried", None, &[], &[1, 2, 3, 4], &[1, 2, 3, 4]),
        ("tried before ejected", None, &[1, 2], &[3, 4], &[3, 4]),
        (
            "all are ejected: untried ones",
            None,
            &[1, 2, 3, 4],
            &[1],
            &[2, 3, 4],
        ),
        (
            "all are bad",
            Some("a"),
            &[1, 2, 3, 4],
            &[1, 2, 3, 4],
            &[1, 2, 3, 4],
        ),
    ] {
        let tried: Vec<SocketAddr> = tried.iter().copied().map(address).collect();
        let known = Known {
            ejected: ejected.iter().copied().collect(),
            ..Known::default()
        };
        for strategy in [Strategy::LeastRequest, Strategy::RoundRobin, BY_SOURCE] {
            let draw = Draw {
                zone,
                tried: &tried,
                ..plain(&strategy, &candidates)
            };
            let shares = shares(&draw, &known);
            let taken: Vec<u8> = shares.iter().map(|(endpoint, _)| *endpoint).collect();
            assert_eq!(taken, expected, "{what}, {strategy:?}");
        }
    }
}

#[test]
fn the_busier_of_two_is_never_taken() {
    let all = endpoints(3);
    let candidates: Vec<&Endpoint> = all.iter().collect();
    let draw = plain(&Strategy::LeastRequest, &candidates);
    let known = Known {
        in_flight: [(1, 5), (2, 4)].into(),
        ..Known::default()
    };
    // 1 loses against each other one, 2 against 3.
    let shares = shares(&draw, &known);
    assert!(
        matches!(shares[..], [(2, two), (3, three)] if three.abs_diff(2 * two) < 400),
        "{shares:?}"
    );
}

#[test]
fn an_endpoint_that_starts_slowly_gets_about_its_share() {
    let all = endpoints(3);
    let candidates: Vec<&Endpoint> = all.iter().collect();
    for strategy in [Strategy::LeastRequest, Strategy::RoundRobin] {
        for (share, expected) in [(100, 300..900), (500, 1_800..2_800), (1_000, 3_700..4_300)] {
            let known = Known {
                share: [(2, share)].into(),
                ..Known::default()
            };
            let draw = plain(&strategy, &candidates);
            let got = shares(&draw, &known)[1].1;
            assert!(expected.contains(&got), "{strategy:?} at {share}: {got}");
        }
    }
}

#[test]
fn keys_stay_with_their_endpoint_on_every_waypoint_and_version() {
    let of = |key| weight(key, address(1));
    // Of XXH3 itself: another function, or another order of bytes, would send clients elsewhere while
    // waypoints are replaced one by one.
    assert_eq!(
        of(0),
        XxHash3_64::oneshot_with_seed(0, &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 80])
    );
    assert_ne!(of(0), of(1));
}

proptest::proptest! {
    /// A key that finds its endpoint gone moves; no other key does, and none comes back to another one.
    #[test]
    fn keys_move_only_from_an_endpoint_that_leaves(
        count in 2u8..40,
        leaves in 0usize..40,
        keys in proptest::collection::vec(proptest::prelude::any::<u64>(), 1..50),
    ) {
        let all = endpoints(count);
        let before: Vec<&Endpoint> = all.iter().collect();
        let leaves = leaves % before.len();
        let mut after = before.clone();
        let gone = after.remove(leaves);
        let ejected = Known {
            ejected: [last(gone.socket_address())].into(),
            ..Known::default()
        };
        for key in keys {
            let choose = |candidates: &[&Endpoint], known: &Known| {
                let draw = Draw {
                    hash: Some(key),
                    random: key,
                    ..plain(&BY_SOURCE, candidates)
                };
                draw.choose(known).unwrap().socket_address()
            };
            let old = choose(&before, &Known::default());
            let new = choose(&after, &Known::default());
            proptest::prop_assert!(old == new || old == gone.socket_address());
            // Left out and gone come to the same, and the order of candidates to nothing.
            proptest::prop_assert_eq!(choose(&before, &ejected), new);
            let reversed: Vec<&Endpoint> = before.iter().rev().copied().collect();
            proptest::prop_assert_eq!(choose(&reversed, &Known::default()), old);
        }
    }
}
