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

/// The longest SPIFFE id, in bytes (SPIFFE-ID, section 2.3).
const MAX_LENGTH: usize = 2048;

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
            if text.len() > MAX_LENGTH {
                return None;
            }
            let mut segments = text.strip_prefix("spiffe://")?.split('/');
            let trust_domain = segments.next()?;
            let (ns, namespace) = (segments.next()?, segments.next()?);
            let (sa, service_account) = (segments.next()?, segments.next()?);
            let complete = ns == "ns" && sa == "sa" && segments.next().is_none();
            let named = [trust_domain, namespace, service_account]
                .into_iter()
                .all(is_segment);
            (complete && named).then(|| Self::new(trust_domain, namespace, service_account))
        };
        parts().ok_or_else(|| ParseIdentityError {
            text: text.to_owned(),
        })
    }
}

/// Letters, digits, dot, dash and underscore, but no relative path (SPIFFE-ID, section 2.2). So no
/// identity can carry an escape, a blank or a line break into a log, a policy or a header.
fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_kubernetes_form_is_an_identity() {
        for (text, expected) in [
            (
                "spiffe://cluster.local/ns/shop/sa/web",
                Some(("cluster.local", "shop", "web")),
            ),
            (
                "spiffe://td/ns/a-b/sa/c.d_E1",
                Some(("td", "a-b", "c.d_E1")),
            ),
            ("", None),
            ("spiffe://", None),
            ("https://cluster.local/ns/shop/sa/web", None),
            ("SPIFFE://cluster.local/ns/shop/sa/web", None),
            (" spiffe://cluster.local/ns/shop/sa/web", None),
            ("spiffe://cluster.local/ns/shop/sa/web/", None),
            ("spiffe://cluster.local/ns/shop/sa/web/more", None),
            ("spiffe://cluster.local/ns/shop/sa", None),
            ("spiffe://cluster.local/ns/shop/sa/", None),
            ("spiffe://cluster.local/ns//sa/web", None),
            ("spiffe:///ns/shop/sa/web", None),
            ("spiffe://cluster.local/sa/shop/ns/web", None),
            ("spiffe://cluster.local:1/ns/shop/sa/web", None),
            ("spiffe://user@cluster.local/ns/shop/sa/web", None),
            ("spiffe://cluster.local/ns/shop/sa/web?a", None),
            ("spiffe://cluster.local/ns/shop/sa/web#a", None),
            ("spiffe://cluster.local/ns/shop/sa/w%65b", None),
            ("spiffe://cluster.local/ns/../sa/web", None),
            ("spiffe://cluster.local/ns/shop/sa/we\nb", None),
            ("spiffe://cluster.local/ns/shop/sa/w\u{e9}b", None),
        ] {
            let parsed: Result<Identity, _> = text.parse();
            let parts = parsed.as_ref().ok().map(|identity| {
                (
                    identity.trust_domain(),
                    identity.namespace(),
                    identity.service_account(),
                )
            });
            assert_eq!(parts, expected, "{text:?}");
        }
    }

    #[test]
    fn an_identity_longer_than_the_standard_allows_is_refused() {
        let start = "spiffe://td/ns/a/sa/";
        let fits = format!("{start}{}", "a".repeat(MAX_LENGTH - start.len()));
        assert!(fits.parse::<Identity>().is_ok());
        assert!(format!("{fits}a").parse::<Identity>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            trust_domain in "[a-z0-9][a-z0-9.-]{0,20}",
            namespace in "[a-z0-9][a-z0-9-]{0,20}",
            account in "[a-z0-9][a-z0-9.-]{0,20}",
        ) {
            let identity = Identity::new(trust_domain, namespace, account);
            prop_assert_eq!(identity.to_string().parse(), Ok(identity));
        }

        #[test]
        fn what_is_read_prints_as_it_was(text in "(spiffe://)?.{0,12}(/ns/)?.{0,12}(/sa/)?.{0,12}") {
            crate::fuzzing::identity::check_id(&text);
        }
    }
}
