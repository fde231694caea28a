//! `ambit control`: the certificate authority over a directory of manifests.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::told_to_stop;
use crate::{
    discovery::{directory::Directory, store::Store},
    identity::{
        authority::{self, CertificateAuthority},
        ca_service::{self, TokenFile},
    },
};

/// What the role is told.
#[derive(Debug)]
pub struct Settings {
    /// Manifests.
    pub directory: PathBuf,
    /// Root, key and trust bundle.
    pub state_directory: PathBuf,
    /// Tokens of nodes.
    pub node_tokens: PathBuf,
    /// Where agents call.
    pub listen: SocketAddr,
    /// How the server shows itself.
    pub service: ca_service::Settings,
    /// How it signs.
    pub authority: authority::Settings,
}

/// Runs until told to stop.
///
/// # Errors
/// What kept it from starting.
pub async fn run(settings: Settings) -> Result<()> {
    let stop = CancellationToken::new();
    let store = Arc::new(Store::default());
    let trust_domain = settings.authority.trust_domain.clone();
    let directory = Directory::open(settings.directory, trust_domain, store.clone()).await?;
    let authority = Arc::new(CertificateAuthority::open(
        &settings.state_directory,
        settings.authority,
        SystemTime::now(),
    )?);
    let tokens = Arc::new(TokenFile::open(&settings.node_tokens)?);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listening on {} for agents", settings.listen))?;

    let following = tokio::spawn(directory.run(stop.clone()));
    let serving = tokio::spawn(ca_service::serve(
        settings.service,
        authority,
        tokens,
        store,
        listener,
        stop.clone(),
    ));
    tracing::info!(address = %settings.listen, "certificate authority ready");
    told_to_stop().await?;
    stop.cancel();
    following.await?;
    serving.await??;
    Ok(())
}
