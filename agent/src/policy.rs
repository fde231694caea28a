//! L4 policy: who may connect to whom. Decided here and nowhere else.
//!
//! [`parse`] turns the `security.istio.io` objects of an operator into the checked types of
//! [`model`], [`set`] indexes them, and [`evaluate()`] decides. All of it is pure: no I/O, no
//! clock. An open connection is judged anew by calling [`evaluate()`] again with the new policies.

pub mod evaluate;
pub mod model;
pub mod parse;
pub mod set;

pub use evaluate::{
    Connection, Denied, DryRun, Permit, RuleName, Through, dry_run, evaluate,
    is_same_for_all_addresses,
    mtls::{EffectiveMtls, MtlsLevel, effective_mtls},
};
pub use model::{AuthorizationPolicy, PeerAuthentication};
pub use set::{PolicySet, Scope};
