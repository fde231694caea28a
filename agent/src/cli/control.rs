//! `ambit control`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;

use super::{duration, source, tracing};
use crate::{
    app::{self, control::Home},
    control::waypoints,
    identity::{authority, ca_service},
    telemetry::trace,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    tracing: tracing::Arguments,
    /// With --source kubernetes: namespace of Secret ambit-ca, which has the authority's key, of ConfigMap
    /// ambit-trust-bundle, and of the agents.
    #[arg(long, env = "AMBIT_NAMESPACE", default_value = "ambit-system")]
    namespace: String,
    /// With --source kubernetes: the agents' service account.
    #[arg(long, env = "AMBIT_AGENT_ACCOUNT", default_value = "ambit-node")]
    agent_account: String,
    /// With --source kubernetes: the image of waypoints. By default that of the pod that this runs in.
    #[arg(long, env = "AMBIT_WAYPOINT_IMAGE")]
    waypoint_image: Option<String>,
    /// With --source kubernetes: the pod that this runs in, in the namespace of --namespace.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// With --source directory: where the root and its key are kept, and the trust bundle for agents is written.
    #[arg(
        long,
        env = "AMBIT_STATE_DIRECTORY",
        default_value = "/var/lib/ambit/control"
    )]
    state_directory: PathBuf,
    /// With --source directory: tokens of the nodes: lines of `token,node`, or `sha256:<digest>,node`.
    #[arg(
        long,
        env = "AMBIT_NODE_TOKENS",
        default_value = "/etc/ambit/node-tokens"
    )]
    node_tokens: PathBuf,
    /// Where agents call.
    #[arg(long, env = "AMBIT_LISTEN", default_value = "0.0.0.0:15012")]
    listen: SocketAddr,
    /// Where /metrics is served. Unset: nowhere.
    #[arg(long, env = "AMBIT_METRICS_ADDRESS")]
    metrics_address: Option<SocketAddr>,
    /// Where /healthz/ready is served: 200 once the authority answers. Unset: nowhere.
    #[arg(long, env = "AMBIT_READY_ADDRESS")]
    ready_address: Option<SocketAddr>,
    /// DNS names and addresses by which agents call; in the authority's own certificate.
    #[arg(
        long,
        env = "AMBIT_SERVER_NAMES",
        value_delimiter = ',',
        default_value = "ambit-control.ambit-system.svc,localhost"
    )]
    server_names: Vec<String>,
    /// Trust domain of all identities.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Longest life of a workload's certificate.
    #[arg(long, env = "AMBIT_CERTIFICATE_TTL", default_value = "24h", value_parser = duration)]
    certificate_ttl: Duration,
    /// Life of a root.
    #[arg(long, env = "AMBIT_ROOT_TTL", default_value = "87600h", value_parser = duration)]
    root_ttl: Duration,
    /// How long a new root is trusted before it signs.
    #[arg(long, env = "AMBIT_ROOT_OVERLAP", default_value = "48h", value_parser = duration)]
    root_overlap: Duration,
    /// A root with less life than this is replaced.
    #[arg(long, env = "AMBIT_ROTATE_BEFORE", default_value = "8760h", value_parser = duration)]
    rotate_before: Duration,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let ca_address = ca_address(&arguments);
    let home = match arguments.source.into() {
        source::Settings::Directory(manifests) => Home::Directory {
            manifests,
            state: arguments.state_directory,
            node_tokens: arguments.node_tokens,
        },
        source::Settings::Kubernetes { kubeconfig } => Home::Cluster {
            kubeconfig,
            waypoints: waypoints::Settings {
                namespace: arguments.namespace.clone(),
                pod: arguments.pod_name,
                image: arguments.waypoint_image,
                ca_address,
                trust_domain: arguments.trust_domain.clone(),
                arguments: trace::Settings::from(arguments.tracing).arguments(),
            },
            namespace: arguments.namespace,
            agents: arguments.agent_account,
        },
    };
    let settings = app::control::Settings {
        home,
        listen: arguments.listen,
        service: ca_service::Settings {
            server_names: arguments.server_names,
        },
        authority: authority::Settings {
            trust_domain: arguments.trust_domain,
            certificate_ttl: arguments.certificate_ttl,
            root_ttl: arguments.root_ttl,
            root_overlap: arguments.root_overlap,
            rotate_before: arguments.rotate_before,
        },
        metrics_address: arguments.metrics_address,
        ready_address: arguments.ready_address,
    };
    app::control::run(settings).await
}

/// Where waypoints find the authority: by the first of its names.
fn ca_address(arguments: &Arguments) -> String {
    let name = arguments.server_names.first();
    let name = name.map_or("localhost", String::as_str);
    let port = arguments.listen.port();
    match name.parse() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{name}:{port}"),
    }
}
