//! In a tunnel: to the agent of an enrolled pod elsewhere.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Exchange, describe};
use crate::{
    discovery::model::{Service, Workload, WorkloadUid},
    hbone::{Authority, Forwarded, RequestHeaders, pool::PoolKey},
    identity::Identity,
    proxy::{
        baggage,
        copy::{CopyError, ResetOnDrop, TcpSide, copy_tunnel},
        error::{Error, ended, finish},
        tunnels::TunnelStream,
    },
    telemetry::{ConnectionReport, Reporter, Transfer},
};

/// From the client's connection to the answer of the other agent, a new tunnel included.
const DEADLINE: Duration = Duration::from_secs(20);

impl Exchange {
    /// An enrolled pod elsewhere: its agent decides.
    pub(super) async fn tunnel(
        &self,
        client: ResetOnDrop,
        destination: &Arc<Workload>,
        via: SocketAddr,
    ) {
        let mut description = describe(&self.source, self.peer, via, Some(&self.request));
        description.hbone_address = Some(self.request.address);
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let result = self.carry_tunnel(client, destination, via, &transfer).await;
        finish(report, &result);
    }

    async fn carry_tunnel(
        &self,
        client: ResetOnDrop,
        destination: &Arc<Workload>,
        via: SocketAddr,
        transfer: &Arc<Transfer>,
    ) -> Result<(), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        // Boxed, as every step that is over before bytes move: for as long as a connection lives, its
        // task should hold no more than it needs.
        let end = (&destination.identity, &destination.uid);
        let authority = Authority::Address(self.request.address);
        let opening = self.open_stream(end, via, &authority, (&client, transfer));
        let stream = Box::pin(guard.unless_closed(opening)).await??;
        let copied = copy_tunnel(client, TcpSide::Client, stream, transfer, guard.token()).await;
        ended(&guard, copied)
    }

    pub(super) async fn open_stream(
        &self,
        (identity, uid): (&Identity, &WorkloadUid),
        via: SocketAddr,
        authority: &Authority,
        (client, transfer): (&ResetOnDrop, &Transfer),
    ) -> Result<TunnelStream, Error> {
        let key = PoolKey {
            source: self.source.identity.clone(),
            destination: identity.clone(),
            uid: uid.clone(),
            address: via,
        };
        let service = self.request.service.as_ref();
        let host = service.map(|service| self.host(service));
        let headers = RequestHeaders {
            baggage: baggage(&self.source, &self.proxy.cluster),
            forwarded: Some(Forwarded {
                address: self.peer.ip(),
                port: Some(self.peer.port()),
                host: host.map(Into::into),
            }),
            traceparent: None,
        };
        let tunnels = &self.proxy.tunnels;
        let idle = tunnels.idle(&key);
        let (idle, ahead) = match idle.map(|idle| (client.read_ahead(), idle)) {
            Some((Ok(ahead), idle)) => (Some(idle), ahead),
            Some((Err(error), idle)) => {
                idle.give_back();
                return Err(CopyError::client(error).into());
            }
            None => (None, Vec::new()),
        };
        let deadline = Instant::now() + DEADLINE;
        let idle = idle.map(|idle| (idle, &ahead[..]));
        let stream = tunnels
            .open(&key, authority, &headers, idle, deadline)
            .await?;
        transfer.add_received(ahead.len() as u64);
        Ok(stream)
    }

    pub(super) fn host(&self, service: &Service) -> String {
        service.name.service_host(&self.proxy.cluster_domain)
    }
}
