//! Port 15006: plaintext on its way to an enrolled pod of this node, turned back to the agent.
//!
//! Nobody vouches for the client: it meets PeerAuthentication, and policies see no identity.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::{
    Proxy,
    connections::{OpenConnection, RegisterError},
    copy::{CopyError, copy_tcp},
    dial, log_dry_run,
};
use crate::{
    policy::{self, Connection, Denied},
    telemetry::{
        ConnectionDescription, ConnectionReport, Outcome, Reporter, ResponseFlags, Transfer,
    },
};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the pod is no longer an enrolled workload of this node")]
    NotHere,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Dial(#[from] dial::Error),
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl Error {
    fn flags(&self) -> ResponseFlags {
        match self {
            Self::Denied(_) => ResponseFlags::Deny,
            Self::NotHere | Self::Register(_) | Self::Dial(_) => ResponseFlags::Connect,
            Self::Copy(_) => ResponseFlags::None,
        }
    }
}

/// Carries one connection from accept to close.
pub(super) async fn serve(proxy: Arc<Proxy>, client: TcpStream) {
    let (Ok(peer), Ok(original)) = (client.peer_addr(), client.local_addr()) else {
        return;
    };
    let (peer, original) = (super::canonical(peer), super::canonical(original));
    let snapshot = proxy.store.snapshot();
    let destination = proxy.local_workload(&snapshot, original.ip());
    let transfer = Arc::<Transfer>::default();
    let report = ConnectionReport::open(
        &proxy.metrics,
        ConnectionDescription {
            reporter: Reporter::Destination,
            // A name for telemetry only; an enrolled pod would not come in plaintext.
            source: snapshot
                .workload_by_address(peer.ip())
                .filter(|workload| !workload.is_enrolled())
                .cloned(),
            source_identity: None,
            source_address: peer,
            destination_identity: destination
                .as_ref()
                .map(|workload| workload.identity.clone()),
            destination: destination.clone(),
            destination_address: original,
            hbone_address: None,
            service: None,
            secured: false,
        },
        transfer.clone(),
    );
    let carry = async {
        let destination = destination.ok_or(Error::NotHere)?;
        let connection = Connection {
            source: None,
            source_address: peer.ip(),
            destination: &destination,
            destination_address: original,
        };
        let permit = policy::evaluate(snapshot.policies(), &connection)?;
        log_dry_run(&snapshot, &connection);
        let open = OpenConnection {
            reporter: Reporter::Destination,
            source_identity: None,
            source: None,
            source_address: peer,
            destination: Some(destination.clone()),
            destination_address: original,
            service: None,
            transfer: transfer.clone(),
        };
        let guard = proxy.connections.register(open, &snapshot)?;
        let server = dial::to_pod(&permit, Some(peer.ip())).await?;
        Ok((server, guard))
    };
    let result = match carry.await {
        Err(error) => {
            dial::reset(client);
            Err(error)
        }
        Ok((server, guard)) => {
            let copied = copy_tcp(client, server, &transfer, guard.token()).await;
            match (copied, guard.closed_by()) {
                (Err(CopyError::Cancelled), Some(reason)) => {
                    Err(RegisterError::Closed(reason.clone()).into())
                }
                (copied, _) => copied.map_err(Error::from),
            }
        }
    };
    match &result {
        Ok(()) => report.finish(Outcome::Complete),
        Err(Error::Denied(denied)) => report.finish(Outcome::Denied(denied)),
        Err(Error::Register(RegisterError::Closed(reason))) => report.finish(reason.outcome()),
        Err(error) => report.finish(Outcome::Failed {
            flags: error.flags(),
            error,
        }),
    }
}
