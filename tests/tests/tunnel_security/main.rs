//! Who gets a tunnel, and what may be asked for in one: crafted clients against an agent, and an
//! agent against crafted servers.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it didn't expect has failed"
)]

mod client_side;
mod credentials;
mod hbone;
mod server_side;
mod waypoint;
