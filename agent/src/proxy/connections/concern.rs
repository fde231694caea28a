//! Which open connections a change can have decided otherwise. Pure.

use std::{collections::HashSet, net::IpAddr};

use super::OpenConnection;
use crate::discovery::{model::WorkloadUid, store::Update};

/// What a change is about. It names everything that `verdict` asks the present for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concern {
    /// Any connection, any workload; or nobody knows what has changed.
    Everything,
    /// Any connection, by the policies that are in force; no workload.
    Policies,
    /// Connections that have to do with some pods.
    Pods {
        /// Workloads that came, went or changed.
        workloads: HashSet<WorkloadUid>,
        /// Addresses that have another holder.
        addresses: HashSet<IpAddr>,
    },
}

impl Concern {
    /// `None`: no open connection. Where a service leads matters to new ones only.
    #[must_use]
    pub fn of(update: &Update) -> Option<Self> {
        if update.waypoints_changed {
            return Some(Self::Everything);
        }
        let has_pods = !update.workloads.is_empty() || !update.addresses.is_empty();
        match (update.policies_changed, has_pods) {
            (false, false) => None,
            (true, false) => Some(Self::Policies),
            (true, true) => Some(Self::Everything),
            (false, true) => {
                let workloads = update.workloads.iter();
                let ends = workloads.flat_map(|change| change.before.iter().chain(&change.after));
                Some(Self::Pods {
                    workloads: ends.map(|workload| workload.uid.clone()).collect(),
                    addresses: update.addresses.iter().map(|it| it.address).collect(),
                })
            }
        }
    }

    /// Whether workloads came, went or changed.
    #[must_use]
    pub fn is_about_workloads(&self) -> bool {
        !matches!(self, Self::Policies)
    }

    /// Whether it may have decided otherwise what depends on policies and on one workload, if there is one.
    pub(crate) fn is_about(&self, workload: Option<&WorkloadUid>) -> bool {
        match self {
            Self::Everything | Self::Policies => true,
            Self::Pods { workloads, .. } => workload.is_some_and(|uid| workloads.contains(uid)),
        }
    }

    pub(super) fn includes(&self, connection: &OpenConnection) -> bool {
        let Self::Pods {
            workloads,
            addresses,
        } = self
        else {
            return true;
        };
        let ends = [&connection.source, &connection.destination];
        let address = connection.destination_address.ip();
        ends.into_iter()
            .flatten()
            .any(|workload| workloads.contains(&workload.uid))
            || connection.destination.is_none() && addresses.contains(&address)
    }
}
