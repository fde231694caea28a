//! The authority's gRPC server: who asks, whether they may, then [`CertificateAuthority::sign`].

mod authentication;
mod authorisation;
mod reports;
mod server;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tonic::{Request, Response, Status, server::UnaryService};

pub use self::{
    authentication::{
        AuthenticationError, Caller, CallerAuthenticator, CallerRole, TokenFile, TokenFileError,
    },
    authorisation::NodeAuthorizer,
    reports::{PodReports, ReportError},
    server::{Parts, Settings, serve},
};
use super::{
    Identity,
    authority::{self, CertificateAuthority},
    request::CertificateRequest,
    wire::{CertificateSigningRequest, CertificateSigningResponse},
};
use crate::telemetry::control::{Done, Tally};

/// Answers one call. Shared by all connections.
#[derive(Clone)]
struct CertificateService {
    authority: Arc<CertificateAuthority>,
    authenticator: Arc<dyn CallerAuthenticator>,
    authorizer: Arc<dyn NodeAuthorizer>,
    counts: Tally,
}

impl CertificateService {
    async fn create(
        &self,
        request: Request<CertificateSigningRequest>,
    ) -> Result<Response<CertificateSigningResponse>, Status> {
        // Who asks. Nothing of the request is read before that is known.
        let caller = authenticate(&*self.authenticator, &request).await?;

        // For whom.
        let message = request.get_ref();
        let parsed = CertificateRequest::parse(&message.csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let identity = match (message.impersonated_identity(), parsed.identity()) {
            (Some(text), _) => text.parse::<Identity>().map_err(|error| {
                Status::invalid_argument(format!("metadata ImpersonatedIdentity: {error}"))
            })?,
            (None, Some(identity)) => identity.clone(),
            (None, None) => {
                return Err(Status::invalid_argument(
                    "neither metadata ImpersonatedIdentity nor the certificate request names an \
                     identity",
                ));
            }
        };
        let refusal_reason = match &caller.role {
            CallerRole::Agent if self.authorizer.runs_on(&identity, &caller.node) => None,
            CallerRole::Agent => Some(format!(
                "no workload with identity {identity} is known to run on node {}, or the identity is \
                 a waypoint's: then workloads need another service account",
                caller.node
            )),
            CallerRole::Waypoint(gateway) if self.authorizer.is_waypoint(&identity, gateway) => {
                None
            }
            CallerRole::Waypoint(gateway) => Some(format!(
                "{identity} isn't the identity of waypoint {gateway}, whose token this is"
            )),
        };
        if let Some(reason) = refusal_reason {
            tracing::warn!(node = caller.node, %identity, "refused a certificate");
            return Err(Status::permission_denied(reason));
        }

        // How long, and go.
        let validity = match message.validity_duration {
            0 => None,
            seconds => Some(Duration::from_secs(u64::try_from(seconds).map_err(
                |_| Status::invalid_argument(format!("validity_duration is {seconds} seconds")),
            )?)),
        };
        let cert_chain = self
            .authority
            .sign(&parsed, &identity, validity, SystemTime::now())
            .map_err(|error| refusal(&error))?;
        tracing::info!(node = caller.node, %identity, "signed a certificate");
        Ok(Response::new(CertificateSigningResponse { cert_chain }))
    }
}

impl UnaryService<CertificateSigningRequest> for CertificateService {
    type Response = CertificateSigningResponse;
    type Future = BoxFuture<'static, Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<CertificateSigningRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let created = service.create(request).await;
            service.counts.count(Done::of(&created));
            created
        })
    }
}

async fn authenticate<T>(
    authenticator: &dyn CallerAuthenticator,
    request: &Request<T>,
) -> Result<Caller, Status> {
    let authenticated = authenticator.authenticate(bearer_token(request)?).await;
    authenticated.map_err(|error| match error {
        AuthenticationError::Refused(_) => Status::unauthenticated(error.to_string()),
        AuthenticationError::Unavailable(_) => Status::unavailable(error.to_string()),
    })
}

fn bearer_token<T>(request: &Request<T>) -> Result<&str, Status> {
    let value = request
        .metadata()
        .get("authorization")
        .ok_or_else(|| Status::unauthenticated("no authorization metadata"))?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer "))
        .ok_or_else(|| Status::unauthenticated("authorization is not of the form Bearer <token>"))
}

fn refusal(error: &authority::Error) -> Status {
    use authority::Error;
    match error {
        Error::OtherIdentity { .. } => Status::invalid_argument(error.to_string()),
        Error::TrustDomain { .. } => Status::permission_denied(error.to_string()),
        Error::RootExpired(_)
        | Error::Settings(_)
        | Error::File(_)
        | Error::Damaged { .. }
        | Error::Given { .. }
        | Error::InUse { .. }
        | Error::Certificate(_) => {
            tracing::error!(%error, "cannot sign");
            Status::internal(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
