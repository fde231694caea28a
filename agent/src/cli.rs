//! Roles and commands, and their settings. Each subcommand has a file.

mod agent;
mod authority;
mod certificates;
mod connections;
mod control;
mod explain;
mod names;
mod node;
mod observe;
mod operator;
mod policies;
mod problems;
mod ready;
mod services;
mod source;
mod status;
mod table;
mod tracing;
mod uninstall;
mod waypoint;
mod workloads;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    app::busy_poll,
    telemetry::logging::{self, LogFormat, Logging},
};

/// A per-node ambient service mesh: eBPF capture, mutual TLS between nodes, L4 policy.
#[derive(Debug, Parser)]
#[command(name = "ambit", version, propagate_version = true)]
pub struct Cli {
    /// Form of the log.
    #[arg(long, global = true, env = "AMBIT_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged: a level, or `target=level` pairs with commas between them.
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info")]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Role(Role),
    #[command(flatten)]
    Operator(operator::Command),
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The agent of a node: captures its pods' traffic, and carries it.
    Node(Box<node::Arguments>),
    /// A proxy that traffic of services and workloads goes through where they ask for it.
    Waypoint(Box<waypoint::Arguments>),
    /// The certificate authority.
    Control(Box<control::Arguments>),
    /// Removes every program, map, rule, route and table of Ambit from this node.
    Uninstall(uninstall::Arguments),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// In the operator's words.
    pub fn run(self) -> Result<()> {
        let role = match self.command {
            Command::Role(role) => role,
            // Answers and errors are all that they write, so there is nothing to log.
            Command::Operator(command) => return operator::run(command),
        };
        let logging = logging::install(self.log_format, &self.log_level)
            .context("setting up the log; --log-level takes levels like `info,ambit=debug`")?;
        let busy_poll = match &role {
            Role::Node(arguments) => arguments.busy_poll,
            _ => Duration::ZERO,
        };
        let runtime = busy_poll::runtime(busy_poll).context("starting the runtime")?;
        runtime.block_on(role.run(logging))
    }
}

impl Role {
    async fn run(self, logging: Logging) -> Result<()> {
        match self {
            Self::Node(arguments) => node::run(*arguments, logging).await,
            Self::Waypoint(arguments) => waypoint::run(*arguments, logging).await,
            Self::Control(arguments) => control::run(*arguments).await,
            Self::Uninstall(arguments) => uninstall::run(arguments).await,
        }
    }
}

/// A time span on the command line: `100us`, `500ms`, `30s`, `5m`, `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time span: write 100us, 500ms, 30s, 5m or 24h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    match &text[digits..] {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
    .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn time_spans_need_a_unit() {
        for (text, expected) in [
            ("100us", Some(Duration::from_micros(100))),
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("24h", Some(Duration::from_secs(86_400))),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }
}
