//! The operator's commands: what the agent of this node is asked, and how the answer is shown.
//!
//! They write nothing but the answer to standard output. The agent's log isn't set up for them.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::{
    agent::Agent, certificates, connections, explain, observe, policies, problems, ready, services,
    status, table::Table, workloads,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// How this node's agent is: ready, capturing, in sync.
    ///
    /// Exits with 0 whatever it says, and with 1 only if it can't be asked: `/healthz/ready` on port
    /// 15021 is for probes.
    Status(status::Arguments),
    /// Whether this node's agent is ready, and is the one that is meant: for probes.
    ///
    /// Exits with 0 if so, else with 1.
    Ready(ready::Arguments),
    /// The pods that the mesh knows, on all nodes, and whether they take part.
    Workloads(workloads::Arguments),
    /// The services that the mesh knows, and their ready endpoints.
    Services(AskOf),
    /// The policies that the agent enforces or, in dry run, reports on.
    Policies(AskOf),
    /// The certificates of this node's pods.
    Certificates(Ask),
    /// The connections that are open through this node's agent, or past it under its eyes.
    ///
    /// Those of a namespace have either end's pod or the service in it.
    Connections(AskOf),
    /// Why connections from one end to another come about, or don't: each step, by the agent of this node.
    ///
    /// Exits with 0 whatever comes out, and with 1 if the question isn't understood or the agent can't be
    /// asked. Ask on the source's node: its agent alone knows how the source is captured, and tries the tunnel
    /// as the source.
    Explain(explain::Arguments),
    /// What happens to connections now, line by line: those that are open, then each that opens and ends.
    ///
    /// Ends with Ctrl-C. A line says who connects to whom, what became of it and why, and what was
    /// measured. Without a filter it says all that this node's agent carries or lets pass; what goes from pod
    /// to pod on the node is told at both of its ends.
    Observe(observe::Arguments),
    /// The objects that can't be used as they are, and what serves instead.
    Problems(Ask),
}

/// Asks, and writes the answer.
///
/// # Errors
/// Why there is no answer.
pub(super) fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(command.run())
}

impl Command {
    async fn run(self) -> Result<()> {
        match self {
            Self::Status(arguments) => status::run(arguments).await,
            Self::Ready(arguments) => ready::run(arguments).await,
            Self::Workloads(arguments) => workloads::run(arguments).await,
            Self::Services(arguments) => services::run(arguments).await,
            Self::Policies(arguments) => policies::run(arguments).await,
            Self::Certificates(arguments) => certificates::run(arguments).await,
            Self::Connections(arguments) => connections::run(arguments).await,
            Self::Explain(arguments) => explain::run(arguments).await,
            Self::Observe(arguments) => observe::run(arguments).await,
            Self::Problems(arguments) => problems::run(arguments).await,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

/// What all of them take.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// For people, or for programs.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Output,
    /// Where the agent answers, as it was told itself.
    #[arg(long, env = "AMBIT_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
}

impl Ask {
    pub(super) fn agent(&self) -> Agent {
        Agent::new(self.admin_address)
    }

    /// Writes what was asked for in the form that was asked for.
    pub(super) fn show<T: Serialize>(
        &self,
        value: &T,
        for_people: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        let text = match self.output {
            Output::Table => for_people(value),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        };
        write(&text).map(drop)
    }

    /// The same for a list. People are told on standard error that it is `empty`.
    pub(super) fn show_list<T: Serialize, const N: usize>(
        &self,
        items: &[T],
        table: impl FnOnce(&[T]) -> Table<N>,
        empty: impl FnOnce() -> String,
    ) -> Result<()> {
        if items.is_empty() && self.output == Output::Table {
            eprintln!("{}", empty());
            return Ok(());
        }
        self.show(&items, |items| table(items).to_string())
    }
}

/// What those take that show what is in namespaces.
#[derive(Debug, Args)]
pub(super) struct AskOf {
    #[command(flatten)]
    pub(super) ask: Ask,
    #[command(flatten)]
    pub(super) of: OfNamespace,
}

/// A namespace to show alone.
#[derive(Debug, Args)]
pub(super) struct OfNamespace {
    /// Only those of this namespace. Default: all.
    #[arg(short, long)]
    pub(super) namespace: Option<String>,
}

impl OfNamespace {
    /// Whether every namespace is wanted.
    pub(super) fn is_any(&self) -> bool {
        self.namespace.is_none()
    }

    /// Whether to show an object of this `namespace/name`.
    pub(super) fn selects(&self, name: &str) -> bool {
        let Some(namespace) = &self.namespace else {
            return true;
        };
        super::table::split_name(name).0 == namespace
    }

    /// ` in namespace shop`, or nothing.
    pub(super) fn words(&self) -> String {
        let namespace = self.namespace.iter();
        namespace
            .map(|namespace| format!(" in namespace {namespace}"))
            .collect()
    }
}

#[cfg(test)]
impl OfNamespace {
    pub(super) fn only(namespace: Option<&str>) -> Self {
        Self {
            namespace: namespace.map(Into::into),
        }
    }
}

/// Whether somebody still reads.
pub(super) fn write(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("writing to standard output").map(|()| true),
    }
}
