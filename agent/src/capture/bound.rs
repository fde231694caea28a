//! What is known of the interfaces of this node's pods, for whoever needs the evidence.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::unbound::Unbound;
use crate::discovery::model::WorkloadUid;

/// The pods of this node whose interface is known, for whoever needs the evidence. Read without
/// waiting; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BoundPods(Arc<ArcSwap<Known>>);

/// The host side of a pod's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it has its programs.
    pub is_attached: bool,
    /// The id that the pod's network namespace has in this one.
    pub(super) namespace: Option<i32>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// How programs are attached.
    pub(super) mechanism: &'static str,
    pub(super) bound: HashMap<WorkloadUid, PodInterface>,
    /// The others that have addresses, and why.
    pub(super) unbound: HashMap<WorkloadUid, Unbound>,
}

impl BoundPods {
    pub(super) fn set(&self, known: Known) {
        self.0.store(Arc::new(known));
    }

    /// Whether the pod has an interface that is known for its own.
    #[must_use]
    pub fn contains(&self, uid: &WorkloadUid) -> bool {
        self.0.load().bound.contains_key(uid)
    }

    /// The id that the pod's network namespace has in this one, if its interface is known.
    #[must_use]
    pub fn namespace(&self, uid: &WorkloadUid) -> Option<i32> {
        self.0.load().bound.get(uid)?.namespace
    }

    /// The pod's interface, if it is known.
    #[must_use]
    pub fn interface(&self, uid: &WorkloadUid) -> Option<PodInterface> {
        self.0.load().bound.get(uid).cloned()
    }

    /// How programs are attached: `TCX` or `clsact`.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        self.0.load().mechanism
    }

    /// Why the interface of a pod of this node isn't known, if the pod has addresses and was looked
    /// for.
    #[must_use]
    pub fn why_not(&self, uid: &WorkloadUid) -> Option<Unbound> {
        self.0.load().unbound.get(uid).cloned()
    }
}
