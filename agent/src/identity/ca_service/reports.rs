//! What agents tell of their nodes' pods: who tells, then [`PodReports`].

use std::sync::Arc;

use futures::future::BoxFuture;
use tonic::{Request, Response, Status, server::UnaryService};

use super::{CallerAuthenticator, CallerRole, authenticate};
use crate::identity::pod_report::{MAX_PODS, PodReport, PodReportTaken};

/// Takes what agents report.
pub trait PodReports: Send + Sync + 'static {
    /// From the agent of a node, proven by its token.
    fn take<'a>(
        &'a self,
        node: &'a str,
        report: PodReport,
    ) -> BoxFuture<'a, Result<(), ReportError>>;
}

/// Why a report wasn't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It is about a pod that doesn't run on the caller's node.
    #[error("{0}")]
    NotYours(String),
    /// Not now: the same may be reported again.
    #[error("cannot take the report now: {0}")]
    Unavailable(String),
}

/// Answers one call. Shared by all connections.
#[derive(Clone)]
pub(super) struct ReportService {
    pub(super) authenticator: Arc<dyn CallerAuthenticator>,
    pub(super) reports: Arc<dyn PodReports>,
}

impl ReportService {
    async fn take(&self, request: Request<PodReport>) -> Result<Response<PodReportTaken>, Status> {
        let caller = authenticate(&*self.authenticator, &request).await?;
        if let CallerRole::Waypoint(waypoint) = &caller.role {
            tracing::warn!(%waypoint, "refused a report: only agents know which pods are enrolled");
            let message = format!("{waypoint} is a waypoint: only agents report pods");
            return Err(Status::permission_denied(message));
        }
        let report = request.into_inner();
        if report.pods.len() > MAX_PODS {
            return Err(Status::invalid_argument(format!(
                "pods: {} of them, and {MAX_PODS} is the most",
                report.pods.len()
            )));
        }
        let taken = self.reports.take(&caller.node, report).await;
        taken.map_err(|error| match error {
            ReportError::NotYours(_) => {
                tracing::warn!(node = caller.node, "refused a report: {error}");
                Status::permission_denied(error.to_string())
            }
            ReportError::Unavailable(_) => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(PodReportTaken {}))
    }
}

impl UnaryService<PodReport> for ReportService {
    type Response = PodReportTaken;
    type Future = BoxFuture<'static, Result<Response<PodReportTaken>, Status>>;

    fn call(&mut self, request: Request<PodReport>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.take(request).await })
    }
}
