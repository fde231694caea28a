//! What a pod is to be, and the manifest that says so.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

/// What a pod is made from.
#[derive(Debug, Clone)]
pub struct PodSpec {
    pub(crate) namespace: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mtu: u32,
    pub(crate) announced: bool,
    pub(crate) service_account: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl PodSpec {
    /// A pod in a namespace: service account `default`, MTU 1500, the node's next addresses.
    #[must_use]
    pub fn in_namespace(namespace: &str) -> PodSpec {
        PodSpec {
            namespace: namespace.into(),
            addresses: Vec::new(),
            mtu: 1500,
            announced: true,
            service_account: "default".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Sets the service account, the pod's identity.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> PodSpec {
        self.service_account = name.into();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> PodSpec {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> PodSpec {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// Asks for an address of the node's pod network; more than once for more than one. The pod
    /// has no others then.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> PodSpec {
        self.addresses.push(address);
        self
    }

    /// Asks for addresses, such as those of a pod that is gone.
    #[must_use]
    pub fn addresses(mut self, addresses: &[IpAddr]) -> PodSpec {
        self.addresses.extend(addresses);
        self
    }

    /// Sets the MTU of both ends of the pod's veth, in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> PodSpec {
        self.mtu = mtu;
        self
    }

    /// Leaves it to the test when the manifest is written: [`crate::Pod::announce`].
    #[must_use]
    pub fn unannounced(mut self) -> PodSpec {
        self.announced = false;
        self
    }

    pub(super) fn render(&self, pod: &Rendered<'_>) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.name,
                "namespace": self.namespace,
                "uid": pod.uid,
                "labels": self.labels,
                "annotations": self.annotations,
            },
            "spec": {
                "nodeName": pod.node,
                "serviceAccountName": self.service_account,
                "containers": [{ "name": "main", "image": "lab" }],
            },
            "status": pod.status(),
        })
    }
}

/// What scheduling added to a spec. Without addresses the pod is pending.
pub(super) struct Rendered<'a> {
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) node: &'a str,
    pub(super) host_addresses: &'a [IpAddr],
    pub(super) addresses: &'a [IpAddr],
}

impl Rendered<'_> {
    fn status(&self) -> Value {
        let Some(first) = self.addresses.first() else {
            return json!({ "phase": "Pending" });
        };
        let list = |addresses: &[IpAddr]| -> Vec<Value> {
            addresses
                .iter()
                .map(|address| json!({ "ip": address }))
                .collect()
        };
        json!({
            "phase": "Running",
            "hostIP": self.host_addresses.first(),
            "hostIPs": list(self.host_addresses),
            "podIP": first,
            "podIPs": list(self.addresses),
            "conditions": [{ "type": "Ready", "status": "True" }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(addresses: &[IpAddr]) -> Value {
        let spec = PodSpec::in_namespace("shop")
            .service_account("till")
            .label("app", "web");
        spec.render(&Rendered {
            name: "web-0",
            uid: "u-1",
            node: "a",
            host_addresses: &["10.78.0.1".parse().unwrap()],
            addresses,
        })
    }

    #[test]
    fn a_running_pod_has_addresses_and_a_pending_one_has_none() {
        let running = render(&[
            "10.77.1.2".parse().unwrap(),
            "fd00:77:0:1::2".parse().unwrap(),
        ]);
        let table = [
            ("/metadata/uid", json!("u-1")),
            ("/metadata/labels/app", json!("web")),
            ("/spec/nodeName", json!("a")),
            ("/spec/serviceAccountName", json!("till")),
            ("/status/phase", json!("Running")),
            ("/status/hostIP", json!("10.78.0.1")),
            ("/status/podIP", json!("10.77.1.2")),
            ("/status/podIPs/1/ip", json!("fd00:77:0:1::2")),
        ];
        for (path, expected) in table {
            assert_eq!(running.pointer(path), Some(&expected), "{path}");
        }
        assert_eq!(
            render(&[]).pointer("/status"),
            Some(&json!({ "phase": "Pending" }))
        );
    }
}
