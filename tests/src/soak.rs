//! What crash tests and the soak are made of: load that is looked at from both ends, disturbances, and
//! what must hold meanwhile.

mod footprint;
mod requests;
mod stage;
mod victims;
mod wire;

pub use footprint::{Footprint, NETWORK_STATE, network_state};
pub use requests::{Connections, Count, Requests};
pub use stage::{Load, MARKER, Stage};
pub use victims::Victim;
pub use wire::{Seen, Wire};
