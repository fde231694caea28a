//! Moving bytes from socket to socket without TCP: layouts, and the decisions as pure functions.
//!
//! The agent asks for the two sockets of a connection to become members: those of two applications, or an
//! application's and its own. Each is looked up in its own network namespace by the same addresses and
//! ports. So who is whose peer follows from where a socket is, and no other namespace's can stand in for it.

use core::mem::size_of;

use crate::{counter::SpliceCounter, map::Address};

/// Sockets that are members at once; a connection of an application with the agent has two.
pub const MAX_MEMBERS: u32 = 131_072;
/// Bytes that may wait unread in one direction, if nothing else is said.
pub const DEFAULT_LIMIT: u32 = 1 << 20;
/// Members of which it is remembered what came through TCP. Of a forgotten one it is asked again how far
/// its application has read.
pub const MAX_STREAMS: u32 = 65_536;
/// In place of a namespace's id: the one of who asks.
pub const OWN_NAMESPACE: i32 = -1;

/// Where one end of a connection is, as its own socket has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// Zero.
    pub padding: u16,
    /// Id of its network namespace in the agent's; or [`OWN_NAMESPACE`].
    pub namespace: i32,
}
const _: () = assert!(size_of::<Place>() == 24);

/// What the agent asks the program that joins.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JoinRequest {
    /// Any number that no other connection has had; the lowest bit is 0.
    pub id: u64,
    /// The agent's end, if it is in the agent's namespace; or an application's.
    pub first: Place,
    /// An application's end.
    pub second: Place,
}
const _: () = assert!(size_of::<JoinRequest>() == 56);

/// Where the request begins in what the program is run with: it takes it for a frame.
pub const REQUEST_OFFSET: usize = 14;

/// The key of the first end; that of the second has the lowest bit set.
#[must_use]
#[inline(always)]
pub const fn peer_key(key: u64) -> u64 {
    key ^ 1
}

/// The bytes go through TCP, or have last gone there.
pub const PATH_TCP: u32 = 0;
/// All that is on its way has been redirected.
pub const PATH_SPLICED: u32 = 1;

/// What is kept with a member; it goes with the socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// Its peer's key in the map of members.
    pub peer_key: u64,
    /// The kernel's address of the socket.
    pub socket: u64,
    /// Of its peer. By the time it is another socket's, the key leads nowhere.
    pub peer: u64,
    /// Of the open file that an application has it by; 0: the agent has it.
    pub file: u64,
    /// Of the peer's.
    pub peer_file: u64,
    /// Bytes that it sent past TCP.
    pub sent: u64,
    /// `PATH_*`: which way what it sends goes.
    pub path: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<End>() == 56);

/// Settings of the programs. Each agent that starts writes them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpliceSettings {
    /// Bytes that may wait unread in one direction.
    pub limit: u32,
}
const _: () = assert!(size_of::<SpliceSettings>() == 4);

/// Offsets in the running kernel's structs, in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// `sock.sk_backlog.rmem_alloc`: bytes that wait unread.
    pub queued: u32,
    /// `sock.sk_rcvbuf`: bytes of all kinds from which on the kernel drops what comes through TCP.
    pub rcvbuf: u32,
    /// `sock.sk_socket`.
    pub sk_socket: u32,
    /// `socket.file`.
    pub file: u32,
    /// `file.f_flags`.
    pub file_flags: u32,
    /// `tcp_sock.copied_seq`: the first byte of TCP's that the application hasn't read.
    pub copied_seq: u32,
    /// `tcp_sock.write_seq`: the first byte that TCP hasn't been given.
    pub write_seq: u32,
    /// `sock.sk_rcvlowat`: how many bytes must wait before the application is woken.
    pub low_water: u32,
    /// `sock.sk_receive_queue.next`: the first packet that waits, or the queue itself.
    pub receive_queue: u32,
    /// `sk_buff.cb`, of which the first word is the packet's first sequence number.
    pub packet_first: u32,
    /// `sock.sk_lock.owned`: whether the application is in the middle of a call.
    pub in_call: u32,
    /// `tcp_sock.rcv_nxt`: the first byte that TCP hasn't received in order.
    pub rcv_nxt: u32,
    /// `sock.sk_user_data`: of a member, the address of its `sk_psock`, and flags.
    pub user_data: u32,
    /// `sk_psock.ingress_skb.qlen`: packets that there was no memory to put into the member's queue.
    pub held_up: u32,
    /// `sock.__sk_common.skc_state`, one byte of `TCP_*`.
    pub state: u32,
    /// `sock.__sk_common.skc_cookie`.
    pub cookie: u32,
    /// `inet_connection_sock.icsk_ulp_ops`: not null if the kernel encrypts for the application.
    pub upper_protocol: u32,
}
const _: () = assert!(size_of::<Offsets>() == 68);

/// How many bytes may wait unread at a socket.
///
/// They are charged to its receive buffer: were that full, the kernel would drop what comes through
/// TCP, the end of the connection included, and the sender would send it again 200 ms later at best.
#[must_use]
#[inline(always)]
pub const fn limit(wanted: u32, receive_buffer: u32) -> u32 {
    let most = receive_buffer / 2;
    if wanted < most { wanted } else { most }
}

/// What came to a member through TCP.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream {
    /// Sequence number of what is to come next.
    pub next: u32,
    /// 1: something couldn't be handed over, so nothing more is.
    pub broken: u32,
}
const _: () = assert!(size_of::<Stream>() == 8);

/// Of all sequence numbers: one that is further ahead than that lies behind.
const HALF: u32 = 1 << 31;

/// The later of two sequence numbers.
#[must_use]
#[inline(always)]
pub const fn later(one: u32, other: u32) -> u32 {
    if other.wrapping_sub(one) < HALF {
        other
    } else {
        one
    }
}

/// Whether a member in that state (`TCP_*` of net/tcp_states.h) may still send: it has neither said its
/// end nor been reset.
#[must_use]
#[inline(always)]
pub const fn sends(state: u32) -> bool {
    const ESTABLISHED: u32 = 1;
    const CLOSE_WAIT: u32 = 8;
    matches!(state, ESTABLISHED | CLOSE_WAIT)
}

/// Whether a member in that state may still be sent to.
#[must_use]
#[inline(always)]
pub const fn receives(state: u32) -> bool {
    const ESTABLISHED: u32 = 1;
    const FIN_WAIT1: u32 = 4;
    const FIN_WAIT2: u32 = 5;
    matches!(state, ESTABLISHED | FIN_WAIT1 | FIN_WAIT2)
}

/// How much of a packet's beginning isn't new, by sequence numbers: the packet's first, how many it has,
/// and the one that is to come next.
#[must_use]
#[inline(always)]
pub const fn known(first: u32, length: u32, next: u32) -> u32 {
    match next.wrapping_sub(first) {
        // It lies behind: what is between waits elsewhere.
        HALF.. => 0,
        known if known < length => known,
        _ => length,
    }
}

/// What is known when a member sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// `PATH_*` of what was sent before.
    pub path: u32,
    /// Its bytes.
    pub size: u32,
    /// Bytes that its peer has been given past TCP and hasn't read.
    pub queued: u32,
    /// How many those may be: [`limit`].
    pub limit: u32,
    /// All that went through TCP is in the peer's queue.
    pub has_arrived: bool,
}

/// What becomes of what a member sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the peer's queue.
    Redirect,
    /// Through TCP, whose window holds the sender back.
    Tcp(SpliceCounter),
}

/// The switching rule.
///
/// The peer has one queue. What is redirected is in it at once, so it must never follow bytes that are still
/// on their way through TCP; the other way round is in order.
#[must_use]
#[inline(always)]
pub fn way(message: Message) -> Way {
    let limit = match message.path {
        PATH_SPLICED => message.limit,
        // Half of it, lest every message switch.
        _ if message.has_arrived => message.limit / 2,
        _ => return Way::Tcp(SpliceCounter::TcpOnItsWay),
    };
    if message.queued.saturating_add(message.size) > limit {
        return Way::Tcp(SpliceCounter::TcpFull);
    }
    Way::Redirect
}

#[cfg(feature = "user")]
mod user {
    #![expect(
        unsafe_code,
        reason = "aya asks for an unsafe marker on plain-data map types"
    )]
    use super::{End, JoinRequest, Offsets, SpliceSettings};

    // SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for End {}
    // SAFETY: as above.
    unsafe impl aya::Pod for JoinRequest {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SpliceSettings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Offsets {}

    impl JoinRequest {
        /// The bytes that the program is run with.
        #[must_use]
        pub fn frame(&self) -> [u8; super::REQUEST_OFFSET + size_of::<Self>()] {
            let mut frame = [0; super::REQUEST_OFFSET + size_of::<Self>()];
            // SAFETY: plain data without padding, read as the bytes that it is.
            let bytes: [u8; size_of::<Self>()] = unsafe { core::mem::transmute(*self) };
            frame[super::REQUEST_OFFSET..].copy_from_slice(&bytes);
            frame
        }
    }
}

#[cfg(test)]
mod tests;
