//! What the cluster and its mesh are called.

use clap::Args;

#[derive(Debug, Args)]
#[group(id = "NamesArguments")]
pub(super) struct Arguments {
    /// The cluster's name in telemetry.
    #[arg(long, env = "AMBIT_CLUSTER", default_value = "Kubernetes")]
    pub(super) cluster: String,
    /// The end of services' DNS names, as in front.shop.svc.cluster.local.
    #[arg(long, env = "AMBIT_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub(super) cluster_domain: String,
    /// Trust domain of all identities.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local")]
    pub(super) trust_domain: String,
}
