//! `ambit node`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ambit_common::splice::DEFAULT_LIMIT as DEFAULT_SPLICE_LIMIT;
use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{authority, duration, names, source, tracing};
use crate::{
    app,
    capture::{self, attach::Mechanism},
    proxy::{connections::DEFAULT_LIMIT, route::MissingWaypoint},
    splice,
    telemetry::logging::Logging,
};

/// What happens to connections that nobody can decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fallback {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SameNode {
    Kernel,
    Proxy,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhenReplaced {
    Exit,
    Wait,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// This node's name, as pods bear it in spec.nodeName.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    names: names::Arguments,
    #[command(flatten)]
    authority: authority::Arguments,
    #[command(flatten)]
    tracing: tracing::Arguments,
    /// The BPF file system that programs and maps are pinned in; mounted if it isn't.
    #[arg(long, env = "AMBIT_BPFFS", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The cgroup v2 tree below which the node's pods are, as the node itself has it.
    #[arg(long, env = "AMBIT_CGROUP", default_value = "/sys/fs/cgroup")]
    cgroup: PathBuf,
    /// How connections between pods of this node are carried, once the agent has allowed the first of
    /// their kind. kernel: straight from pod to pod, and the agent hears of their beginning and end;
    /// proxy: all through the agent.
    #[arg(long, env = "AMBIT_SAME_NODE", value_enum, default_value = "kernel")]
    same_node: SameNode,
    /// For how long after an agent's last sign of life new ones pass, of kinds that it had allowed;
    /// then --without-agent says.
    #[arg(long, env = "AMBIT_PASS_FOR", default_value = "60s", value_parser = duration)]
    pass_for: Duration,
    /// How programs are attached to devices.
    #[arg(long, env = "AMBIT_ATTACH", value_enum, default_value = "auto")]
    attach: Mechanism,
    /// Mesh traffic while no agent runs: deny makes it wait, allow lets new connections pass
    /// unprotected.
    #[arg(long, env = "AMBIT_WITHOUT_AGENT", value_enum, default_value = "deny")]
    without_agent: Fallback,
    /// Connections of a pod that stays unknown for longer than --hold.
    #[arg(long, env = "AMBIT_UNKNOWN_PODS", value_enum, default_value = "deny")]
    unknown_pods: Fallback,
    /// For how long connections of a pod that isn't known yet are held.
    #[arg(long, env = "AMBIT_HOLD", default_value = "5s", value_parser = duration)]
    hold: Duration,
    /// Moves bytes between applications and the agent past TCP, in the kernel, where both can bear
    /// it. off: all go through TCP.
    #[arg(long, env = "AMBIT_SPLICE", value_enum, default_value = "on")]
    splice: Switch,
    /// Bytes that may wait unread in one direction of a spliced connection: more lets a sender run
    /// further ahead of its reader, at the cost of as much kernel memory a connection that lags.
    #[arg(
        long,
        env = "AMBIT_SPLICE_LIMIT",
        default_value_t = DEFAULT_SPLICE_LIMIT,
        value_parser = clap::value_parser!(u32).range(4096..=1 << 30)
    )]
    splice_limit: u32,
    /// How long a thread asks for the next event before it sleeps, if the last came about as soon: waking it would
    /// take longer. It yields its processor meanwhile, and asks no more for a while where others need that. At most
    /// 1ms; 0us: it sleeps at once, for a node whose processors' time is dearer than answers between nodes are late.
    #[arg(long, env = "AMBIT_BUSY_POLL", default_value = "100us", value_parser = busy_poll)]
    pub(super) busy_poll: Duration,
    /// Has the splice's self-test fail.
    #[arg(long, hide = true)]
    splice_fail_self_test: bool,
    /// Connections whose waypoint isn't ready: deny refuses them; allow sends them without it, and has
    /// workloads take connections that should have come through theirs.
    #[arg(
        long,
        env = "AMBIT_WAYPOINT_MISSING",
        value_enum,
        default_value = "deny"
    )]
    waypoint_missing: Fallback,
    /// Open connections that this node carries at most. No pod has more than three times as many of them as are
    /// left for others: one that wants all has three quarters. Each takes two file descriptors, and some 10 KiB of memory while it is idle.
    #[arg(long, env = "AMBIT_MAX_CONNECTIONS", default_value_t = DEFAULT_LIMIT)]
    max_connections: usize,
    /// Open connections of one pod at most: those that it opened, through this node's agent or to pods of this
    /// node, and those that came to it in plaintext.
    /// [default: as many as --max-connections leaves it]
    #[arg(long, env = "AMBIT_MAX_CONNECTIONS_PER_POD")]
    max_connections_per_pod: Option<usize>,
    /// How long open connections may go on after SIGTERM, or once another agent has taken over.
    #[arg(long, env = "AMBIT_DRAIN", default_value = "30s", value_parser = duration)]
    drain: Duration,
    /// Where agents of this node meet: one that starts takes over from the one that runs, and nothing is
    /// lost. Whoever may write there may be the node's agent.
    #[arg(long, env = "AMBIT_RUN_DIRECTORY", default_value = "/run/ambit")]
    run_directory: PathBuf,
    /// What to do when another agent has taken over and nothing is open any more. wait: nothing, until
    /// told to stop, for a supervisor that would start this one anew.
    #[arg(long, env = "AMBIT_WHEN_REPLACED", value_enum, default_value = "exit")]
    when_replaced: WhenReplaced,
    /// Tells this agent from others of the node, for `ambit ready`.
    #[arg(long, env = "AMBIT_INSTANCE")]
    instance: Option<String>,
    /// The operator's endpoint; loopback only.
    #[arg(long, env = "AMBIT_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
    /// `/metrics`.
    #[arg(long, env = "AMBIT_METRICS_ADDRESS", default_value = "0.0.0.0:15020")]
    metrics_address: SocketAddr,
    /// `/healthz/ready`.
    #[arg(long, env = "AMBIT_READY_ADDRESS", default_value = "0.0.0.0:15021")]
    ready_address: SocketAddr,
}

/// Longer, and it would no more be a sleep's wake-up that is saved.
fn busy_poll(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_millis(1);
    match duration(text)? {
        span if span <= LONGEST => Ok(span),
        _ => Err(format!(
            "{text} is too long to keep a processor from sleeping: 1ms is the most"
        )),
    }
}

pub(super) async fn run(arguments: Arguments, logging: Logging) -> Result<()> {
    let node: Arc<str> = arguments.node_name.into();
    let settings = app::node::Settings {
        capture: capture::Settings {
            bpffs: arguments.bpffs,
            pass_for: match arguments.same_node {
                SameNode::Kernel => arguments.pass_for,
                SameNode::Proxy => Duration::ZERO,
            },
            cgroup: arguments.cgroup,
            node: node.clone(),
            allow_unknown_pods: arguments.unknown_pods == Fallback::Allow,
            allow_without_agent: arguments.without_agent == Fallback::Allow,
            hold: arguments.hold,
            mechanism: arguments.attach,
            splice: None,
        },
        splice: splice::Settings {
            enabled: arguments.splice == Switch::On,
            limit: arguments.splice_limit,
            fail_self_test: arguments.splice_fail_self_test,
        },
        authority: arguments.authority.into(),
        tracing: arguments.tracing.into(),
        node,
        source: arguments.source.into(),
        cluster: arguments.names.cluster.into(),
        cluster_domain: arguments.names.cluster_domain.into(),
        trust_domain: arguments.names.trust_domain.into(),
        waypoint_missing: match arguments.waypoint_missing {
            Fallback::Allow => MissingWaypoint::Allow,
            Fallback::Deny => MissingWaypoint::Deny,
        },
        max_connections: arguments.max_connections,
        max_connections_per_pod: arguments.max_connections_per_pod,
        drain: arguments.drain,
        run_directory: arguments.run_directory,
        when_replaced: match arguments.when_replaced {
            WhenReplaced::Exit => app::node::WhenReplaced::Exit,
            WhenReplaced::Wait => app::node::WhenReplaced::Wait,
        },
        instance: arguments.instance,
        endpoints: app::node::Endpoints {
            admin: arguments.admin_address,
            metrics: arguments.metrics_address,
            ready: arguments.ready_address,
        },
    };
    app::node::run(settings, logging).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_ask_for_a_millisecond_at_most() {
        for (text, expected) in [
            ("0us", Some(Duration::ZERO)),
            ("100us", Some(Duration::from_micros(100))),
            ("1ms", Some(Duration::from_millis(1))),
            ("1001us", None),
            ("1s", None),
            ("100", None),
        ] {
            assert_eq!(busy_poll(text).ok(), expected, "{text}");
        }
    }
}
