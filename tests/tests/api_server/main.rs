//! The lab's API server, as the real client sees it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it didn't expect has failed"
)]

mod client;
mod faults;
mod objects;
mod permissions;
mod watches;
