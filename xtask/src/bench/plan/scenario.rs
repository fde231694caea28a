//! The scenarios: their names, what each asks for, and what it costs in time.

use std::{fmt, str::FromStr, time::Duration};

use lab::{Generator, Load};

use crate::bench::measurement::Placement;

/// As many connections as one client has ports for.
const MOST_IDLE: u16 = 20_000;

/// What is done to a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Scenario {
    /// Bytes as fast as they go, in this many streams.
    Bulk(u16),
    /// Requests one after the other in each of this many connections.
    RoundTrip(u16),
    /// Requests that arrive at this rate a second, whether or not the last one was answered.
    FixedRate(u32),
    /// A new connection for each request, to a server that was talked to before.
    Connect,
    /// The first connection to each of many servers.
    ConnectCold,
    /// From the creation of a pod to its first answer.
    Startup,
    /// Open connections that a restart of the client's proxy ends.
    ProxyRestart,
    /// Memory of the proxies of idle pods.
    Memory,
    /// Memory of what reads HTTP, with this many idle keep-alive connections.
    Idle(u16),
}

/// The scenarios, in the order in which they are run.
pub(super) fn wanted(only: &[Scenario], rates: &[u32], idle: u16) -> Vec<Scenario> {
    if !only.is_empty() {
        let mut scenarios: Vec<Scenario> = Vec::new();
        for scenario in only {
            if !scenarios.contains(scenario) {
                scenarios.push(*scenario);
            }
        }
        return scenarios;
    }
    let mut scenarios = vec![
        // Before there was any load.
        Scenario::Idle(0),
        Scenario::Bulk(1),
        Scenario::Bulk(8),
        Scenario::RoundTrip(1),
        Scenario::RoundTrip(32),
    ];
    scenarios.extend(rates.iter().map(|rate| Scenario::FixedRate(*rate)));
    scenarios.extend([
        Scenario::Connect,
        Scenario::Idle(idle),
        Scenario::ConnectCold,
        Scenario::Startup,
        Scenario::ProxyRestart,
        Scenario::Memory,
    ]);
    scenarios
}

impl Scenario {
    /// The load that it is, if the load generator does it.
    pub(in crate::bench) fn load(self) -> Option<Load> {
        /// So many that requests at the rate overlap where a mode is slow.
        const CONNECTIONS: usize = 16;
        const CLIENTS: usize = 8;

        match self {
            Scenario::Bulk(streams) => Some(Load::Bulk {
                streams: streams.into(),
            }),
            Scenario::RoundTrip(connections) => Some(Load::RoundTrip {
                connections: connections.into(),
            }),
            Scenario::FixedRate(requests_per_second) => Some(Load::FixedRate {
                requests_per_second,
                connections: CONNECTIONS,
            }),
            Scenario::Connect => Some(Load::Connect { clients: CLIENTS }),
            Scenario::ConnectCold
            | Scenario::Startup
            | Scenario::ProxyRestart
            | Scenario::Memory
            | Scenario::Idle(_) => None,
        }
    }

    /// Whether a load generator makes it; what needs none is left to the run with our own.
    pub(super) fn made_by(self, generator: Generator) -> bool {
        match generator {
            Generator::Own => true,
            Generator::Wrk => matches!(self, Scenario::RoundTrip(_) | Scenario::Connect),
            Generator::H2load => matches!(self, Scenario::RoundTrip(_) | Scenario::FixedRate(_)),
            Generator::Iperf3 => matches!(self, Scenario::Bulk(_)),
        }
    }

    /// Where client and server are. A pod that starts, a cold tunnel and a restart matter most
    /// between nodes, and are measured there.
    pub(super) fn placements(self) -> &'static [Option<Placement>] {
        match self {
            Scenario::Bulk(_)
            | Scenario::RoundTrip(_)
            | Scenario::FixedRate(_)
            | Scenario::Connect => &[Some(Placement::SameNode), Some(Placement::CrossNode)],
            Scenario::ConnectCold | Scenario::Startup | Scenario::ProxyRestart => {
                &[Some(Placement::CrossNode)]
            }
            Scenario::Memory | Scenario::Idle(_) => &[None],
        }
    }

    /// Whether it is measured of what passes on nothing but HTTP.
    pub(super) fn is_http(self) -> bool {
        match self {
            Scenario::RoundTrip(_)
            | Scenario::FixedRate(_)
            | Scenario::Connect
            | Scenario::Idle(_) => true,
            Scenario::Bulk(_)
            | Scenario::ConnectCold
            | Scenario::Startup
            | Scenario::ProxyRestart
            | Scenario::Memory => false,
        }
    }

    /// Whether there is nothing to measure where there is no proxy.
    pub(super) fn needs_proxy(self) -> bool {
        matches!(
            self,
            Scenario::ProxyRestart | Scenario::Memory | Scenario::Idle(_)
        )
    }

    /// What one step takes beside the time of its load. Measured on two cores.
    pub(super) fn overhead(self, pods: &[u32]) -> Duration {
        let milliseconds = match self {
            Scenario::Bulk(_)
            | Scenario::RoundTrip(_)
            | Scenario::FixedRate(_)
            | Scenario::Connect => 150,
            Scenario::ConnectCold => 900,
            Scenario::Startup => 500,
            Scenario::ProxyRestart => 1500,
            Scenario::Idle(connections) => 6200 + 2 * u64::from(connections),
            Scenario::Memory => 3000 + 120 * u64::from(pods.last().copied().unwrap_or(0)),
        };
        Duration::from_millis(milliseconds)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scenario::Bulk(streams) => write!(f, "bulk-{streams}"),
            Scenario::RoundTrip(connections) => write!(f, "round-trip-{connections}"),
            Scenario::FixedRate(rate) => write!(f, "fixed-rate-{rate}"),
            Scenario::Connect => f.write_str("connect"),
            Scenario::ConnectCold => f.write_str("connect-cold"),
            Scenario::Startup => f.write_str("startup"),
            Scenario::ProxyRestart => f.write_str("proxy-restart"),
            Scenario::Memory => f.write_str("memory"),
            Scenario::Idle(connections) => write!(f, "idle-{connections}"),
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Scenario, String> {
        let fixed = wanted(&[], &[], 0);
        if let Some(scenario) = fixed.iter().find(|scenario| scenario.to_string() == name) {
            return Ok(*scenario);
        }
        if let Some(number) = name.strip_prefix("idle-")
            && let Some(number) = number.parse().ok().filter(|it| *it <= MOST_IDLE)
        {
            return Ok(Scenario::Idle(number));
        }
        let rate = name
            .strip_prefix("fixed-rate-")
            .and_then(|rate| rate.parse().ok());
        match rate {
            Some(rate) if rate > 0 => Ok(Scenario::FixedRate(rate)),
            _ => {
                let names: Vec<_> = fixed.iter().map(ToString::to_string).collect();
                Err(format!(
                    "there is no such scenario; there are {}, fixed-rate-N with N requests a \
                     second, and idle-N with up to {MOST_IDLE} connections",
                    names.join(", ")
                ))
            }
        }
    }
}
