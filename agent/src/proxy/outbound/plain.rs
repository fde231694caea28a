//! To what isn't of the mesh.

use std::sync::Arc;

use super::{Exchange, describe};
use crate::{
    proxy::{
        copy::{ResetOnDrop, copy_tcp},
        dial,
        error::{Error, ended, finish},
    },
    telemetry::{ConnectionReport, Reporter, Transfer},
};

impl Exchange {
    /// Carried on as it came.
    pub(super) async fn plain(&self, client: ResetOnDrop) {
        let mut description = describe(
            &self.source,
            self.peer,
            self.request.address,
            Some(&self.request),
        );
        description.secured = false;
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let result = self.carry_plain(client, &transfer).await;
        finish(report, &result);
    }

    async fn carry_plain(
        &self,
        client: ResetOnDrop,
        transfer: &Arc<Transfer>,
    ) -> Result<(), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        // A process of this node answers from a local socket, past the hook that would bring its
        // answer to us: it gets the node's address as source.
        let is_own = self
            .source
            .node_addresses
            .contains(&self.request.address.ip());
        let keep = (!is_own).then_some(self.peer.ip());
        let dialled = dial::outside(self.request.address, keep);
        let server = Box::pin(guard.unless_closed(dialled)).await??;
        let copied = copy_tcp(client, server, transfer, guard.token()).await;
        ended(&guard, copied)
    }
}
