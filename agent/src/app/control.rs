//! `ambit control`: the certificate authority.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::told_to_stop;
use crate::{
    control::{ClusterKey, TokenReviewer},
    discovery::{
        directory::Directory,
        facts::Kind,
        kubernetes::{self, Cluster},
        source::Source,
        store::Store,
    },
    identity::{
        authority::{self, CertificateAuthority},
        ca_service::{self, CallerAuthenticator, TokenFile},
    },
};

/// What the role is told.
#[derive(Debug)]
pub struct Settings {
    /// What is known, and where the key is.
    pub home: Home,
    /// Where agents call.
    pub listen: SocketAddr,
    /// How the server shows itself.
    pub service: ca_service::Settings,
    /// How it signs.
    pub authority: authority::Settings,
}

/// What the role works on.
#[derive(Debug)]
pub enum Home {
    /// Files.
    Directory {
        /// Manifests.
        manifests: PathBuf,
        /// Root, key and trust bundle.
        state: PathBuf,
        /// Tokens of nodes.
        node_tokens: PathBuf,
    },
    /// A cluster.
    Cluster {
        /// Where the API server is, if not here.
        kubeconfig: Option<PathBuf>,
        /// Of the Secret, the ConfigMap and the agents.
        namespace: String,
        /// The agents' service account.
        agents: String,
    },
}

/// Runs until told to stop.
///
/// # Errors
/// What kept it from starting.
pub async fn run(settings: Settings) -> Result<()> {
    let stop = CancellationToken::new();
    let store = Arc::new(Store::default());
    let opened = tokio::select! {
        opened = open(settings.home, settings.authority, &store) => opened?,
        told = told_to_stop() => return Ok(told?),
    };
    let authority = Arc::new(opened.authority);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listening on {} for agents", settings.listen))?;

    let following = tokio::spawn(opened.source.run(stop.clone()));
    if let Some(key) = opened.key {
        tokio::spawn(key.follow(authority.clone(), stop.clone()));
    }
    let serving = tokio::spawn(ca_service::serve(
        settings.service,
        authority,
        opened.authenticator,
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

struct Opened {
    source: Source,
    authority: CertificateAuthority,
    authenticator: Arc<dyn CallerAuthenticator>,
    /// To be followed, if it is kept in a cluster.
    key: Option<ClusterKey>,
}

async fn open(home: Home, authority: authority::Settings, store: &Arc<Store>) -> Result<Opened> {
    let trust_domain = authority.trust_domain.clone();
    match home {
        Home::Directory {
            manifests,
            state,
            node_tokens,
        } => Ok(Opened {
            source: Source::Directory(Box::new(
                Directory::open(manifests, trust_domain, store.clone()).await?,
            )),
            authority: CertificateAuthority::open(&state, authority, SystemTime::now())?,
            authenticator: Arc::new(TokenFile::open(&node_tokens)?),
            key: None,
        }),
        Home::Cluster {
            kubeconfig,
            namespace,
            agents,
        } => {
            let client = kubernetes::client(kubeconfig.as_deref()).await?;
            // Who runs on which node is all that is asked, and who is a waypoint.
            let is_wanted = |kind| {
                matches!(
                    kind,
                    Kind::Pod | Kind::Node | Kind::Namespace | Kind::Gateway
                )
            };
            let cluster =
                Cluster::open(client.clone(), is_wanted, trust_domain, store.clone()).await?;
            let mut key = ClusterKey::new(&client, &namespace);
            let reviewer = TokenReviewer::new(&client, store.clone(), &namespace, &agents);
            Ok(Opened {
                source: Source::Kubernetes(Box::new(cluster)),
                authority: key.authority(authority).await?,
                authenticator: Arc::new(reviewer),
                key: Some(key),
            })
        }
    }
}
