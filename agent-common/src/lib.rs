//! What the agent and its eBPF programs share: names, map layouts, marks, counters, and the
//! decisions of the capture as pure functions, tested on the host.
#![no_std]

pub mod arrival;
pub mod balance;
pub mod capture;
pub mod counter;
pub mod held;
pub mod map;
pub mod mark;
pub mod name;
pub mod pacing;
pub mod passed;
pub mod splice;
#[cfg(feature = "user")]
mod written;

#[cfg(feature = "user")]
pub use written::from_bytes;
