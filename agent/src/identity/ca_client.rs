//! Asks the certificate authority for a workload's certificate: ours, or istiod.

mod answer;
mod connection;

use std::{io, path::PathBuf, time::Duration};

use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use rustls::pki_types::UnixTime;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_prost::ProstCodec;

pub use self::answer::AnswerError;
use super::{
    Identity, WorkloadCertificate,
    pod_report::{PodReport, PodReportTaken, REPORT_PODS},
    request::{NewRequest, RequestError},
    wire::{CREATE_CERTIFICATE, CertificateSigningRequest, CertificateSigningResponse},
};

/// How long the authority may take to be reached, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is some kilobytes at most.
const MAX_TOKEN: usize = 16 * 1024;

/// Where the authority is and how to prove who asks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`.
    pub address: String,
    /// The name its certificate must have. Default: the host of `address`.
    pub server_name: Option<String>,
    /// PEM of the roots that may sign the authority's own certificate. Read for every call.
    pub root_file: PathBuf,
    /// The node's token. Read for every call, since Kubernetes renews it.
    pub token_file: PathBuf,
    /// The life to ask for. Default 24 h; the authority may give less.
    pub validity: Duration,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers there.
    #[error(
        "the certificate authority is unreachable at {address}: {source}; a NetworkPolicy may \
         block it"
    )]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Something answers too slowly.
    #[error("the certificate authority at {address} took longer than {}s to {what}", after.as_secs())]
    Timeout {
        /// Where it is.
        address: String,
        /// What it didn't do.
        what: &'static str,
        /// In how long.
        after: Duration,
    },
    /// A file that we need.
    #[error("cannot read the {what} {path}: {reason}", path = path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server isn't the authority, or the root file is old.
    #[error(
        "the root file {path} doesn't verify the certificate authority at {address} as {name}: \
         {reason}",
        path = path.display()
    )]
    NotTrusted {
        /// The root file.
        path: PathBuf,
        /// Who was dialled.
        address: String,
        /// The name that its certificate should have.
        name: String,
        /// What TLS says.
        reason: String,
    },
    /// The connection broke off.
    #[error("the connection to the certificate authority at {address} failed: {reason}")]
    Connection {
        /// Who was dialled.
        address: String,
        /// What HTTP/2 says.
        reason: String,
    },
    /// UNAUTHENTICATED.
    #[error(
        "the certificate authority at {address} refused the token in {path}: {message}",
        path = path.display()
    )]
    TokenRefused {
        /// Who refused.
        address: String,
        /// The token file.
        path: PathBuf,
        /// Why, in its words.
        message: String,
    },
    /// PERMISSION_DENIED.
    #[error("the certificate authority doesn't give this node {identity}: {message}")]
    NotAuthorised {
        /// What was asked for.
        identity: Identity,
        /// Why, in its words.
        message: String,
    },
    /// Any other status.
    #[error("the certificate authority at {address} failed with {code:?}: {message}")]
    Failed {
        /// Who failed.
        address: String,
        /// The gRPC status code.
        code: Code,
        /// Why, in its words.
        message: String,
    },
    /// A certificate that isn't the one asked for.
    #[error("the certificate authority's answer is unusable: {0}")]
    Answer(#[from] AnswerError),
    /// No request could be made.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Error {
    /// Whether the authority doesn't know what it was asked, as istiod doesn't know of reports.
    #[must_use]
    pub fn is_unknown_call(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                code: Code::Unimplemented,
                ..
            }
        )
    }
}

type Token = MetadataValue<tonic::metadata::Ascii>;

/// Where certificates come from. The cache needs no more of an authority.
pub trait CertificateSource: Send + Sync + 'static {
    /// A new certificate with a new key.
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, Error>>;
}

/// Calls the authority. Each call has a connection of its own: a node makes one a workload and
/// half-life, and so each call sees the root file, the address and the token of the moment.
#[derive(Debug, Clone)]
pub struct CaClient {
    settings: Settings,
}

impl CaClient {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    async fn issue(&self, identity: &Identity) -> Result<WorkloadCertificate, Error> {
        let (token, connection) = self.connect().await?;
        // Only now, so that no key is made while the authority is away.
        let request = NewRequest::generate(identity)?;
        let mut call = tonic::Request::new(CertificateSigningRequest::new(
            request.pem.clone(),
            i64::try_from(self.settings.validity.as_secs()).unwrap_or(i64::MAX),
            identity.to_string(),
        ));
        call.metadata_mut().insert("authorization", token);
        let answer: CertificateSigningResponse =
            tokio::time::timeout(CALL_TIMEOUT, connection.call(CREATE_CERTIFICATE, call))
                .await
                .map_err(|_| self.timeout("answer", CALL_TIMEOUT))?
                .map_err(|status| match status.code() {
                    Code::PermissionDenied => Error::NotAuthorised {
                        identity: identity.clone(),
                        message: status.message().to_owned(),
                    },
                    _ => self.status(&status),
                })?;

        let certificate = answer::check(&answer.cert_chain, identity, &request, UnixTime::now())?;
        Ok(certificate)
    }

    /// Tells control what became of pods of this node.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_unknown_call`] if the authority takes no reports.
    pub async fn report_pods(&self, report: PodReport) -> Result<(), Error> {
        let (token, connection) = self.connect().await?;
        let mut call = tonic::Request::new(report);
        call.metadata_mut().insert("authorization", token);
        let taken: Result<PodReportTaken, Status> =
            tokio::time::timeout(CALL_TIMEOUT, connection.call(REPORT_PODS, call))
                .await
                .map_err(|_| self.timeout("answer", CALL_TIMEOUT))?;
        taken.map(drop).map_err(|status| self.status(&status))
    }

    /// With the token of the moment.
    async fn connect(&self) -> Result<(Token, connection::Connection), Error> {
        let token = self.token().await?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connection::open(&self.settings));
        let connection = connected
            .await
            .map_err(|_| self.timeout("accept a connection", CONNECT_TIMEOUT))??;
        Ok((token, connection))
    }

    async fn token(&self) -> Result<Token, Error> {
        let path = &self.settings.token_file;
        let unusable = |reason: String| Error::File {
            what: "token file",
            path: path.clone(),
            reason,
        };
        let text = tokio::fs::read_to_string(path)
            .await
            .map(zeroize::Zeroizing::new)
            .map_err(|error| unusable(error.to_string()))?;
        let token = text.trim();
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(unusable(format!("{} bytes are no token", token.len())));
        }
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| unusable("it holds more than one line of printable text".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn timeout(&self, what: &'static str, after: Duration) -> Error {
        Error::Timeout {
            address: self.settings.address.clone(),
            what,
            after,
        }
    }

    fn status(&self, status: &Status) -> Error {
        let address = self.settings.address.clone();
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated => Error::TokenRefused {
                address,
                path: self.settings.token_file.clone(),
                message,
            },
            code => Error::Failed {
                address,
                code,
                message,
            },
        }
    }
}

impl CertificateSource for CaClient {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, Error>> {
        Box::pin(self.issue(identity))
    }
}

impl connection::Connection {
    async fn call<Q, A>(self, path: &'static str, request: tonic::Request<Q>) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let mut grpc = self.into_grpc();
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }
}
