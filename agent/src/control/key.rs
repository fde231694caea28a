//! The authority's key in a Secret, and what agents trust in a ConfigMap.
//!
//! The Secret is of type `kubernetes.io/tls` and has `ca.crt`, as cert-manager makes it. If it isn't there it is
//! made, with a root of its own. Whoever changes it (cert-manager, an operator) rotates: control signs with what
//! it says, and trusts every root of `ca.crt`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client};
use tokio::time;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::objects::{find_or_create, named, update};
use crate::identity::authority::{self, CertificateAuthority, Material};

/// The Secret.
const SECRET: &str = "ambit-ca";
/// The ConfigMap that agents mount.
const TRUST_BUNDLE: &str = "ambit-trust-bundle";
/// Its key.
const BUNDLE_FILE: &str = "trust-bundle.pem";
/// How often the Secret is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no key, or nobody can be told what to trust.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses.
    #[error("Secret {SECRET} and ConfigMap {TRUST_BUNDLE}: {0}")]
    Api(#[from] kube::Error),
    /// The Secret is of no use.
    #[error("Secret {SECRET}: {0}")]
    Authority(#[from] authority::Error),
    /// A field isn't there, or isn't text.
    #[error("Secret {SECRET}: data.{field} {reason}; it must be PEM, as cert-manager writes it")]
    Field {
        /// Below `data`.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Where the authority's key is kept.
pub struct ClusterKey {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    /// The Secret that the authority signs with: its `resourceVersion`.
    version: Option<String>,
}

impl ClusterKey {
    /// In a namespace.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            version: None,
        }
    }

    /// An authority with the key of the Secret, which is made if there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn authority(
        &mut self,
        settings: authority::Settings,
    ) -> Result<CertificateAuthority, Error> {
        let make = || -> Result<Secret, Error> {
            tracing::info!("made a root, for there is no Secret {SECRET}");
            Ok(secret(&Material::generate(&settings, SystemTime::now())?))
        };
        let secret = find_or_create(&self.secrets, SECRET, make).await?;
        let authority = CertificateAuthority::with_given(&material(&secret)?, settings)?;
        self.version = secret.metadata.resource_version;
        Ok(authority)
    }

    /// Follows the Secret and keeps the ConfigMap as it should be, until cancelled. What can't be done now is
    /// logged, and tried again.
    pub async fn follow(mut self, authority: Arc<CertificateAuthority>, stop: CancellationToken) {
        let mut told = None;
        loop {
            let failure = self
                .look(&authority)
                .await
                .err()
                .map(|error| error.to_string());
            // Once for each thing that is wrong.
            if let Some(failure) = failure
                .as_ref()
                .filter(|failure| told.as_ref() != Some(*failure))
            {
                tracing::error!("{failure}; the authority goes on with what it has");
            }
            told = failure;
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self, authority: &CertificateAuthority) -> Result<(), Error> {
        let secret = self.secrets.get(SECRET).await?;
        if secret.metadata.resource_version != self.version {
            authority.replace_given(&material(&secret)?)?;
            self.version = secret.metadata.resource_version;
            tracing::info!("signs with the new key of Secret {SECRET}");
        }
        self.publish(&authority.trust_bundle()).await
    }

    /// Has the ConfigMap say what agents may trust.
    async fn publish(&self, bundle: &str) -> Result<(), Error> {
        let make = || -> Result<ConfigMap, Error> {
            Ok(ConfigMap {
                metadata: named(TRUST_BUNDLE),
                ..ConfigMap::default()
            })
        };
        let found = find_or_create(&self.config_maps, TRUST_BUNDLE, make).await?;
        let change = |map: &mut ConfigMap| {
            let data = map.data.get_or_insert_default();
            let before = data.insert(BUNDLE_FILE.to_owned(), bundle.to_owned());
            before.as_deref() != Some(bundle)
        };
        Ok(update(&self.config_maps, found, change).await?)
    }
}

fn secret(material: &Material) -> Secret {
    let data = [
        ("tls.crt", material.certificate.as_str()),
        ("tls.key", material.key.as_str()),
        ("ca.crt", material.roots.as_str()),
    ];
    let field = |(name, text): (&str, &str)| (name.to_owned(), ByteString(text.into()));
    Secret {
        metadata: named(SECRET),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.map(field).into()),
        ..Secret::default()
    }
}

fn material(secret: &Secret) -> Result<Material, Error> {
    let field = |field| {
        let data = secret.data.as_ref().and_then(|data| data.get(field));
        let bytes = data.ok_or(Error::Field {
            field,
            reason: "is missing",
        })?;
        std::str::from_utf8(&bytes.0).map_err(|_| Error::Field {
            field,
            reason: "isn't text",
        })
    };
    Ok(Material {
        certificate: field("tls.crt")?.to_owned(),
        key: Zeroizing::new(field("tls.key")?.to_owned()),
        // cert-manager leaves it out where an issuer doesn't tell it.
        roots: field("ca.crt").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests;
