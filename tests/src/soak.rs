//! What crash tests and the soak are made of: load that is looked at from both ends, disturbances, and
//! what must hold meanwhile.

mod books;
mod disturb;
mod footprint;
mod report;
mod requests;
mod resources;
mod run;
mod stage;
mod victims;
mod wire;

pub use footprint::{Footprint, NETWORK_STATE, network_state};
pub use report::Report;
pub use requests::{Connections, Count, Requests};
pub use resources::{Holding, Holdings};
pub use run::{Settings, run};
pub use stage::{Load, MARKER, Stage};
pub use victims::Victim;
pub use wire::{Seen, Wire};
