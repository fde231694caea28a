//! What the agent knows of its own node, for explanations.

use futures::future::BoxFuture;

use super::operator::Operator;
use crate::{
    admin::{CertificateView, reason_to_wait},
    app::views,
    discovery::model::{Workload, WorkloadUid},
    explain::{InterfaceFacts, KernelVerdict, NodeFacts, Probe, ProbeError, Reached},
    identity::Identity,
    proxy::route::MissingWaypoint,
};

impl NodeFacts for Operator {
    fn node(&self) -> &str {
        &self.node
    }

    fn interface(&self, pod: &Workload) -> Result<InterfaceFacts, String> {
        let found = self.bound.interface(&pod.uid).ok_or_else(|| {
            let reason = self.bound.why_not(&pod.uid).map(|it| it.to_string());
            reason_to_wait(pod, &self.store.snapshot(), reason)
        })?;
        Ok(InterfaceFacts {
            name: found.name.to_string(),
            index: found.index,
            mechanism: self.bound.mechanism(),
            is_attached: found.is_attached,
        })
    }

    fn verdict(&self, source: &Identity, destination: &WorkloadUid, port: u16) -> KernelVerdict {
        let generation = self.passes.generation();
        match self.passes.is_allowed(source, destination, port) {
            _ if !self.passes.is_on() => KernelVerdict::Off,
            true => KernelVerdict::Passes(generation),
            false => KernelVerdict::Asks(generation),
        }
    }

    fn certificate(&self, identity: &Identity) -> Option<CertificateView> {
        let states = self.certificates.states();
        let state = states.iter().find(|state| state.identity == *identity);
        state.map(views::certificate)
    }

    fn missing(&self) -> MissingWaypoint {
        self.missing
    }

    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<Reached, ProbeError>> {
        Box::pin(self.proxy.probe(probe))
    }
}
