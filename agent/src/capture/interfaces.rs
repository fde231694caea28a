//! Keeps programs on the node's devices, and tells them whose each pod interface is.
//!
//! One reconciliation does it all: observe, bind, attach, write. It runs again whenever the
//! kernel or the store says that something moved, so nothing depends on the order of events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_common::map::{
    INTERFACE_BRIDGE_PORT, INTERFACE_ENROLLED, INTERFACE_HAS_PEER, INTERFACE_KNOWN,
    INTERFACE_LOOPBACK, INTERFACE_NO_LINK_HEADER, INTERFACE_POD, INTERFACE_WAYPOINT,
    InterfaceValue,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    attach::{Attacher, Role},
    bind::{self, Bindings, Conflict},
    bound::{BoundPods, Known, PodInterface},
    devices::{Device, Observation},
    maps::{self, Maps},
    passed::{of_identity, of_workload},
    unbound,
};
use crate::discovery::model::{Enrolment, Workload, WorkloadUid};

/// The state of every device that carries programs.
pub(super) struct Interfaces {
    attacher: Attacher,
    attached: BTreeMap<u32, (Role, String)>,
    written: BTreeMap<u32, Written>,
    bindings: Bindings,
    /// Pods whose interface has gone while they are still there, as they were then.
    lost: HashMap<WorkloadUid, Arc<Workload>>,
    bound: BoundPods,
    conflicts: Vec<Conflict>,
    /// Of which it was said that packets come past them, with the epoch.
    past_veth: BTreeMap<u32, u32>,
    epoch: u32,
}

/// What was last written for an interface.
#[derive(PartialEq)]
struct Written {
    value: InterfaceValue,
    pod: Option<Arc<Workload>>,
}

impl Interfaces {
    /// Starts from what an earlier agent left in the maps: stamps go on. Epochs begin above any
    /// that an earlier agent can have used: they grow by less than one a second.
    #[must_use]
    pub(super) fn new(attacher: Attacher, maps: &Maps, bound: BoundPods) -> Self {
        let written: BTreeMap<u32, Written> = maps
            .interfaces()
            .map(|(index, value)| (index, Written { value, pod: None }))
            .collect();
        let left = written.values().map(|written| written.value.epoch).max();
        let seconds = u32::try_from(monotonic_now() / 1_000_000_000).unwrap_or(u32::MAX);
        Self {
            attacher,
            attached: BTreeMap::new(),
            written,
            bindings: Bindings::new(),
            lost: HashMap::new(),
            bound,
            conflicts: Vec::new(),
            past_veth: BTreeMap::new(),
            epoch: left.unwrap_or(0).max(seconds),
        }
    }

    /// Brings programs and maps in line with what was observed and what is known.
    ///
    /// `pods` are this node's, complete: a pod that isn't among them is taken for gone. What the
    /// kernel refuses for one device is logged, and tried again at the next call; the others go on.
    ///
    /// # Errors
    /// A map that refused what concerns the node as a whole.
    pub(super) fn reconcile(
        &mut self,
        maps: &mut Maps,
        observation: &Observation,
        pods: &[Arc<Workload>],
    ) -> Result<(), maps::Error> {
        let by_uid: HashMap<&WorkloadUid, &Arc<Workload>> =
            pods.iter().map(|pod| (&pod.uid, pod)).collect();
        self.note_lost(observation, &by_uid);
        let findable: Vec<Arc<Workload>> = pods
            .iter()
            .filter(|pod| self.is_findable(pod))
            .cloned()
            .collect();
        let (bindings, conflicts) = bind::bind(
            &self.bindings,
            &observation.pods,
            &observation.claims,
            &findable,
        );
        self.bindings = bindings;
        self.report(conflicts);
        // Before the maps: nothing is captured for a pod that isn't known for bound.
        let bound: HashMap<WorkloadUid, PodInterface> = self
            .bindings
            .iter()
            .map(|(index, uid)| (uid.clone(), self.interface(*index, observation)))
            .collect();
        let unbound = pods.iter().filter(|pod| {
            pod.enrolment != Enrolment::HostNetwork
                && !pod.addresses.is_empty()
                && !bound.contains_key(&pod.uid)
        });
        let unbound = unbound.map(|pod| {
            let is_lost = self.lost.contains_key(&pod.uid);
            let reason = unbound::reason(pod, is_lost, &self.conflicts, observation);
            (pod.uid.clone(), reason)
        });
        let mut known = Known {
            mechanism: self.attacher.mechanism(),
            unbound: unbound.collect(),
            bound,
        };
        self.bound.set(known.clone());
        maps.set_node_addresses(&observation.node_addresses)?;

        for device in observation.devices.values() {
            let is_pod = observation.pods.contains(&device.index);
            let uid = self.bindings.get(&device.index);
            let pod = uid.and_then(|uid| by_uid.get(uid).copied()).cloned();
            if let Err(error) = self.write(maps, device, is_pod, pod, observation) {
                // Left as it was: an interface that isn't known lets no new connection pass.
                tracing::error!(interface = device.name, "{error}; it is tried again");
                continue;
            }
            self.attach(device, if is_pod { Role::Pod } else { Role::Node });
        }
        for interface in known.bound.values_mut() {
            interface.is_attached = self.attached.contains_key(&interface.index);
        }
        self.bound.set(known);
        self.forget_absent(maps, observation)
    }

    /// Says which pods packets come to past their veth, once for each.
    ///
    /// # Errors
    /// A map that can't be read.
    pub(super) fn report_past_veth(&mut self, maps: &Maps) -> Result<(), maps::Error> {
        for (index, epoch) in maps.past_veth()? {
            let written = self.written.get(&index);
            let Some(written) = written.filter(|written| written.value.epoch == epoch) else {
                continue;
            };
            if let Some(pod) = &written.pod
                && self.past_veth.insert(index, epoch) != Some(epoch)
            {
                tracing::warn!(
                    pod = %pod.name,
                    "packets come past the host side of the pod's veth (a CNI that uses \
                     bpf_redirect_peer): new connections that the mesh must decide are taken where \
                     they come into the node, before the CNI's own policies"
                );
            }
        }
        Ok(())
    }

    /// Whether it's known whose interface it is.
    pub(super) fn is_bound(&self, index: u32) -> bool {
        self.bindings.contains_key(&index)
    }

    /// Whether the programs know whose interface it is.
    pub(super) fn is_known(&self, index: u32) -> bool {
        let written = self.written.get(&index);
        written.is_some_and(|written| written.value.flags & INTERFACE_KNOWN != 0)
    }

    /// Whether an interface is or was known for a pod's, by this agent or an earlier one.
    pub(super) fn is_pods(&self, index: u32) -> bool {
        const POD: u32 = INTERFACE_POD | INTERFACE_KNOWN;
        let written = self.written.get(&index);
        self.is_bound(index) || written.is_some_and(|written| written.value.flags & POD == POD)
    }

    /// Whether another look is worth it even if no event comes: a pod of this node has no interface
    /// yet and an interface no pod (addresses in a pod's namespace change without an event here), or
    /// the kernel refused something.
    #[must_use]
    pub(super) fn is_unsettled(&self, observation: &Observation, pods: &[Arc<Workload>]) -> bool {
        let is_unbound = |pod: &Arc<Workload>| {
            pod.enrolment != Enrolment::HostNetwork
                && !pod.addresses.is_empty()
                && !self.bindings.values().any(|uid| *uid == pod.uid)
        };
        let is_free = |index: &u32| !self.bindings.contains_key(index);
        let refused = observation
            .devices
            .keys()
            .any(|index| !self.attached.contains_key(index));
        refused || (pods.iter().any(is_unbound) && observation.pods.iter().any(is_free))
    }

    /// Whether an interface that claims the pod's address may be taken for the pod's.
    ///
    /// Whoever has the address of a pod that ends, or that has lost its interface, may be another
    /// pod that isn't announced yet. A lost one is found again when its object has changed. What is
    /// ending while an agent starts was there before, and goes on to its end.
    fn is_findable(&self, pod: &Workload) -> bool {
        let ends = pod.terminating && !self.attached.is_empty();
        let is_bound = self.bindings.values().any(|uid| *uid == pod.uid);
        is_bound || !(ends || self.lost.contains_key(&pod.uid))
    }

    fn interface(&self, index: u32, observation: &Observation) -> PodInterface {
        let device = observation.devices.get(&index);
        PodInterface {
            index,
            name: device
                .map(|device| &*device.name)
                .unwrap_or_default()
                .into(),
            is_attached: self.attached.contains_key(&index),
            namespace: device.and_then(|device| Some(device.peer?.0)),
        }
    }

    fn note_lost(
        &mut self,
        observation: &Observation,
        pods: &HashMap<&WorkloadUid, &Arc<Workload>>,
    ) {
        self.lost
            .retain(|uid, was| pods.get(uid).is_some_and(|is| **is == *was));
        for (index, uid) in &self.bindings {
            if let Some(pod) = pods.get(uid)
                && !observation.pods.contains(index)
            {
                tracing::info!(pod = %pod.name, "the pod's interface is gone");
                self.lost.insert(uid.clone(), Arc::clone(pod));
            }
        }
    }

    fn write(
        &mut self,
        maps: &mut Maps,
        device: &Device,
        is_pod: bool,
        pod: Option<Arc<Workload>>,
        observation: &Observation,
    ) -> Result<(), maps::Error> {
        let before = self.written.get(&device.index);
        let client = pod.as_ref().filter(|pod| pod.is_client_here());
        let enrolled = client.is_some_and(|pod| pod.is_enrolled());
        let mut flags = 0;
        for (flag, set) in [
            (INTERFACE_POD, is_pod),
            (INTERFACE_KNOWN, !is_pod || pod.is_some()),
            (INTERFACE_ENROLLED, enrolled),
            (INTERFACE_WAYPOINT, client.is_some() && !enrolled),
            (INTERFACE_BRIDGE_PORT, device.bridge.is_some()),
            (INTERFACE_NO_LINK_HEADER, !device.has_link_header),
            (INTERFACE_LOOPBACK, device.is_loopback),
            (INTERFACE_HAS_PEER, device.peer.is_some()),
        ] {
            if set {
                flags |= flag;
            }
        }
        let was = before.map(|before| before.value);
        let was_known = was.is_some_and(|was| was.flags & INTERFACE_KNOWN != 0);
        let was_enrolled = was.is_some_and(|was| was.flags & INTERFACE_ENROLLED != 0);
        let other_pod = before.is_some_and(|before| match (&before.pod, &pod) {
            (Some(before), Some(pod)) => before.uid != pod.uid,
            _ => false,
        });
        // What was remembered under one enrolment means nothing under the next. To be unknown for
        // a while is no end of an enrolment: what the agent had must stay remembered.
        let begins = enrolled && was_known && !was_enrolled;
        let epoch = match was {
            Some(was) if !other_pod && !begins => was.epoch,
            _ => {
                self.epoch = self.epoch.wrapping_add(1);
                self.epoch
            }
        };
        let seen_at = match was {
            // A pod that was known and no longer is gets a hold of its own.
            Some(was) if !(was_known && flags & INTERFACE_KNOWN == 0) => was.seen_at,
            _ => monotonic_now(),
        };
        let bridge = device
            .bridge
            .and_then(|index| observation.devices.get(&index));
        let value = InterfaceValue {
            flags,
            epoch,
            seen_at,
            bridge_mac: bridge.and_then(|bridge| bridge.mac).unwrap_or_default(),
            padding: [0; 2],
            identity: client
                .map(|pod| of_identity(&pod.identity))
                .unwrap_or_default(),
            workload: client.map(|pod| of_workload(&pod.uid)).unwrap_or_default(),
        };
        let written = Written { value, pod };
        if self.written.get(&device.index) == Some(&written) {
            return Ok(());
        }
        // What it may send comes before that it must be checked, and goes after.
        if let Some(pod) = &written.pod {
            maps.set_sources(device.index, &pod.addresses)?;
            maps.set_exclusions(device.index, &pod.exclusions)?;
        }
        maps.set_interface(device.index, value)?;
        if written.pod.is_none() && is_pod {
            maps.set_sources(device.index, &[])?;
        }
        if let Some(pod) = &written.pod {
            tracing::info!(pod = %pod.name, interface = device.name, enrolled, "pod interface");
        }
        self.written.insert(device.index, written);
        Ok(())
    }

    fn attach(&mut self, device: &Device, role: Role) {
        let wanted = (role, device.name.clone());
        if self.attached.get(&device.index) == Some(&wanted) {
            return;
        }
        match self.attacher.attach(device.index, &device.name, role) {
            Ok(()) => {
                self.attached.insert(device.index, wanted);
            }
            Err(error) => {
                self.attached.remove(&device.index);
                tracing::warn!("{error}; it is tried again with the next event");
            }
        }
    }

    fn forget_absent(
        &mut self,
        maps: &mut Maps,
        observation: &Observation,
    ) -> Result<(), maps::Error> {
        let present: BTreeSet<u32> = observation.devices.keys().copied().collect();
        let gone: Vec<u32> = self
            .written
            .keys()
            .filter(|index| !present.contains(index))
            .copied()
            .collect();
        for index in gone {
            maps.remove_interface(index)?;
            self.written.remove(&index);
            self.attached.remove(&index);
            self.past_veth.remove(&index);
        }
        self.attacher.sweep(&present);
        Ok(())
    }

    fn report(&mut self, conflicts: Vec<Conflict>) {
        for conflict in conflicts
            .iter()
            .filter(|conflict| !self.conflicts.contains(conflict))
        {
            tracing::error!(
                pod = %conflict.workload,
                interfaces = ?conflict.interfaces,
                "the pod's interface is in doubt, so its connections wait: more than one interface \
                 claims its address, or its interface claims another pod's too"
            );
        }
        self.conflicts = conflicts;
    }
}

/// The clock of `bpf_ktime_get_ns`, in nanoseconds.
pub(super) fn monotonic_now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
