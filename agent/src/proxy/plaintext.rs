//! Port 15006: plaintext on its way to an enrolled pod of this node, turned back to the agent.
//!
//! Nobody vouches for the client: it meets PeerAuthentication, and policies see no identity.

use std::{sync::Arc, time::Instant};

use tokio::net::TcpStream;

use super::{
    Proxy,
    connections::{Decided, OpenConnection},
    copy::{ResetOnDrop, copy_tcp},
    dial,
    error::{Error, ended, finish},
    log_dry_run,
    plaintext_clients::Kind,
};
use crate::{
    policy::{self, Connection, Through},
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer},
};

/// Carries one connection from accept to close.
pub(super) async fn serve(proxy: Arc<Proxy>, client: TcpStream) {
    let (Ok(peer), Ok(original)) = (client.peer_addr(), client.local_addr()) else {
        return;
    };
    let client = ResetOnDrop::from(client);
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
            passed: false,
            waypoint: None,
        },
        transfer.clone(),
    );
    let carry = async {
        let destination = destination.ok_or(Error::NotHere(original))?;
        let kind = Kind {
            client: peer.ip(),
            pod: destination.uid.clone(),
            server: original,
        };
        let is_alive = |uid: &_| snapshot.is_alive(uid);
        proxy.plaintext_clients.note(kind, Instant::now(), is_alive);
        let connection = Connection {
            source: None,
            source_address: peer.ip(),
            destination: &destination,
            destination_address: original,
            through: Through::None,
            request: None,
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
            waypoint: None,
            decided: Decided::ByServer,
            transfer: transfer.clone(),
        };
        let guard = proxy.connections.register(open, &snapshot)?;
        let dialled = dial::to_pod(&permit, Some(peer.ip()));
        let server = guard.unless_closed(dialled).await??;
        let copied = copy_tcp(client, server, &transfer, guard.token()).await;
        ended(&guard, copied)
    };
    let result = carry.await;
    finish(report, &result);
}
