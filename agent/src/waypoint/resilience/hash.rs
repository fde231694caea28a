//! What a consistent hash is made from in a request.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header::COOKIE};
use twox_hash::XxHash3_64;

use crate::discovery::model::{BackendPolicy, HashCookie, HashKey, Strategy};

/// What is hashed of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    /// For [`Choice::hash`](super::Choice::hash). The same for the same key on every waypoint.
    pub value: u64,
    /// The `Set-Cookie` that the answer must have, so that the client comes back to the same endpoint.
    pub set_cookie: Option<HeaderValue>,
}

/// What the policy has hashed of a request; `None` if nothing, or the request has nothing of the kind. `random`
/// is any random number, of which a new cookie is made.
#[must_use]
pub fn hash_of(
    policy: &BackendPolicy,
    headers: &HeaderMap,
    client: IpAddr,
    random: u64,
) -> Option<Hash> {
    let Strategy::ConsistentHash(key) = &policy.load_balancing.strategy else {
        return None;
    };
    let without_cookie = |bytes: &[u8]| Hash {
        value: hash(bytes),
        set_cookie: None,
    };
    match key {
        HashKey::Header(name) => Some(without_cookie(headers.get(name)?.as_bytes())),
        HashKey::SourceAddress => Some(match client.to_canonical() {
            IpAddr::V4(v4) => without_cookie(&v4.octets()),
            IpAddr::V6(v6) => without_cookie(&v6.octets()),
        }),
        HashKey::Cookie(cookie) => Some(match sent(headers, &cookie.name) {
            Some(value) => without_cookie(value),
            None => given(cookie, random),
        }),
    }
}

fn hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The value of a cookie that the client has; of several the first, which RFC 6265 has be the one of the longest
/// path. An empty one is none.
fn sent<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let all = headers.get_all(COOKIE).iter();
    let pairs = all.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    });
    values.find(|value| !value.is_empty())
}

/// A cookie for a client that has none, and its hash as it will be when it comes back.
fn given(cookie: &HashCookie, random: u64) -> Hash {
    let value = format!("{random:016x}");
    let age = cookie.ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs()));
    let (name, path) = (&cookie.name, &cookie.path);
    let text = format!(
        "{name}={value}{}; Path={path}; HttpOnly",
        age.unwrap_or_default()
    );
    Hash {
        value: hash(value.as_bytes()),
        // Checked when the policy was read: of a token and a path there is always one.
        set_cookie: HeaderValue::try_from(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use http::HeaderName;

    use super::*;
    use crate::discovery::model::LoadBalancing;

    fn policy(strategy: Strategy) -> BackendPolicy {
        BackendPolicy {
            load_balancing: LoadBalancing {
                strategy,
                ..LoadBalancing::default()
            },
            ..BackendPolicy::default()
        }
    }

    fn by(key: HashKey) -> BackendPolicy {
        policy(Strategy::ConsistentHash(key))
    }

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        all.iter().map(pair).collect()
    }

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    #[test]
    fn what_the_policy_names_is_hashed() {
        let header = by(HashKey::Header(HeaderName::from_static("x-user")));
        let source = by(HashKey::SourceAddress);
        let cookie = by(HashKey::Cookie(HashCookie {
            name: "side".into(),
            ttl: None,
            path: "/".into(),
        }));
        let mapped = "::ffff:10.0.0.9".parse().unwrap();
        for (what, policy, sent, client, expected) in [
            (
                "no hash",
                policy(Strategy::LeastRequest),
                &[][..],
                CLIENT,
                None,
            ),
            (
                "a header",
                header.clone(),
                &[("x-user", "ann")],
                CLIENT,
                Some(&b"ann"[..]),
            ),
            ("a header that isn't there", header, &[], CLIENT, None),
            (
                "the client",
                source.clone(),
                &[],
                CLIENT,
                Some(&[10, 0, 0, 9]),
            ),
            (
                "the client, mapped",
                source,
                &[],
                mapped,
                Some(&[10, 0, 0, 9]),
            ),
            (
                "a cookie",
                cookie.clone(),
                &[("cookie", "side=x1")],
                CLIENT,
                Some(b"x1"),
            ),
            (
                "one of many cookies",
                cookie.clone(),
                &[
                    ("cookie", "outside=no; sides=no"),
                    ("cookie", "a=b;  side=x=1 ; side=x2"),
                ],
                CLIENT,
                Some(b"x=1"),
            ),
        ] {
            let found = hash_of(&policy, &headers(sent), client, 1);
            let expected = expected.map(|bytes| Hash {
                value: hash(bytes),
                set_cookie: None,
            });
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn a_client_without_cookie_is_given_one_that_brings_it_back() {
        let cookie = |ttl| {
            by(HashKey::Cookie(HashCookie {
                name: "side".into(),
                ttl,
                path: "/shop".into(),
            }))
        };
        for (ttl, text) in [
            (None, "side=00000000000000ff; Path=/shop; HttpOnly"),
            (
                Some(Duration::from_secs(90)),
                "side=00000000000000ff; Max-Age=90; Path=/shop; HttpOnly",
            ),
        ] {
            for empty in [&[][..], &[("cookie", "side=; other=1")]] {
                let given = hash_of(&cookie(ttl), &headers(empty), CLIENT, 255).unwrap();
                assert_eq!(given.set_cookie.unwrap(), text);
                let back = headers(&[("cookie", "side=00000000000000ff")]);
                let again = hash_of(&cookie(ttl), &back, CLIENT, 7).unwrap();
                assert_eq!((again.value, again.set_cookie), (given.value, None));
            }
        }
    }
}
