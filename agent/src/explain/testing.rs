//! A node whose facts are made up.

use std::sync::Mutex;

use super::*;

/// Node `a`: every pod is captured, every certificate valid, everybody answers, unless it is said otherwise.
pub(crate) struct MadeUp {
    /// Why no pod's interface is known.
    pub(crate) unbound: Option<&'static str>,
    /// What the kernel says.
    pub(crate) verdict: KernelVerdict,
    /// What certificates are like.
    pub(crate) certificate: Option<CertificateView>,
    /// What comes of trying to reach somebody.
    pub(crate) reached: Result<Reached, ProbeError>,
    /// Whom it was tried to reach.
    pub(crate) probes: Mutex<Vec<Probe>>,
}

impl Default for MadeUp {
    fn default() -> Self {
        Self {
            unbound: None,
            verdict: KernelVerdict::Asks(7),
            certificate: Some(certificate(Some("2999-01-01T00:00:00Z"), None)),
            reached: Ok(Reached::Peer(None)),
            probes: Mutex::default(),
        }
    }
}

/// One that ends then, if there is one, and that couldn't be renewed for that reason.
pub(crate) fn certificate(end: Option<&str>, error: Option<&str>) -> CertificateView {
    CertificateView {
        identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
        serial: None,
        not_before: None,
        not_after: end.map(Into::into),
        error: error.map(Into::into),
    }
}

impl NodeFacts for MadeUp {
    fn node(&self) -> &str {
        "a"
    }

    fn interface(&self, pod: &Workload) -> Result<InterfaceFacts, String> {
        match self.unbound {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(InterfaceFacts {
                name: format!("veth-{}", pod.name.name),
                index: 5,
                mechanism: "TCX",
                is_attached: true,
            }),
        }
    }

    fn verdict(&self, _: &Identity, _: &WorkloadUid, _: u16) -> KernelVerdict {
        self.verdict
    }

    fn certificate(&self, _: &Identity) -> Option<CertificateView> {
        self.certificate.clone()
    }

    fn missing(&self) -> MissingWaypoint {
        MissingWaypoint::Deny
    }

    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<Reached, ProbeError>> {
        self.probes.lock().unwrap().push(probe);
        Box::pin(std::future::ready(self.reached.clone()))
    }
}
