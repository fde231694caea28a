//! Label `response_flags` of requests, in Envoy's terms.

use std::{fmt, ops::BitOr};

/// Why a request got the answer that it did: none of these, or some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestFlags(u32);

/// Each flag's bit is its index.
const NAMES: [&str; 16] = [
    "UH", "UF", "UO", "NR", "URX", "DC", "UC", "UT", "UR", "DPE", "UPE", "RL", "UAEX", "DI", "FI",
    "DT",
];

impl RequestFlags {
    /// As it should be.
    pub const NONE: Self = Self(0);
    /// `UH`: no endpoint can take it.
    pub const NO_HEALTHY_UPSTREAM: Self = Self(1 << 0);
    /// `UF`: no connection to the endpoint could be had.
    pub const UPSTREAM_CONNECT_FAILED: Self = Self(1 << 1);
    /// `UO`: a circuit breaker is open.
    pub const UPSTREAM_OVERFLOW: Self = Self(1 << 2);
    /// `NR`: no route matches.
    pub const NO_ROUTE: Self = Self(1 << 3);
    /// `URX`: no further attempt was left.
    pub const RETRIES_EXHAUSTED: Self = Self(1 << 4);
    /// `DC`: the client went away.
    pub const DOWNSTREAM_TERMINATED: Self = Self(1 << 5);
    /// `UC`: the endpoint closed the connection.
    pub const UPSTREAM_TERMINATED: Self = Self(1 << 6);
    /// `UT`: the endpoint took longer than an attempt may.
    pub const UPSTREAM_TIMEOUT: Self = Self(1 << 7);
    /// `UR`: the endpoint reset the stream.
    pub const UPSTREAM_RESET: Self = Self(1 << 8);
    /// `DPE`: the client's request isn't HTTP as it should be.
    pub const DOWNSTREAM_PROTOCOL_ERROR: Self = Self(1 << 9);
    /// `UPE`: the endpoint's response isn't HTTP as it should be.
    pub const UPSTREAM_PROTOCOL_ERROR: Self = Self(1 << 10);
    /// `RL`: above a rate limit.
    pub const RATE_LIMITED: Self = Self(1 << 11);
    /// `UAEX`: a policy refused it.
    pub const UNAUTHORIZED: Self = Self(1 << 12);
    /// `DI`: delayed on purpose.
    pub const DELAY_INJECTED: Self = Self(1 << 13);
    /// `FI`: aborted on purpose.
    pub const FAULT_INJECTED: Self = Self(1 << 14);
    /// `DT`: it took longer than all its attempts may.
    pub const DURATION_TIMEOUT: Self = Self(1 << 15);

    /// Whether all of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are set.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let set =
            move |(bit, name): (usize, &&'static str)| (self.0 & (1 << bit) != 0).then_some(*name);
        NAMES.iter().enumerate().filter_map(set)
    }
}

impl BitOr for RequestFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for RequestFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("-");
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_as_envoy_names_them() {
        for (flags, text) in [
            (RequestFlags::NONE, "-"),
            (RequestFlags::NO_HEALTHY_UPSTREAM, "UH"),
            (RequestFlags::UPSTREAM_CONNECT_FAILED, "UF"),
            (RequestFlags::UPSTREAM_OVERFLOW, "UO"),
            (RequestFlags::NO_ROUTE, "NR"),
            (RequestFlags::RETRIES_EXHAUSTED, "URX"),
            (RequestFlags::DOWNSTREAM_TERMINATED, "DC"),
            (RequestFlags::UPSTREAM_TERMINATED, "UC"),
            (RequestFlags::UPSTREAM_TIMEOUT, "UT"),
            (RequestFlags::UPSTREAM_RESET, "UR"),
            (RequestFlags::DOWNSTREAM_PROTOCOL_ERROR, "DPE"),
            (RequestFlags::UPSTREAM_PROTOCOL_ERROR, "UPE"),
            (RequestFlags::RATE_LIMITED, "RL"),
            (RequestFlags::UNAUTHORIZED, "UAEX"),
            (RequestFlags::DELAY_INJECTED, "DI"),
            (RequestFlags::FAULT_INJECTED, "FI"),
            (RequestFlags::DURATION_TIMEOUT, "DT"),
            (
                RequestFlags::RETRIES_EXHAUSTED | RequestFlags::UPSTREAM_CONNECT_FAILED,
                "UF,URX",
            ),
        ] {
            assert_eq!(flags.to_string(), text);
        }
    }

    #[test]
    fn a_flag_that_is_set_twice_is_told_once() {
        let twice = RequestFlags::NO_ROUTE | RequestFlags::NO_ROUTE;
        assert_eq!(twice, RequestFlags::NO_ROUTE);
        assert!(twice.contains(RequestFlags::NO_ROUTE));
        assert!(!twice.contains(RequestFlags::NO_ROUTE | RequestFlags::UPSTREAM_TIMEOUT));
    }
}
