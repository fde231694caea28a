//! SPIFFE ids of the form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::{fmt, str::FromStr, sync::Arc};

/// The identity of a workload: its trust domain, namespace and service account.
///
/// Cheap to clone, compared by value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl Identity {
    /// Puts an identity together from parts that Kubernetes has already validated.
    pub fn new(
        trust_domain: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The trust domain, `cluster.local` unless configured.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

/// The full URI, `spiffe://` included.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// Why a text isn't an identity of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a SPIFFE id of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
)]
pub struct ParseIdentityError {
    text: String,
}

impl FromStr for Identity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let mut segments = text.strip_prefix("spiffe://")?.split('/');
            let trust_domain = segments.next()?;
            let (ns, namespace) = (segments.next()?, segments.next()?);
            let (sa, service_account) = (segments.next()?, segments.next()?);
            let complete = ns == "ns" && sa == "sa" && segments.next().is_none();
            let named = ![trust_domain, namespace, service_account].contains(&"");
            (complete && named).then(|| Self::new(trust_domain, namespace, service_account))
        };
        parts().ok_or_else(|| ParseIdentityError {
            text: text.to_owned(),
        })
    }
}
