//! The `forwarded` header (RFC 7239): the original client, and the service that it asked for.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// `for="ip:port";host=<service>`. It proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address. An IPv4-mapped IPv6 address has become IPv4.
    pub address: IpAddr,
    /// The client's port, if it was told.
    pub port: Option<u16>,
    /// The service's host name, never empty.
    pub host: Option<Arc<str>>,
}

impl Forwarded {
    /// Reads the first element, which the first proxy wrote. `None` unless it names an address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut client, mut host) = (None, None);
        for (name, value) in first_element(text)? {
            if name.eq_ignore_ascii_case("for") {
                client = parse_node(&value);
            } else if name.eq_ignore_ascii_case("host") && !value.is_empty() {
                host = Some(value.into());
            }
        }
        let (address, port) = client?;
        Some(Self {
            address,
            port,
            host,
        })
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A colon or a bracket needs quotes; so they are always there.
        match (self.port, self.address) {
            (Some(port), address) => write!(f, "for=\"{}\"", SocketAddr::new(address, port))?,
            (None, IpAddr::V4(address)) => write!(f, "for=\"{address}\"")?,
            (None, IpAddr::V6(address)) => write!(f, "for=\"[{address}]\"")?,
        }
        match &self.host {
            Some(host) if host.bytes().all(is_token) => write!(f, ";host={host}"),
            Some(host) => {
                let escaped = host.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, ";host=\"{escaped}\"")
            }
            None => Ok(()),
        }
    }
}

/// `ip`, `ip:port`, `[ip]` or `[ip]:port`; obfuscated identifiers and `unknown` are not addresses.
fn parse_node(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), None));
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let address: Ipv6Addr = inner.parse().ok()?;
    Some((IpAddr::V6(address).to_canonical(), None))
}

/// The `name=value` pairs up to the first comma outside of quotes. `None` if malformed.
fn first_element(text: &str) -> Option<Vec<(&str, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_start();
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find([';', ',']).unwrap_or(after.len());
                (after[..end].trim_end().to_owned(), &after[end..])
            }
        };
        pairs.push((name, value));
        match after.trim_start().strip_prefix(';') {
            Some(more) => rest = more,
            None if after.trim().is_empty() || after.trim_start().starts_with(',') => {
                return Some(pairs);
            }
            None => return None,
        }
    }
}

/// Reads a quoted-string whose first quote is gone; also gives what follows the closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarded(address: &str, port: Option<u16>, host: Option<&str>) -> Forwarded {
        Forwarded {
            address: address.parse().unwrap(),
            port,
            host: host.map(Arc::from),
        }
    }

    #[test]
    fn elements_are_read_and_written() {
        let host = Some("web.shop.svc.cluster.local");
        for (text, expected) in [
            (
                "for=\"10.0.0.1:1234\";host=web.shop.svc.cluster.local",
                forwarded("10.0.0.1", Some(1234), host),
            ),
            ("for=\"[fd00::1]:80\"", forwarded("fd00::1", Some(80), None)),
            ("for=\"[fd00::1]\"", forwarded("fd00::1", None, None)),
            ("for=\"10.0.0.1\"", forwarded("10.0.0.1", None, None)),
            (
                "for=\"10.0.0.1\";host=\"a \\\"b\\\"\"",
                forwarded("10.0.0.1", None, Some("a \"b\"")),
            ),
        ] {
            assert_eq!(Forwarded::parse(text), Some(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn other_spellings_are_read() {
        let expected = forwarded("10.0.0.1", None, Some("web"));
        for text in [
            "for=10.0.0.1;host=web",
            "Host=web ; For=10.0.0.1;proto=http",
            "for=\"10.0.0.1\";host=\"web\", for=10.9.9.9;host=other",
            "for=\"[::ffff:10.0.0.1]\";host=web",
        ] {
            assert_eq!(Forwarded::parse(text), Some(expected.clone()), "{text}");
        }
    }

    #[test]
    fn what_names_no_address_is_ignored() {
        for text in [
            "",
            "host=web",
            "for=unknown",
            "for=_hidden",
            "for=\"10.0.0.1",
            "for=\"10.0.0.1\"x",
            "for",
            ";",
            "=",
        ] {
            assert_eq!(Forwarded::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_client_and_host_round_trips(
            address: IpAddr,
            port: Option<u16>,
            host in proptest::option::of("[ -~]{1,40}"),
        ) {
            let sent = Forwarded {
                address: address.to_canonical(),
                port,
                host: host.map(Arc::from),
            };
            prop_assert_eq!(Forwarded::parse(&sent.to_string()), Some(sent));
        }

        #[test]
        fn any_text_is_tolerated(text in ".{0,100}") {
            if let Some(parsed) = Forwarded::parse(&text) {
                prop_assert_eq!(Forwarded::parse(&parsed.to_string()), Some(parsed));
            }
        }
    }
}
