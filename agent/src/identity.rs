//! Who a workload is: SPIFFE ids, certificates and the authority that signs them.
//!
//! On a node: [`certificates`] keeps one certificate for each local identity, fetched by
//! [`ca_client`]; [`tls`] turns them into configurations. In the control plane: [`ca_service`]
//! answers, [`authority`] signs. Private keys stay in this module.

pub mod authority;
pub mod ca_client;
pub mod ca_service;
pub mod certificates;
mod files;
pub mod pod_report;
pub mod request;
pub mod spiffe;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
mod wire;
pub mod workload_certificate;
pub mod x509;

pub use certificates::Certificates;
pub use spiffe::Identity;
pub use workload_certificate::WorkloadCertificate;
