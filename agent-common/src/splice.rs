//! Moving bytes from socket to socket without TCP: layouts, and the decisions as pure functions.
//!
//! The agent asks for two sockets to become members: one of its own, and the application's at the
//! other end, looked up in the pod's own network namespace by the same addresses and ports. So who
//! is whose peer follows from where a socket is, and no other namespace's can stand in for it.

use core::mem::size_of;

use crate::{counter::SpliceCounter, map::Address};

/// Sockets that are members at once; a connection of an application with the agent has two.
pub const MAX_MEMBERS: u32 = 131_072;
/// Bytes that may wait unread in one direction, if nothing else is said.
pub const DEFAULT_LIMIT: u32 = 1 << 20;
/// In place of a namespace's id: the one of who asks.
pub const OWN_NAMESPACE: i32 = -1;

/// What the agent asks the program that joins.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JoinRequest {
    /// Any number that no other connection has had; the lowest bit is 0.
    pub id: u64,
    /// The address of the agent's end, as the agent's socket has it.
    pub agent: Address,
    /// The application's.
    pub application: Address,
    /// The agent's port.
    pub agent_port: u16,
    /// The application's.
    pub application_port: u16,
    /// Id of the pod's network namespace in the agent's; or [`OWN_NAMESPACE`].
    pub namespace: i32,
}
const _: () = assert!(size_of::<JoinRequest>() == 48);

/// Where the request begins in what the program is run with: it takes it for a frame.
pub const REQUEST_OFFSET: usize = 14;

/// The key of the agent's end; that of the application's end has the lowest bit set.
#[must_use]
#[inline(always)]
pub const fn peer_key(key: u64) -> u64 {
    key ^ 1
}

/// The bytes go through TCP, or have last gone there.
pub const PATH_TCP: u32 = 0;
/// All that is on its way has been redirected.
pub const PATH_SPLICED: u32 = 1;
/// The agent has so much to send that it keeps it to TCP, until it says otherwise.
pub const PATH_BULK: u32 = 2;

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
    /// Of the open file that the application has its end by, whichever end this is.
    pub file: u64,
    /// `PATH_*`: which way what it sends goes.
    pub path: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<End>() == 40);

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
}
const _: () = assert!(size_of::<Offsets>() == 28);

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
    /// The peer has read all that went through TCP.
    pub caught_up: bool,
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
/// The peer reads what was redirected before what came through TCP. So what is redirected must
/// never follow bytes that are still on their way through TCP; the other way round is in order.
#[must_use]
#[inline(always)]
pub fn way(message: Message) -> Way {
    let limit = match message.path {
        PATH_SPLICED => message.limit,
        PATH_BULK => return Way::Tcp(SpliceCounter::TcpBulk),
        // Half of it, lest every message switch.
        _ if message.caught_up => message.limit / 2,
        _ => return Way::Tcp(SpliceCounter::TcpUnread),
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
