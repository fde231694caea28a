//! SYNs that a pod sent before it was known: kept for the moment in which it is.

use core::mem::size_of;

/// Bytes of SYNs that wait for the agent: some four hundred. One that finds no room is sent again by its client.
pub const HELD_BYTES: u32 = 1 << 16;
/// The longest that is kept: Ethernet, IPv6 and all options that TCP has room for.
pub const LONGEST_SYN: usize = 14 + 40 + 60;
/// The shortest there is: Ethernet, IPv4 and TCP without options.
pub const SHORTEST_SYN: usize = 14 + 20 + 20;

/// A SYN as it came out of its pod.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSyn {
    /// When, on the kernel's monotonic clock, in nanoseconds.
    pub at: u64,
    /// Index of the interface that it came by.
    pub interface: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// The frame, from its Ethernet header on.
    pub frame: [u8; LONGEST_SYN],
    /// Zero.
    pub padding: [u8; 6],
}
const _: () = assert!(size_of::<HeldSyn>() == 136);

#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "aya asks for an unsafe marker on plain-data types"
)]
// SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
unsafe impl aya::Pod for HeldSyn {}
