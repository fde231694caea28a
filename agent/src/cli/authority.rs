//! Which certificate authority, and how it is asked.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::duration;
use crate::identity::ca_client;

#[derive(Debug, Args)]
#[group(id = "AuthorityArguments")]
pub(super) struct Arguments {
    /// The certificate authority, as host:port.
    #[arg(
        long,
        env = "AMBIT_CA_ADDRESS",
        default_value = "ambit-control.ambit-system.svc:15012"
    )]
    ca_address: String,
    /// Roots (PEM) that the authority's own certificate must lead to.
    #[arg(
        long,
        env = "AMBIT_CA_ROOT",
        default_value = "/var/run/ambit/trust-bundle.pem"
    )]
    ca_root: PathBuf,
    /// The token for the authority: a node's, or a waypoint's own.
    #[arg(
        long,
        env = "AMBIT_CA_TOKEN",
        default_value = "/var/run/secrets/tokens/ambit-token"
    )]
    ca_token: PathBuf,
    /// Life of certificates to ask for; the authority may give less.
    #[arg(long, env = "AMBIT_CERTIFICATE_TTL", default_value = "24h", value_parser = duration)]
    certificate_ttl: Duration,
}

impl From<Arguments> for ca_client::Settings {
    fn from(arguments: Arguments) -> Self {
        Self {
            address: arguments.ca_address,
            server_name: None,
            root_file: arguments.ca_root,
            token_file: arguments.ca_token,
            validity: arguments.certificate_ttl,
        }
    }
}
