//! A response's body, whose end is the end of its request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    super::{
        under_way::{Ongoing, Revoked},
        upstream::UpstreamBody,
    },
    BodyError,
};
use crate::{
    telemetry::{RequestFlags, RequestReport, ResponseOutcome, requests::GrpcStatus},
    waypoint::resilience::{Admitted, Chosen, Verdict},
};

/// A response's body.
pub(in crate::waypoint::http) struct ResponseBody(Content);

enum Content {
    Passed(Box<Passed>),
    /// Our own.
    Own(Option<Bytes>),
}

struct Passed {
    body: UpstreamBody,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Told when all of it has gone. Dropped before, the connection is closed, and the client went away.
    end: Option<End>,
    /// Why it was cut off, once that is known and until it is told.
    failed: Option<BodyError>,
}

/// What waits for the end of a response.
pub(in crate::waypoint::http) struct End {
    pub(in crate::waypoint::http) report: RequestReport,
    pub(in crate::waypoint::http) ongoing: Ongoing,
    pub(in crate::waypoint::http) chosen: Option<Chosen>,
    pub(in crate::waypoint::http) admitted: Option<Admitted>,
    pub(in crate::waypoint::http) status: StatusCode,
    pub(in crate::waypoint::http) grpc_status: Option<GrpcStatus>,
}

impl End {
    pub(in crate::waypoint::http) fn complete(self) {
        let is_error = self.status.is_server_error()
            || self.grpc_status.is_some_and(GrpcStatus::is_server_error);
        if let Some(chosen) = self.chosen {
            let verdict = if is_error {
                Verdict::Error
            } else {
                Verdict::Success
            };
            chosen.finished(verdict, std::time::Instant::now());
        }
        drop(self.admitted);
        self.report.finish(ResponseOutcome {
            status: Some(self.status),
            grpc_status: self.grpc_status,
            flags: RequestFlags::NONE,
            error: None,
        });
    }

    fn fail(mut self, flags: RequestFlags, error: &BodyError) {
        if let Some(chosen) = self.chosen.take() {
            chosen.finished(Verdict::Error, std::time::Instant::now());
        }
        self.cut(flags, error);
    }

    /// It is allowed no longer.
    pub(in crate::waypoint::http) fn revoke(mut self, revoked: &Revoked) {
        if let Revoked::Denied(denied) = revoked {
            self.report.denied(denied);
        }
        self.cut(RequestFlags::UNAUTHORIZED, revoked);
    }

    /// It ends before its time, for which its server isn't to blame.
    pub(in crate::waypoint::http) fn cut(self, flags: RequestFlags, error: &dyn fmt::Display) {
        self.report.finish(ResponseOutcome {
            status: Some(self.status),
            grpc_status: self.grpc_status,
            flags,
            error: Some(error),
        });
    }
}

impl ResponseBody {
    /// What an upstream connection sends, until `deadline` at most.
    pub(in crate::waypoint::http) fn passed(
        body: UpstreamBody,
        deadline: Option<Instant>,
        end: End,
    ) -> Self {
        let mut passed = Passed {
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            body,
            end: Some(end),
            failed: None,
        };
        passed.settle();
        Self(Content::Passed(Box::new(passed)))
    }

    /// A text of our own.
    pub(in crate::waypoint::http) fn own(text: Bytes) -> Self {
        Self(Content::Own((!text.is_empty()).then_some(text)))
    }
}

impl Passed {
    /// Ends the request if nothing more comes: nobody may ask for the end of what has a length.
    fn settle(&mut self) {
        if self.body.is_end_stream() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        if let Some(end) = self.end.take() {
            self.body.give_back();
            end.complete();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(end) = &self.end
            && let Poll::Ready(revoked) = end.ongoing.poll_revoked(context)
        {
            let revoked = revoked.clone();
            return Poll::Ready(Some(Err(self.revoked(&revoked))));
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(
                self.fail(RequestFlags::UPSTREAM_TIMEOUT, BodyError::late())
            )));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            None => {
                self.complete();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                let flags = RequestFlags::UPSTREAM_TERMINATED;
                self.failed = Some(self.fail(flags, error.into()));
                // Told at once, what came before would be thrown away with the connection.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) => {
                if let Some(end) = &mut self.end {
                    if let Some(data) = frame.data_ref() {
                        end.report.sizes().add_response(data.len() as u64);
                    }
                    let trailers = frame.trailers_ref();
                    end.grpc_status = trailers.and_then(GrpcStatus::of).or(end.grpc_status);
                }
                self.settle();
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn revoked(&mut self, revoked: &Revoked) -> BodyError {
        if let Some(end) = self.end.take() {
            end.revoke(revoked);
        }
        BodyError::revoked(revoked)
    }

    fn fail(&mut self, flags: RequestFlags, error: BodyError) -> BodyError {
        if let Some(end) = self.end.take() {
            end.fail(flags, &error);
        }
        error
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Content::Own(text) => Poll::Ready(text.take().map(|it| Ok(Frame::data(it)))),
            Content::Passed(passed) => passed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Passed(passed) => passed.body.is_end_stream(),
            Content::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Passed(passed) => passed.body.size_hint(),
            Content::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
