//! Which identities a node may ask for: those of workloads that run on it.

use std::sync::Arc;

use crate::{
    discovery::{model::Workload, store::Store},
    identity::Identity,
};

/// Knows what runs where.
pub trait NodeAuthorizer: Send + Sync + 'static {
    /// Whether a workload with this identity runs on this node now.
    fn runs_on(&self, identity: &Identity, node: &str) -> bool;
}

/// Workloads that have ended aren't in the store.
impl NodeAuthorizer for Store {
    fn runs_on(&self, identity: &Identity, node: &str) -> bool {
        any_runs_on(self.snapshot().workloads(), identity, node)
    }
}

impl<A: NodeAuthorizer + ?Sized> NodeAuthorizer for Arc<A> {
    fn runs_on(&self, identity: &Identity, node: &str) -> bool {
        (**self).runs_on(identity, node)
    }
}

pub(super) fn any_runs_on<'a>(
    workloads: impl IntoIterator<Item = &'a Arc<Workload>>,
    identity: &Identity,
    node: &str,
) -> bool {
    let mut workloads = workloads.into_iter();
    // A pod that isn't scheduled yet has an empty node, which no caller may stand for.
    !node.is_empty()
        && workloads.any(|workload| workload.identity == *identity && *workload.node == *node)
}
