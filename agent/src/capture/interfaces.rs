//! Keeps programs on the node's devices, and tells them whose each pod interface is.
//!
//! One reconciliation does it all: observe, bind, attach, write. It runs again whenever the
//! kernel or the store says that something moved, so nothing depends on the order of events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_common::map::{
    INTERFACE_BRIDGE_PORT, INTERFACE_ENROLLED, INTERFACE_KNOWN, INTERFACE_NO_LINK_HEADER,
    INTERFACE_POD, InterfaceValue,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    attach::{Attacher, Role},
    bind::{self, Bindings, Conflict},
    devices::{Device, Observation},
    maps::{self, Maps},
};
use crate::discovery::model::{Workload, WorkloadUid};

/// The state of every device that carries programs.
pub(super) struct Interfaces {
    attacher: Attacher,
    attached: BTreeMap<u32, (Role, String)>,
    written: BTreeMap<u32, Written>,
    bindings: Bindings,
    conflicts: Vec<Conflict>,
    epoch: u32,
}

/// What was last written for an interface.
#[derive(PartialEq)]
struct Written {
    value: InterfaceValue,
    pod: Option<Arc<Workload>>,
}

impl Interfaces {
    /// Starts from what an earlier agent left in the maps: stamps and epochs go on.
    #[must_use]
    pub(super) fn new(attacher: Attacher, maps: &Maps) -> Self {
        let written: BTreeMap<u32, Written> = maps
            .interfaces()
            .map(|(index, value)| (index, Written { value, pod: None }))
            .collect();
        let epoch = written
            .values()
            .map(|written| written.value.epoch)
            .max()
            .unwrap_or(0);
        Self {
            attacher,
            attached: BTreeMap::new(),
            written,
            bindings: Bindings::new(),
            conflicts: Vec::new(),
            epoch,
        }
    }

    /// Brings programs and maps in line with what was observed and what is known.
    ///
    /// `pods` are this node's, complete: a pod that isn't among them is taken for gone.
    ///
    /// # Errors
    /// A map that refused an entry. Attaching errors are logged and tried again at the next call.
    pub(super) fn reconcile(
        &mut self,
        maps: &mut Maps,
        observation: &Observation,
        pods: &[Arc<Workload>],
    ) -> Result<(), maps::Error> {
        let (bindings, conflicts) =
            bind::bind(&self.bindings, &observation.pods, &observation.claims, pods);
        self.bindings = bindings;
        self.report(conflicts);
        let by_uid: HashMap<&WorkloadUid, &Arc<Workload>> =
            pods.iter().map(|pod| (&pod.uid, pod)).collect();

        for device in observation
            .devices
            .values()
            .filter(|device| !device.is_loopback)
        {
            let is_pod = observation.pods.contains(&device.index);
            let pod = self
                .bindings
                .get(&device.index)
                .and_then(|uid| by_uid.get(uid).copied());
            self.write(maps, device, is_pod, pod.cloned(), observation)?;
            self.attach(device, if is_pod { Role::Pod } else { Role::Node });
        }
        self.forget_absent(maps, observation)
    }

    /// Whether it's known whose interface it is.
    pub(super) fn is_bound(&self, index: u32) -> bool {
        self.bindings.contains_key(&index)
    }

    /// Whether a pod of this node has no interface yet, or an interface no pod: worth another look
    /// even if no event comes, since addresses in a pod's namespace change without one here.
    #[must_use]
    pub(super) fn is_unsettled(&self, observation: &Observation, pods: &[Arc<Workload>]) -> bool {
        let unbound = pods.iter().any(|pod| {
            !pod.addresses.is_empty() && !self.bindings.values().any(|uid| *uid == pod.uid)
        });
        unbound
            && observation
                .pods
                .iter()
                .any(|index| !self.bindings.contains_key(index))
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
        let enrolled = pod.as_ref().is_some_and(|pod| pod.is_enrolled());
        let mut flags = 0;
        for (flag, set) in [
            (INTERFACE_POD, is_pod),
            (INTERFACE_KNOWN, !is_pod || pod.is_some()),
            (INTERFACE_ENROLLED, enrolled),
            (INTERFACE_BRIDGE_PORT, device.bridge.is_some()),
            (INTERFACE_NO_LINK_HEADER, !device.has_link_header),
        ] {
            if set {
                flags |= flag;
            }
        }
        let was = before.map(|before| before.value);
        let was_known = was.is_some_and(|was| was.flags & INTERFACE_KNOWN != 0);
        let was_enrolled = was.is_some_and(|was| was.flags & INTERFACE_ENROLLED != 0);
        let same_pod = before.is_none_or(|before| match (&before.pod, &pod) {
            (Some(before), Some(pod)) => before.uid == pod.uid,
            // Taking over: the entry doesn't say whose it was, and it was the same interface.
            (None, Some(_)) => was_enrolled,
            _ => true,
        });
        let epoch = match was {
            Some(was) if was_enrolled == enrolled && same_pod => was.epoch,
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
fn monotonic_now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
