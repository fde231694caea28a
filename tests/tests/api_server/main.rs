//! The lab's API server, as the real client sees it.

mod client;
mod faults;
mod objects;
mod permissions;
mod watches;
