//! Who a workload is: SPIFFE ids, certificates and the authority that signs them.

pub mod spiffe;

pub use spiffe::Identity;
