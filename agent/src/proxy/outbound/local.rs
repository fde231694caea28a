//! To an enrolled pod of this node.

use std::{sync::Arc, time::Instant};

use super::{Exchange, describe};
use crate::{
    discovery::model::Workload,
    policy::{self, Connection},
    proxy::{
        copy::{ResetOnDrop, copy_tcp},
        dial,
        error::{Error, ended, finish},
        log_dry_run,
    },
    telemetry::{ConnectionReport, Reporter, Transfer},
};

impl Exchange {
    /// An enrolled pod of this node: both agents are this one, so both reports are.
    pub(super) async fn local(&self, client: ResetOnDrop, destination: &Arc<Workload>) {
        let description = describe(
            &self.source,
            self.peer,
            self.request.address,
            Some(&self.request),
        );
        let transfer = Arc::<Transfer>::default();
        let reports = ConnectionReport::open_both(
            &self.proxy.metrics,
            description,
            &transfer,
            Instant::now(),
        );
        let result = self.carry_local(client, destination, &transfer).await;
        for report in reports {
            finish(report, &result);
        }
    }

    async fn carry_local(
        &self,
        client: ResetOnDrop,
        destination: &Arc<Workload>,
        transfer: &Arc<Transfer>,
    ) -> Result<(), Error> {
        let connection = Connection {
            source: Some(&self.source.identity),
            source_address: self.peer.ip(),
            destination,
            destination_address: self.request.address,
            through: self
                .snapshot
                .through(Some(&self.source.identity), destination),
            request: None,
        };
        let permit = policy::evaluate(self.snapshot.policies(), &connection)?;
        log_dry_run(&self.snapshot, &connection);
        let is_same = policy::is_same_for_all_addresses(self.snapshot.policies(), destination);
        // Where a waypoint is missing, the next is asked for again.
        let is_without = self.request.waypoint.is_some();
        if is_same && !is_without && !self.proxy.retired.is_cancelled() {
            let port = self.request.address.port();
            let (source, uid) = (&self.source.identity, &destination.uid);
            self.proxy.passes.allow(source, uid, port, self.generation);
        }
        let guard = self.register(Reporter::Destination, transfer)?;
        // A packet from a pod to itself would arrive with its own address as source, which the
        // pod's kernel refuses; the node's stands in.
        let keep = (self.source.uid != destination.uid).then_some(self.peer.ip());
        let server = Box::pin(guard.unless_closed(dial::to_pod(&permit, keep))).await??;
        let server = server.with_pod(self.proxy.splice_namespace(destination));
        let copied = copy_tcp(client, server, transfer, guard.token()).await;
        ended(&guard, copied)
    }
}
