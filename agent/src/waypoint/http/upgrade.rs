//! Connections that stop being HTTP: WebSocket and the like, and CONNECT.

use std::{io, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONNECTION, UPGRADE},
    request, response,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{
    super::stream::Client, body::End, headers, under_way::Revoked, upstream::UpstreamBody,
};
use crate::{
    proxy::connections::{CloseReason, ConnectionGuard},
    telemetry::RequestFlags,
};

/// What a request asks its connection, or its stream, to become.
pub(super) struct Upgrade {
    client: OnUpgrade,
    /// Of HTTP/1.1, without CONNECT.
    protocol: Option<HeaderValue>,
}

impl Upgrade {
    /// What the request asks for, if it asks for any such thing.
    pub(super) fn of(parts: &mut request::Parts) -> Option<Self> {
        let protocol = headers::upgrade_of(&parts.headers);
        if protocol.is_none() && parts.method != Method::CONNECT {
            return None;
        }
        let client = parts.extensions.remove::<OnUpgrade>()?;
        Some(Self { client, protocol })
    }

    /// Asks the server for it too.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        if let Some(protocol) = &self.protocol {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
    }

    /// Whether the server agrees.
    pub(super) fn is_granted(&self, status: StatusCode) -> bool {
        match self.protocol {
            Some(_) => status == StatusCode::SWITCHING_PROTOCOLS,
            None => status.is_success(),
        }
    }

    /// Passes bytes on between the two from here on, in a task of its own, until both have ended, the request is
    /// allowed no longer, or the client's connection must end. What the request has taken is kept until then.
    pub(super) fn grant(
        self,
        client: &Arc<Client>,
        guard: Arc<ConnectionGuard>,
        parts: &mut response::Parts,
        protocol: Option<HeaderValue>,
        (body, end): (UpstreamBody, End),
    ) {
        if self.protocol.is_some() {
            let headers = &mut parts.headers;
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol.or(self.protocol) {
                headers.insert(UPGRADE, protocol);
            }
        }
        let Some(server) = parts.extensions.remove::<OnUpgrade>() else {
            return;
        };
        client.waypoint.core.tasks.spawn(async move {
            let mut lease = body.into_lease();
            let passed = async {
                if let Some(lease) = &mut lease {
                    lease.finish().await;
                }
                pass(self.client, server).await
            };
            let passed = guard.unless_closed(passed);
            let ended = tokio::select! {
                biased;
                revoked = end.ongoing.revoked() => Ended::Revoked(revoked),
                passed = passed => match passed {
                    Ok(passed) => Ended::Passed(passed),
                    Err(reason) => Ended::Closed(reason),
                },
            };
            tell(ended, end);
        });
    }
}

/// How an upgraded connection came to its end.
enum Ended {
    /// By its own ends: how much either has sent, the client first.
    Passed(io::Result<(u64, u64)>),
    Closed(CloseReason),
    Revoked(Revoked),
}

async fn pass(client: OnUpgrade, server: OnUpgrade) -> io::Result<(u64, u64)> {
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    let mut server = TokioIo::new(server.await.map_err(io::Error::other)?);
    copy_bidirectional(&mut client, &mut server).await
}

fn tell(ended: Ended, end: End) {
    match ended {
        Ended::Passed(passed) => {
            // How it ends otherwise is between the two.
            if let Ok((sent, received)) = passed {
                end.report.sizes().add_request(sent);
                end.report.sizes().add_response(received);
            }
            end.complete();
        }
        Ended::Closed(reason) => end.cut(RequestFlags::NONE, &reason),
        Ended::Revoked(revoked) => end.revoke(&revoked),
    }
}
