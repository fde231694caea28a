//! By way of a waypoint.

use std::{net::SocketAddr, sync::Arc};

use super::{Exchange, describe, find, unroutable};
use crate::{
    discovery::model::Waypoint,
    hbone::Authority,
    proxy::{
        connections::ConnectionGuard,
        copy::{ResetOnDrop, TcpSide, copy_tunnel},
        error::{Error, ended, finish},
        route::MissingWaypoint,
        tunnels::TunnelStream,
    },
    telemetry::{ConnectionReport, Reporter, Transfer},
};

impl Exchange {
    /// The waypoint decides.
    pub(super) async fn waypoint(
        &mut self,
        client: ResetOnDrop,
        waypoint: &Waypoint,
        via: SocketAddr,
    ) {
        let mut description = describe(&self.source, self.peer, via, Some(&self.request));
        description.hbone_address = Some(self.request.address);
        description.destination_identity = Some(waypoint.identity.clone());
        description.secured = true;
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let (guard, stream) = match self.open_waypoint(waypoint, via, &transfer).await {
            Ok(opened) => opened,
            Err(error) => {
                let is_out_of_reach = error.is_out_of_reach();
                finish(report, &Err(error));
                if is_out_of_reach {
                    self.out_of_reach(client, waypoint).await;
                }
                return;
            }
        };
        let copied = copy_tunnel(client, TcpSide::Client, stream, &transfer, guard.token()).await;
        finish(report, &ended(&guard, copied));
    }

    async fn open_waypoint(
        &self,
        waypoint: &Waypoint,
        via: SocketAddr,
        transfer: &Arc<Transfer>,
    ) -> Result<(ConnectionGuard, TunnelStream), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        let authority = match &self.request.service {
            Some(service) if self.request.route.workload().is_none() => Authority::Host {
                host: self.host(service).into(),
                port: self.request.address.port(),
            },
            _ => Authority::Address(self.request.address),
        };
        let opening = self.open_stream((&waypoint.identity, &waypoint.uid), via, &authority);
        let stream = Box::pin(guard.unless_closed(opening)).await??;
        Ok((guard, stream))
    }

    /// No process of the waypoint takes connections: nothing was sent yet.
    async fn out_of_reach(&mut self, client: ResetOnDrop, waypoint: &Waypoint) {
        if self.proxy.missing == MissingWaypoint::Deny {
            let decision = MissingWaypoint::Deny.as_str();
            self.proxy
                .metrics
                .waypoint_missing(&waypoint.name, decision);
            return;
        }
        let ends = (self.peer, self.original);
        match find(&self.proxy, &self.snapshot, &self.source, ends, true) {
            Ok(request) => {
                self.request = request;
                Box::pin(self.directly(client)).await;
            }
            Err(error) => unroutable(&self.proxy, &self.source, ends, error),
        }
    }
}
