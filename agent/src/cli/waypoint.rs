//! `ambit waypoint`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use clap::Args;

use super::{authority, duration, names, source, tracing};
use crate::{
    app, discovery::model::ObjectName, proxy::connections::DEFAULT_LIMIT,
    telemetry::logging::Logging,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The Gateway that it is, as namespace/name.
    #[arg(long, env = "AMBIT_GATEWAY", value_parser = object_name)]
    gateway: ObjectName,
    /// The node that it runs on.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    node_name: String,
    /// The address of its pod, if it has one of its own: by it the agent of the node knows it, and what it opens to
    /// pods there needs no tunnel.
    #[arg(long, env = "AMBIT_POD_IP")]
    pod_ip: Option<IpAddr>,
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    names: names::Arguments,
    #[command(flatten)]
    authority: authority::Arguments,
    #[command(flatten)]
    tracing: tracing::Arguments,
    /// Where HBONE is taken.
    #[arg(
        long,
        env = "AMBIT_LISTEN",
        value_delimiter = ',',
        default_value = "0.0.0.0:15008"
    )]
    listen: Vec<SocketAddr>,
    /// Open connections at most.
    #[arg(long, env = "AMBIT_MAX_CONNECTIONS", default_value_t = DEFAULT_LIMIT)]
    max_connections: usize,
    /// How long open connections may go on after SIGTERM.
    #[arg(long, env = "AMBIT_DRAIN", default_value = "30s", value_parser = duration)]
    drain: Duration,
    /// Ends when standard input does: its other end is the agent's that started it.
    #[arg(long, hide = true)]
    supervised: bool,
    /// Where the operator's commands and the web page are answered. Loopback only.
    #[arg(long, env = "AMBIT_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
    /// `/metrics`.
    #[arg(long, env = "AMBIT_METRICS_ADDRESS", default_value = "0.0.0.0:15020")]
    metrics_address: SocketAddr,
    /// `/healthz/ready`.
    #[arg(long, env = "AMBIT_READY_ADDRESS", default_value = "0.0.0.0:15021")]
    ready_address: SocketAddr,
}

pub(super) async fn run(arguments: Arguments, logging: Logging) -> Result<()> {
    let settings = app::waypoint::Settings {
        gateway: arguments.gateway,
        node: arguments.node_name.into(),
        pod_address: arguments.pod_ip,
        source: arguments.source.into(),
        cluster: arguments.names.cluster.into(),
        cluster_domain: arguments.names.cluster_domain.into(),
        trust_domain: arguments.names.trust_domain.into(),
        authority: arguments.authority.into(),
        tracing: arguments.tracing.into(),
        listen: arguments.listen,
        max_connections: arguments.max_connections,
        drain: arguments.drain,
        supervised: arguments.supervised,
        admin_address: arguments.admin_address,
        metrics_address: arguments.metrics_address,
        ready_address: arguments.ready_address,
    };
    app::waypoint::run(settings, logging).await
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        }),
        _ => Err(format!("{text:?} is not a Gateway: write namespace/name")),
    }
}
