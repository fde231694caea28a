//! Whose connections the open ones are, so that one pod's leave room for others'.

use std::sync::Arc;

use super::{OpenConnection, RegisterError};
use crate::{
    discovery::model::{Workload, WorkloadUid},
    identity::Identity,
    proxy::{
        counts::{self, CountGuard, Counts, Full},
        memory::Memory,
    },
    telemetry::{Outcome, Refusal, RefusalReason},
};

/// How many connections may be open.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of all pods. Default [`super::DEFAULT_LIMIT`]. No pod has more than three times as many as are left for
    /// others.
    pub total: usize,
    /// Of one pod, at most. Default: as many as `total` leaves it.
    pub per_pod: usize,
}

/// Whom a connection counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Pod(WorkloadUid),
    Client(Identity),
    /// Neither end is known: a client of a destination that has just gone.
    Nobody,
}

pub(super) type Share = CountGuard<Holder>;

#[derive(Debug, Default)]
pub(super) struct Shares {
    counts: Arc<Counts<Holder>>,
    memory: Memory,
}

impl Shares {
    /// A place for a connection, until it is dropped.
    ///
    /// # Errors
    /// [`RegisterError::Full`], [`RegisterError::PodFull`], [`RegisterError::NoMemory`].
    pub(super) fn take(
        &self,
        connection: &OpenConnection,
        limits: Limits,
    ) -> Result<Share, RegisterError> {
        if !self.memory.take() {
            return Err(RegisterError::NoMemory);
        }
        let pod = pod(connection);
        let holder = match (pod, &connection.source_identity) {
            (Some(pod), _) => Holder::Pod(pod.uid.clone()),
            (None, Some(client)) => Holder::Client(client.clone()),
            (None, None) => Holder::Nobody,
        };
        let (total, per_key) = (limits.total, limits.per_pod);
        let taken = self
            .counts
            .try_count(holder, counts::Limits { per_key, total });
        taken.map_err(|full| match full {
            Full::Total => RegisterError::Full { limit: total },
            Full::Key { count } => RegisterError::PodFull {
                pod: pod.map(|pod| pod.name.clone()),
                open: count,
            },
        })
    }
}

/// The client's pod; where nobody vouches for the client, the server's.
fn pod(connection: &OpenConnection) -> Option<&Arc<Workload>> {
    match connection.source_identity {
        Some(_) => connection.source.as_ref(),
        None => connection.destination.as_ref(),
    }
}

impl RegisterError {
    /// What is reported.
    pub(crate) fn outcome(&self) -> Outcome<'_> {
        let refused = |reason, pod| {
            Outcome::Refused(Refusal {
                reason,
                pod,
                error: self,
            })
        };
        match self {
            Self::Full { .. } => refused(RefusalReason::NodeLimit, None),
            Self::NoMemory => refused(RefusalReason::Memory, None),
            Self::PodFull { pod, .. } => refused(RefusalReason::PodLimit, pod.as_ref()),
            Self::Closed(reason) => reason.outcome(),
        }
    }
}
