//! Every map. All that hold state are pinned by name: captures outlive the agent that set them up.

use ambit_common::{
    arrival::{Arrival, MAX_ARRIVALS},
    balance::{
        EndpointKey, EndpointValue, MAX_DRAWN, MAX_LOCAL_ENDPOINTS, MAX_NAMESPACES, ServiceValue,
    },
    capture::Listener,
    counter,
    held::HELD_BYTES,
    map::{
        Address, Configuration, FlowKey, InterfaceValue, MAX_EXCLUDED_NETWORKS, MAX_EXCLUDED_PORTS,
        MAX_FLOWS, MAX_INTERFACES, MAX_NODE_ADDRESSES, MAX_OLDER, MAX_REOPENED, MAX_SERVICES,
        MAX_SOURCES, MAX_WORKLOADS, NetworkKey, PortKey, ServiceKey, SourceKey,
    },
    passed::{EVENT_BYTES, MAX_PASSED, MAX_VERDICTS, Passed, Passing, VerdictKey},
    splice::{MAX_MEMBERS, MAX_STREAMS, SpliceSettings, Stream},
};
use aya_ebpf::{
    bindings::bpf_sock_tuple,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockHash, SockMap},
};

use crate::passed::Scratch;

/// Maps sized for the largest cluster take memory for what they hold, not for what they could.
const NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

#[map]
pub static INTERFACES: HashMap<u32, InterfaceValue> = HashMap::pinned(MAX_INTERFACES, NO_PREALLOC);
#[map]
pub static SOURCES: HashMap<SourceKey, u32> = HashMap::pinned(MAX_SOURCES, NO_PREALLOC);
#[map]
pub static WORKLOADS: HashMap<Address, u32> = HashMap::pinned(MAX_WORKLOADS, NO_PREALLOC);
#[map]
pub static SERVICES: HashMap<ServiceKey, ServiceValue> = HashMap::pinned(MAX_SERVICES, NO_PREALLOC);
#[map]
pub static EXCLUDED_PORTS: HashMap<PortKey, u32> = HashMap::pinned(MAX_EXCLUDED_PORTS, NO_PREALLOC);
#[map]
pub static EXCLUDED_NETWORKS: LpmTrie<NetworkKey, u32> =
    LpmTrie::pinned(MAX_EXCLUDED_NETWORKS, NO_PREALLOC);
#[map]
pub static LISTENERS: SockMap = SockMap::pinned(Listener::SLOTS, 0);
#[map]
pub static FLOWS: LruHashMap<FlowKey, u32> = LruHashMap::pinned(MAX_FLOWS, 0);
#[map]
pub static OLDER: LruHashMap<FlowKey, u32> = LruHashMap::pinned(MAX_OLDER, 0);
#[map]
pub static REOPENED: LruHashMap<FlowKey, u32> = LruHashMap::pinned(MAX_REOPENED, 0);
#[map]
pub static ARRIVALS: LruHashMap<FlowKey, Arrival> = LruHashMap::pinned(MAX_ARRIVALS, 0);
#[map]
pub static PAST_VETH: HashMap<u32, u32> = HashMap::pinned(MAX_INTERFACES, NO_PREALLOC);
#[map]
pub static NODE_ADDRESSES: HashMap<[u8; 16], u32> =
    HashMap::pinned(MAX_NODE_ADDRESSES, NO_PREALLOC);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::pinned(counter::COUNT, 0);
#[map]
pub static CONFIGURATION: Array<Configuration> = Array::pinned(1, 0);

#[map]
pub static PODS: HashMap<Address, u32> = HashMap::pinned(MAX_SOURCES, NO_PREALLOC);
#[map]
pub static VERDICTS: LruHashMap<VerdictKey, u64> = LruHashMap::pinned(MAX_VERDICTS, 0);
#[map]
pub static PASSED: HashMap<FlowKey, Passed> = HashMap::pinned(MAX_PASSED, NO_PREALLOC);
#[map]
pub static PASSING: Array<Passing> = Array::pinned(1, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(EVENT_BYTES, 0);

#[map]
pub static HELD: RingBuf = RingBuf::pinned(HELD_BYTES, 0);

#[map]
pub static LOCAL_ENDPOINTS: HashMap<EndpointKey, EndpointValue> =
    HashMap::pinned(MAX_LOCAL_ENDPOINTS, NO_PREALLOC);
#[map]
pub static NAMESPACES: LruHashMap<u64, u32> = LruHashMap::pinned(MAX_NAMESPACES, 0);
#[map]
pub static DRAWN: LruHashMap<FlowKey, u32> = LruHashMap::pinned(MAX_DRAWN, 0);

/// Room for the addresses of a look-up in `socket`.
#[map]
pub static SOCKET_TUPLE: PerCpuArray<bpf_sock_tuple> = PerCpuArray::with_max_entries(1, 0);

/// Room for keys and values in `passed`.
#[map]
pub static PASS_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static SPLICE_SOCKETS: SockHash<u64> = SockHash::pinned(MAX_MEMBERS, 0);
#[map]
pub static SPLICE_STREAMS: LruHashMap<u64, Stream> = LruHashMap::pinned(MAX_STREAMS, 0);
#[map]
pub static SPLICE_COUNTERS: PerCpuArray<u64> = PerCpuArray::pinned(counter::SPLICE_COUNT, 0);
#[map]
pub static SPLICE_SETTINGS: Array<SpliceSettings> = Array::pinned(1, 0);

/// Whether an address counts as an enrolled workload's: all do while some map of the mesh is full,
/// and then every VIP is captured as well.
#[inline(always)]
pub fn is_workload(address: &Address) -> bool {
    // SAFETY: the map's values are plain data.
    unsafe { WORKLOADS.get(address) }.is_some()
        || CONFIGURATION
            .get(0)
            .is_some_and(|configuration| configuration.capture_all == 1)
}
