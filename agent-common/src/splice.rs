//! Moving bytes from socket to socket without TCP: layouts, and the decisions as pure functions.
//!
//! Two sockets are each other's peers only if their addresses and ports mirror each other and so do
//! their initial sequence numbers, in both directions. Nobody but the two ends of one TCP
//! connection has those, so equal addresses in other network namespaces never meet.

use core::mem::size_of;

use crate::{counter::SpliceCounter, map::Address};

/// Sockets that are members at once; a connection of an application with the agent has two.
pub const MAX_ENDS: u32 = 131_072;
/// Bytes that may wait unread in one direction, if nothing else is said.
pub const DEFAULT_LIMIT: u32 = 1 << 20;

/// Tells one end of one TCP connection from every other socket of the machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EndKey {
    /// The socket's own address.
    pub local: Address,
    /// The other end's.
    pub remote: Address,
    /// The socket's own port.
    pub local_port: u16,
    /// The other end's.
    pub remote_port: u16,
    /// The next byte that the socket would send when the connection was established.
    pub local_sequence: u32,
    /// The next byte that it would receive.
    pub remote_sequence: u32,
}
const _: () = assert!(size_of::<EndKey>() == 44);

impl EndKey {
    /// The key of the other end.
    #[must_use]
    #[inline(always)]
    pub const fn peer(&self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
            local_port: self.remote_port,
            remote_port: self.local_port,
            local_sequence: self.remote_sequence,
            remote_sequence: self.local_sequence,
        }
    }
}

/// The socket is the agent's, which never blocks.
pub const END_AGENT: u32 = 1;
/// A listening socket in non-blocking mode; those that it accepts inherit the mark.
pub const END_LISTENER: u32 = 1 << 1;
/// The socket is a member.
pub const END_MEMBER: u32 = 1 << 2;
/// The application has put the socket in blocking mode: it must leave.
pub const END_BLOCKING: u32 = 1 << 3;

/// The bytes go through TCP, or have last gone there.
pub const PATH_TCP: u32 = 0;
/// All that is on its way has been redirected.
pub const PATH_SPLICED: u32 = 1;

/// What is kept with a socket; it goes with the socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// Its own key.
    pub key: EndKey,
    /// Its peer's key.
    pub peer_key: EndKey,
    /// The kernel's address of the socket.
    pub socket: u64,
    /// Of its peer; 0 while none is known.
    pub peer: u64,
    /// Of the open file that the application has the socket by; 0 while it isn't known.
    pub file: u64,
    /// The same of its peer.
    pub peer_file: u64,
    /// `PATH_*`: which way what it sends goes.
    pub path: u32,
    /// `END_*`.
    pub flags: u32,
}
const _: () = assert!(size_of::<End>() == 128);

/// Settings of the programs. Each agent that starts writes them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpliceSettings {
    /// Cookie of the agent's network namespace.
    pub namespace: u64,
    /// 1: sockets may become members. 0: only those of the self-test.
    pub enabled: u32,
    /// Port of the self-test's server in the agent's namespace; 0 while there is none.
    pub test_port: u32,
    /// Bytes that may wait unread in one direction.
    pub limit: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<SpliceSettings>() == 24);

/// Offsets in the running kernel's structs, in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// `sock.sk_backlog.rmem_alloc`: bytes that wait unread.
    pub queued: u32,
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
const _: () = assert!(size_of::<Offsets>() == 24);

/// Whose a socket is that has just been connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The agent's.
    Agent,
    /// The self-test's that stands for an application's.
    Test,
    /// A pod's.
    Application(Mode),
}

/// In which mode an application has its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its calls return at once.
    NonBlocking,
    /// It waits in its calls.
    Blocking,
    /// It was accepted from a listener that waits, or of which nothing is known.
    BlockingListener,
}

/// What is known of a socket that has just been connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whose it is.
    pub owner: Owner,
    /// It accepted the connection, so that the other end was connected before.
    pub accepted: bool,
    /// The other end is a member.
    pub has_peer: bool,
}

/// Whether a socket may become a member; else the reason.
///
/// A member that blocks would see its `recv` fail with EAGAIN: the kernel's `tcp_bpf_recvmsg` waits
/// once, and is woken by more than data.
///
/// # Errors
/// The counter that says why not.
#[inline(always)]
pub fn join(candidate: Candidate) -> Result<SpliceCounter, SpliceCounter> {
    match candidate.owner {
        // The end that connects is always established first: if it didn't join, nobody will.
        _ if candidate.accepted && !candidate.has_peer => Err(SpliceCounter::PeerIsNoMember),
        Owner::Agent => Ok(SpliceCounter::JoinedAgent),
        Owner::Test | Owner::Application(Mode::NonBlocking) => Ok(SpliceCounter::JoinedApplication),
        Owner::Application(Mode::Blocking) => Err(SpliceCounter::Blocking),
        Owner::Application(Mode::BlockingListener) => Err(SpliceCounter::BlockingListener),
    }
}

/// What is known when a member sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// `PATH_*` of what was sent before.
    pub path: u32,
    /// Bytes that its peer has been given past TCP and hasn't read.
    pub queued: u32,
    /// How many those may be.
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
    let limit = if message.path == PATH_SPLICED {
        message.limit
    } else if message.caught_up {
        // Half of it, lest every message switch.
        message.limit / 2
    } else {
        return Way::Tcp(SpliceCounter::TcpUnread);
    };
    if message.queued > limit {
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
    use super::{End, EndKey, Offsets, SpliceSettings};

    // SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for EndKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for End {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SpliceSettings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Offsets {}
}
