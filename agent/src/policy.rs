//! Policy: who may connect to whom, and ask what of it. Decided here and nowhere else.
//!
//! [`parse`] turns the `security.istio.io` objects of an operator into the checked types of
//! [`model`], [`set`] indexes them, and [`evaluate()`] decides. All of it is pure: no I/O, no
//! clock. An open connection is judged anew by calling [`evaluate()`] again with the new policies.

pub mod evaluate;
pub mod jwt;
pub mod model;
pub mod parse;
pub mod path;
pub mod request;
pub mod set;

pub use evaluate::{
    Connection, Denied, DryRun, Permit, RuleName, Through, ViaWaypoint, dry_run,
    dry_run_at_waypoint, evaluate, evaluate_at_waypoint, is_same_for_all_addresses,
    mtls::{EffectiveMtls, MtlsLevel, effective_mtls},
};
pub use jwt::Token;
pub use model::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
pub use request::{BadTarget, HttpRequest, RequestTarget};
pub use set::{PolicySet, Scope, WaypointScope};
