//! Connections that stop being HTTP: WebSocket and the like, and CONNECT.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONNECTION, UPGRADE},
    request, response,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{super::stream::Client, headers};
use crate::proxy::connections::ConnectionGuard;

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

    /// Passes bytes on between the two from here on, in a task of its own, until both have ended, or
    /// the client's connection must.
    pub(super) fn grant(
        self,
        client: &Arc<Client>,
        guard: Arc<ConnectionGuard>,
        parts: &mut response::Parts,
        protocol: Option<HeaderValue>,
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
            let token = guard.token();
            let passed = async {
                let mut client = TokioIo::new(self.client.await?);
                let mut server = TokioIo::new(server.await?);
                // How it ends is between the two.
                let _ = copy_bidirectional(&mut client, &mut server).await;
                Ok::<(), hyper::Error>(())
            };
            tokio::select! {
                passed = passed => if let Err(error) = passed {
                    tracing::debug!("an upgraded connection ended: {error}");
                },
                () = token.cancelled() => {}
            }
        });
    }
}
