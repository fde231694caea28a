//! cgroup hooks of connect and getpeername: a pod that connects to a service.
//!
//! If the endpoint that is drawn is on this node, and a connection to it would pass without the agent, the
//! socket connects to the endpoint. Its application sees the VIP as ever. Nothing rests on what is
//! chosen here: what the pod then sends is judged as if the application had named the endpoint.
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what isn't borrowed is copied to the stack, of which there is little"
)]

use ambit_common::{
    balance::{
        self, CHOICE_DRAWN, CHOICE_MADE, CHOICE_NONE, CHOICE_OPEN, Choice, Draw, EndpointKey,
        EndpointValue,
    },
    counter::Counter,
    map::{Address, DIRECTION_OUTBOUND, FlowKey, INTERFACE_ENROLLED, InterfaceValue, ServiceKey},
    passed::VerdictKey,
};
use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_netns_cookie, bpf_get_prandom_u32},
    },
    macros::{btf_map, cgroup_sock_addr},
    programs::SockAddrContext,
};

use crate::{
    from_pod::{is_excluded_network, is_excluded_port},
    maps::{DRAWN, INTERFACES, LOCAL_ENDPOINTS, NAMESPACES, PODS, SERVICES},
    packet, passed,
    socket_storage::{self, SocketStorage},
    verdict,
};

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
/// What these programs return: the call goes on.
const PROCEED: i32 = 1;

#[btf_map]
pub static CHOICES: SocketStorage<Choice> = SocketStorage::new();

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let call = ctx.sock_addr;
    // SAFETY: a field of the kernel's context.
    let address = unsafe { (*call).user_ip4 };
    if let Some(endpoint) = connecting(&ctx, &packet::mapped(address.to_ne_bytes())) {
        // SAFETY: as above, one that may be written.
        unsafe { (*call).user_ip4 = packet::ipv4(&endpoint.address) };
        set_port(call, endpoint.port);
    }
    PROCEED
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let address = address6(ctx.sock_addr);
    if let Some(endpoint) = connecting(&ctx, &address) {
        set_address6(ctx.sock_addr, &endpoint.address);
        set_port(ctx.sock_addr, endpoint.port);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(service) = peer(&ctx) {
        // SAFETY: a field of the kernel's context that may be written.
        unsafe { (*ctx.sock_addr).user_ip4 = packet::ipv4(&service.address) };
        set_port(ctx.sock_addr, service.port);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(service) = peer(&ctx) {
        set_address6(ctx.sock_addr, &service.address);
        set_port(ctx.sock_addr, service.port);
    }
    PROCEED
}

/// The service that an application has connected to, if its socket is connected to an endpoint.
#[inline(always)]
fn peer(ctx: &SockAddrContext) -> Option<&'static ServiceKey> {
    let choice = socket_storage::get(&raw const CHOICES, socket(ctx))?;
    (choice.state == CHOICE_MADE).then_some(&choice.service)
}

/// What a socket connects to in place of what its application names.
#[inline(always)]
fn connecting(ctx: &SockAddrContext, address: &Address) -> Option<EndpointValue> {
    // SAFETY: fields of the kernel's context.
    let (kind, protocol, port) = unsafe {
        let call = ctx.sock_addr;
        ((*call).type_, (*call).protocol, (*call).user_port)
    };
    if kind != SOCK_STREAM || protocol != IPPROTO_TCP {
        return None;
    }
    let key = ServiceKey {
        address: *address,
        port: u16::from_be(port as u16).into(),
    };
    // SAFETY: the map's values are plain data, written whole.
    let Some(service) = (unsafe { SERVICES.get(&key) }) else {
        // The socket may have been another connection's before.
        if let Some(choice) = socket_storage::get(&raw const CHOICES, socket(ctx)) {
            choice.state = CHOICE_NONE;
        }
        return None;
    };
    let Some(choice) = socket_storage::get_or_new(&raw const CHOICES, socket(ctx)) else {
        verdict::count(Counter::ServiceTableFailed);
        return None;
    };
    *choice = Choice {
        // SAFETY: the context is the kernel's.
        namespace: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        service: key,
        state: CHOICE_OPEN,
    };
    // SAFETY: the maps' values are plain data.
    let index = *unsafe { NAMESPACES.get(&choice.namespace) }?;
    // SAFETY: as above.
    let interface = unsafe { INTERFACES.get(index) }?;
    if interface.flags & INTERFACE_ENROLLED == 0 || is_excluded(index, &key.address, key.port) {
        return None;
    }
    // SAFETY: no arguments.
    let drawn = balance::draw(service, unsafe { bpf_get_prandom_u32() });
    let endpoint = match drawn {
        Draw::None => return None,
        Draw::Elsewhere => None,
        Draw::Here(endpoint) => {
            let key = EndpointKey {
                service: key,
                index: endpoint,
            };
            // SAFETY: as above. One that isn't there is being replaced.
            let endpoint = unsafe { LOCAL_ENDPOINTS.get(&key) }?;
            // The pod would be left alone with it.
            if is_excluded(index, &endpoint.address, endpoint.port) {
                return None;
            }
            passes(index, interface, endpoint).then_some(*endpoint)
        }
    };
    let (state, counter) = if endpoint.is_some() {
        (CHOICE_MADE, Counter::ServiceHere)
    } else {
        (CHOICE_DRAWN, Counter::ServiceLeft)
    };
    choice.state = state;
    verdict::count(counter);
    endpoint
}

#[inline(always)]
fn is_excluded(index: u32, address: &Address, port: u32) -> bool {
    is_excluded_port(index, port as u16, DIRECTION_OUTBOUND) || is_excluded_network(index, address)
}

/// Whether a connection of the pod to an endpoint would pass without the agent.
#[inline(always)]
fn passes(index: u32, source: &InterfaceValue, endpoint: &EndpointValue) -> bool {
    let mut kind = VerdictKey {
        source: source.identity,
        destination: [0; 16],
        port: endpoint.port as u16,
        padding: 0,
    };
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    passed::server(&mut kind, index, &endpoint.address, now).is_some()
}

/// A socket that opened a connection is connected. The service, if it is connected to an endpoint.
///
/// `flow` is the connection as its pod sees it, which the namespace is learned from.
#[inline(always)]
pub fn connected(socket: *mut bpf_sock, flow: &FlowKey) -> Option<ServiceKey> {
    let choice = socket_storage::get(&raw const CHOICES, socket)?;
    // SAFETY: the maps' values are plain data.
    let known = unsafe { NAMESPACES.get(&choice.namespace) };
    // SAFETY: as above.
    if let Some(index) = unsafe { PODS.get(&flow.pod) }
        && known != Some(index)
    {
        written(NAMESPACES.insert(&choice.namespace, index, 0));
    }
    match choice.state {
        CHOICE_MADE => Some(choice.service),
        CHOICE_DRAWN => {
            written(DRAWN.insert(flow, 1, 0));
            None
        }
        _ => None,
    }
}

/// A failure has the agent carry connections, or choose among all endpoints.
#[inline(always)]
fn written(result: Result<(), i32>) {
    if result.is_err() {
        verdict::count(Counter::ServiceTableFailed);
    }
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: a field of the kernel's context.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn set_port(call: *mut bpf_sock_addr, port: u32) {
    // SAFETY: a field of the kernel's context that may be written; its two bytes are in the network's
    // order.
    unsafe { (*call).user_port = (port as u16).to_be().into() };
}

#[inline(always)]
fn address6(call: *const bpf_sock_addr) -> Address {
    macro_rules! word {
        ($index:literal) => {
            // SAFETY: a field of the kernel's context. One by one: it can't be copied as a whole.
            unsafe { core::ptr::read_volatile(&raw const (*call).user_ip6[$index]) }
        };
    }
    packet::from_words([word!(0), word!(1), word!(2), word!(3)])
}

#[inline(always)]
fn set_address6(call: *mut bpf_sock_addr, address: &Address) {
    let words = packet::to_words(address);
    macro_rules! set {
        ($($index:literal)*) => {
            $(
                // SAFETY: as in `address6`, and may be written.
                unsafe {
                    core::ptr::write_volatile(&raw mut (*call).user_ip6[$index], words[$index]);
                }
            )*
        };
    }
    set!(0 1 2 3);
}
