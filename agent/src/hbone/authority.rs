//! The `:authority` of a CONNECT request: where the client wants to go.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// The longest authority accepted, in bytes: a DNS name of 253 bytes does not need more, and a
/// log line should not carry more.
const MAX_LENGTH: usize = 255;

/// A checked `:authority`. `Display` gives the text that goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authority {
    /// A pod by its address. An IPv4-mapped IPv6 address has become IPv4.
    Address(SocketAddr),
    /// A service by its name, which a waypoint resolves.
    Host {
        /// The name in lower case, no trailing dot.
        host: Arc<str>,
        /// Never 0.
        port: u16,
    },
}

impl Authority {
    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// What is wrong with an authority. The client gets 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAuthorityError {
    /// Nothing there.
    #[error("the request has no :authority; CONNECT needs host:port (RFC 9113 section 8.5)")]
    Missing,
    /// More than 255 bytes.
    #[error("the :authority has {length} bytes; at most {MAX_LENGTH} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// `user@host`.
    #[error(":authority {text:?} carries user information, which CONNECT does not have")]
    UserInformation {
        /// The whole authority.
        text: String,
    },
    /// No `:port`.
    #[error(":authority {text:?} has no port; expected host:port")]
    NoPort {
        /// The whole authority.
        text: String,
    },
    /// Port 0, above 65535, or not a number.
    #[error(":authority {text:?} has no valid port: expected 1 to 65535")]
    BadPort {
        /// The whole authority.
        text: String,
    },
    /// `::1:80`.
    #[error(":authority {text:?} has an IPv6 address without brackets; expected [address]:port")]
    UnbracketedIpv6 {
        /// The whole authority.
        text: String,
    },
    /// Neither an address nor a DNS name.
    #[error(":authority {text:?} names neither an IP address nor a DNS name")]
    BadHost {
        /// The whole authority.
        text: String,
    },
}

impl FromStr for Authority {
    type Err = ParseAuthorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ParseAuthorityError as Error;
        let owned = || text.to_owned();
        if text.is_empty() {
            return Err(Error::Missing);
        }
        if text.len() > MAX_LENGTH {
            return Err(Error::TooLong { length: text.len() });
        }
        if text.contains('@') {
            return Err(Error::UserInformation { text: owned() });
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(Error::UnbracketedIpv6 { text: owned() });
        }

        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => return Err(Error::NoPort { text: owned() }),
        };
        let port = parse_port(port).ok_or_else(|| Error::BadPort { text: owned() })?;

        if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            let address: Ipv6Addr = inner
                .parse()
                .map_err(|_| Error::BadHost { text: owned() })?;
            let address = IpAddr::V6(address).to_canonical();
            return Ok(Self::Address(SocketAddr::new(address, port)));
        }
        if host.contains(':') {
            return Err(Error::UnbracketedIpv6 { text: owned() });
        }
        if let Ok(address) = host.parse() {
            return Ok(Self::Address(SocketAddr::new(IpAddr::V4(address), port)));
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if !is_dns_name(host) {
            return Err(Error::BadHost { text: owned() });
        }
        let host = host.to_ascii_lowercase().into();
        Ok(Self::Host { host, port })
    }
}

/// Digits only: `u16::from_str` would let `+80` through.
fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// RFC 1123 names, plus the underscore that DNS has in practice. A name whose last label is a
/// number is a mistyped IPv4 address (the rule of the WHATWG URL standard).
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && last.parse::<u64>().is_err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        for (text, expected) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[fd00::1]:8080", "[fd00::1]:8080"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[FD00:0::1]:65535", "[fd00::1]:65535"),
        ] {
            let address = Authority::Address(expected.parse().unwrap());
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for (text, host, port) in [
            (
                "web.shop.svc.cluster.local:80",
                "web.shop.svc.cluster.local",
                80,
            ),
            ("Web:1", "web", 1),
            ("web.shop.:443", "web.shop", 443),
            ("a_b-c:443", "a_b-c", 443),
        ] {
            let host = host.into();
            assert_eq!(text.parse(), Ok(Authority::Host { host, port }), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let long = format!("{}:80", "a.".repeat(150));
        for (text, says) in [
            ("", "no :authority"),
            (long.as_str(), "303 bytes"),
            ("user@web:80", "user information"),
            ("web", "no port"),
            ("10.0.0.1", "no port"),
            ("[fd00::1]", "no port"),
            ("web:", "valid port"),
            ("web:0", "valid port"),
            ("web:+80", "valid port"),
            ("web:65536", "valid port"),
            ("web:http", "valid port"),
            ("fd00::1", "without brackets"),
            ("fd00::zz:80", "without brackets"),
            ("[fd00::g]:80", "neither"),
            ("[10.0.0.1]:80", "neither"),
            (":80", "neither"),
            ("999.0.0.1:80", "neither"),
            ("10.0.0:80", "neither"),
            ("-web:80", "neither"),
            ("we b:80", "neither"),
            ("web..shop:80", "neither"),
            ("web/path:80", "neither"),
        ] {
            let error = text.parse::<Authority>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_display_round_trips(text in ".{0,300}") {
            crate::fuzzing::headers::check_authority(&text);
        }

        #[test]
        fn every_address_with_a_port_round_trips(address: IpAddr, port in 1u16..) {
            let authority = Authority::Address(SocketAddr::new(address.to_canonical(), port));
            prop_assert_eq!(SocketAddr::new(address, port).to_string().parse(), Ok(authority));
        }

        #[test]
        fn every_name_with_a_port_round_trips(
            host in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,10}){0,4}",
            port in 1u16..,
        ) {
            let host = host.into();
            let authority = Authority::Host { host, port };
            prop_assert_eq!(authority.to_string().parse(), Ok(authority));
        }
    }
}
