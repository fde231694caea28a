//! Fetches keys by HTTP.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use serde::Deserialize;
use tokio::time;

use crate::policy::jwt::{KeySet, KeySetError};

/// How long one document may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How large one may be, in bytes: 100 keys with certificates.
const LARGEST: usize = 1 << 20;

/// Why keys couldn't be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0:?} is no URL that can be fetched; write https://host/path")]
    NotAUrl(String),
    #[error("no answer: {0} (for https its certificate must be of a root that this system trusts)")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is {0}, and must be 200")]
    Status(StatusCode),
    #[error("the answer is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("no answer within {} s", DEADLINE.as_secs())]
    TooSlow,
    #[error(transparent)]
    Keys(#[from] KeySetError),
    #[error("the issuer's discovery document has no jwks_uri: {0}")]
    Discovery(#[from] serde_json::Error),
    #[error("the issuer's discovery document leads from https to {0:?}")]
    Downgrade(String),
}

/// A client of issuers.
#[derive(Clone)]
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Default for Fetcher {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(DEADLINE));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = match builder.with_provider_and_native_roots(provider.clone()) {
            Ok(builder) => builder,
            Err(error) => {
                tracing::warn!("no roots of this system, so no keys by https: {error}");
                HttpsConnectorBuilder::new().with_tls_config(trusting_nobody(provider))
            }
        };
        let connector = builder
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }
}

fn trusting_nobody(provider: Arc<rustls::crypto::CryptoProvider>) -> ClientConfig {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of the default versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

#[derive(Deserialize)]
struct Discovery {
    jwks_uri: String,
}

impl Fetcher {
    /// The keys at a URL.
    pub(super) async fn keys(&self, url: &str) -> Result<KeySet, Error> {
        Ok(KeySet::read(&self.document(url).await?)?)
    }

    /// The keys that an issuer's discovery document leads to.
    pub(super) async fn discovered_keys(&self, url: &str) -> Result<KeySet, Error> {
        let Discovery { jwks_uri } = serde_json::from_slice(&self.document(url).await?)?;
        if url.starts_with("https:") && !jwks_uri.starts_with("https:") {
            return Err(Error::Downgrade(jwks_uri));
        }
        self.keys(&jwks_uri).await
    }

    async fn document(&self, url: &str) -> Result<Bytes, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::NotAUrl(url.to_owned()))?;
        let fetch = async {
            let answer = self.client.get(uri).await;
            let answer = answer.map_err(|error| Error::Request(error.into()))?;
            if answer.status() != StatusCode::OK {
                return Err(Error::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => Error::TooLarge,
                false => Error::Request(error),
            })?;
            Ok(body.to_bytes())
        };
        time::timeout(DEADLINE, fetch)
            .await
            .map_err(|_| Error::TooSlow)?
    }
}
