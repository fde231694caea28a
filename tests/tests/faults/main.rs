//! What goes wrong around the mesh: floods, want of descriptors, memory and disk, clocks that are set, an
//! authority that is away. What is open goes on, new connections are served or told why not, everything is
//! counted, and all is well again by itself.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

mod attacks;
mod authority;
mod clock;
mod descriptors;
mod disk;
mod fairness;
mod memory;
mod shop;
